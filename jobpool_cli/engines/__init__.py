"""Where tasks run: the contract (``base``) and the engine of this machine (``local``)."""
