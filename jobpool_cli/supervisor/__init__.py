"""The one process that writes a pool: launch and lock, the pure scheduler, and the loop that carries out its effects."""
