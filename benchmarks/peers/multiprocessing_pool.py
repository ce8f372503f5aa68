"""multiprocessing.Pool, by its ``map`` with the chunks that it chooses, and the platform's way to start processes."""

from __future__ import annotations

import multiprocessing
import time

from benchmarks.measure import Figures
from benchmarks.peers import Job, main, warm

NAME = "multiprocessing.Pool"
KEEPS = "nothing"
FORGETS = "everything, when the script ends; a worker that is killed leaves `map` waiting for ever"


def run(job: Job) -> Figures:
    """Map as the documentation's first example does."""
    arguments = job.arguments
    begun = time.perf_counter()
    with multiprocessing.Pool(job.workers) as pool:
        pool.map(warm, job.warm_arguments, chunksize=1)
        warmed = time.perf_counter()
        results = pool.map(job.function, arguments)
        ended = time.perf_counter()
    job.check(results)
    return {"seconds": ended - begun, "map_seconds": ended - warmed}


if __name__ == "__main__":
    main(run)
