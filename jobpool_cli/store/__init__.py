"""What is on disk: arguments, state, results, logs, requests, code snapshots. One module per kind of file."""
