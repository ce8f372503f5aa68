"""What successful tasks returned: blobs and Parquet segments, read back one by one or collected into one table."""
