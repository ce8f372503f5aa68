"""Python values as Arrow columns and back, exactly: ``codec`` is the front, the others know one kind of value each."""
