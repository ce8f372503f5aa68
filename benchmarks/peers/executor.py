"""concurrent.futures.ProcessPoolExecutor, by its ``map``."""

from __future__ import annotations

import time
from concurrent.futures import ProcessPoolExecutor

from benchmarks.measure import Figures
from benchmarks.peers import Job, main, warm

NAME = "ProcessPoolExecutor"
KEEPS = "nothing"
FORGETS = "everything, when the script ends; one worker that dies breaks the pool, and its results are lost"


def run(job: Job) -> Figures:
    """Map with the chunks that the variant asks for, of one task by default as in the library."""
    chunksize = int(job.variant.get("chunksize", "1"))
    arguments = job.arguments
    begun = time.perf_counter()
    with ProcessPoolExecutor(job.workers) as executor:
        list(executor.map(warm, job.warm_arguments))
        warmed = time.perf_counter()
        results = list(executor.map(job.function, arguments, chunksize=chunksize))
        ended = time.perf_counter()
    job.check(results)
    return {"seconds": ended - begun, "map_seconds": ended - warmed}


if __name__ == "__main__":
    main(run)
