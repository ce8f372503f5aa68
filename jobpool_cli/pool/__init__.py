"""The front door: ``JobPool``, one pool on disk, with a method for each thing that a user can do with it.

``view`` reads, ``steering`` acts, ``outcomes`` gives results, errors, logs and arguments as Python objects, ``tables``
as pandas has them; ``task`` is one task of a pool, ``mapping`` makes pools from Python. Heavy libraries are imported by
the methods that need them; asking how a pool is doing needs none.
"""

from jobpool_cli.pool.jobpool import JobPool

__all__ = ["JobPool"]
