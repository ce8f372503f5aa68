"""submitit's local executor: ``AutoExecutor(cluster="local").map_array``.

It starts all tasks at once, for only its Slurm executor can bound them, and for each a process that watches over it. To
submit as many as there are cores, and then the next, is slower, so it is left as it is.
"""

from __future__ import annotations

import sys
import time

import cloudpickle
import submitit
from submitit.helpers import as_completed

from benchmarks.measure import Figures
from benchmarks.peers import Job, main

NAME = "submitit, local"
KEEPS = "each task's pickled call, its pickled result or traceback, and two logs, one with the times in its text"
FORGETS = "exit codes, and which folder is which task: folders are named by process id, and the script knows the order"
PACKAGE = "submitit"

TIME_LIMIT_MINUTES = 60
POLL_SECONDS = 0.1


def run(job: Job) -> Figures:
    """Submit an array; take its results."""
    arguments = job.arguments
    # By value, so that a task's interpreter need not import the benchmarks.
    cloudpickle.register_pickle_by_value(sys.modules[job.function.__module__])
    output = job.folder / "output"
    begun = time.perf_counter()
    executor = submitit.AutoExecutor(folder=output / "%j", cluster="local")
    executor.update_parameters(timeout_min=TIME_LIMIT_MINUTES)
    tasks = executor.map_array(job.function, arguments)
    try:
        # Asked more often than by default, once in ten seconds.
        for _ in as_completed(tasks, poll_frequency=POLL_SECONDS):
            pass
        results = [task.result() for task in tasks]
        ended = time.perf_counter()
    finally:
        for task in tasks:
            if not task.done():
                task.cancel()
    job.check(results)
    return {
        "seconds": ended - begun,
        "disk_bytes": sum(file.stat().st_blocks * 512 for file in output.rglob("*") if file.is_file()),
    }


if __name__ == "__main__":
    main(run)
