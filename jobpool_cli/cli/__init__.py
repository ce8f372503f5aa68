"""The command line: one verb, one file; each parses, calls one method of JobPool, and has the answer rendered."""
