"""Workers on other machines: a host process on each runs the local engine; the supervisor speaks to all of them."""
