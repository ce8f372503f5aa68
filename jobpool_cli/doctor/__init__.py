"""What is wrong with a machine or a pool, what to do about it, and how to mend it without losing anything."""
