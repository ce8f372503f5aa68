"""A pool's arguments: reading the user's table, binding it to the function, storing it, reading it in a worker."""
