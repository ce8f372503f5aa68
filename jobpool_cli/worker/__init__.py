"""What runs inside a worker process: load the function, run batches, capture output, report outcomes."""
