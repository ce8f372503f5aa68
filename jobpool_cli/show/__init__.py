"""What people see of a pool, in a terminal and in a notebook; the command line and the Python API share it."""
