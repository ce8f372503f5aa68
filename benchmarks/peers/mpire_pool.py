"""mpire's WorkerPool, by its ``map`` with the chunks that it chooses."""

from __future__ import annotations

import time

from mpire import WorkerPool

from benchmarks.measure import Figures
from benchmarks.peers import Job, main, warm

NAME = "mpire"
KEEPS = "nothing"
FORGETS = "everything, when the script ends; one worker that dies ends the call, and its results are lost"
PACKAGE = "mpire"


def run(job: Job) -> Figures:
    """Map as the documentation's first example does, with the workers kept from one call to the next."""
    arguments = job.arguments
    begun = time.perf_counter()
    with WorkerPool(n_jobs=job.workers, keep_alive=True) as pool:
        pool.map(warm, job.warm_arguments, chunk_size=1)
        warmed = time.perf_counter()
        results = pool.map(job.function, arguments)
        ended = time.perf_counter()
    job.check(results)
    return {"seconds": ended - begun, "map_seconds": ended - warmed}


if __name__ == "__main__":
    main(run)
