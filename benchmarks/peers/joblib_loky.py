"""joblib with its default backend, loky, and its default batches, which size themselves."""

from __future__ import annotations

import time

from joblib import Parallel, delayed

from benchmarks.measure import Figures
from benchmarks.peers import Job, main, warm

NAME = "joblib (loky)"
KEEPS = "nothing (`Memory`, its cache, is another tool: a folder and two files for each call)"
FORGETS = "everything, when the script ends; one worker that dies ends the call, and its results are lost"
PACKAGE = "joblib"


def run(job: Job) -> Figures:
    """Call Parallel as the documentation does; its workers are kept from one call to the next."""
    arguments = job.arguments
    begun = time.perf_counter()
    Parallel(n_jobs=job.workers, batch_size=1)(delayed(warm)(each) for each in job.warm_arguments)
    warmed = time.perf_counter()
    results = Parallel(n_jobs=job.workers)(delayed(job.function)(each) for each in arguments)
    ended = time.perf_counter()
    job.check(results)
    return {"seconds": ended - begun, "map_seconds": ended - warmed}


if __name__ == "__main__":
    main(run)
