"""The one process that writes a pool: launch, lock, the pure scheduler, and the loop that carries out its effects."""
