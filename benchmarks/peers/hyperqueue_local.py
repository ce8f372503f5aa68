"""HyperQueue on this machine: the ``LocalCluster`` of its Python package, and a job of many tasks.

Every task is a process, that of a program or, for ``Job.function``, that of a Python interpreter of its own. The
package brings no ``hq`` command, so nothing is streamed and no journal is kept: only the command can ask for those.
"""

from __future__ import annotations

import sys
import time

import cloudpickle
from hyperqueue import Job as Tasks
from hyperqueue import LocalCluster
from hyperqueue.cluster import WorkerConfig
from hyperqueue.task.function import PythonEnv

from benchmarks.measure import Figures
from benchmarks.peers import Job, main
from benchmarks.peers.gnu_parallel import shell_command
from benchmarks.peers.ray_local import own_network

NAME = "HyperQueue"
KEEPS = "a file of what each task printed; a function's value only if the function itself writes it somewhere"
FORGETS = "states, times and errors when its server ends (the server of the `hq` command can keep a journal of them)"
PACKAGE = "hyperqueue"
VARIANTS = {"": "shell one-liners", "task=python": "Python functions"}


def run(job: Job) -> Figures:
    """Submit one job; read the results from what its tasks printed.

    ``task=shell`` (the default) runs a shell's one-liner that does the same, so that no interpreter's start is
    measured; ``task=python`` is what the documentation shows for functions.
    """
    arguments = job.arguments
    output = job.folder / "output"
    output.mkdir()
    function = job.function
    # By value, so that a task's interpreter need not import the benchmarks.
    cloudpickle.register_pickle_by_value(sys.modules[function.__module__])

    def print_result(argument: int) -> None:
        print(function(argument))

    begun = time.perf_counter()
    with LocalCluster(str(job.folder)) as cluster:
        cluster.start_worker(WorkerConfig(cores=job.workers))
        client = cluster.client(python_env=PythonEnv(python_bin=sys.executable))
        submitting, submitting_at = time.perf_counter(), time.time()
        tasks = Tasks(default_workdir=output)
        for argument in arguments:
            if job.variant.get("task") == "python":
                tasks.function(print_result, args=(argument,), stderr=None)
            else:
                tasks.program(["/bin/sh", "-c", shell_command(job, str(argument))], stderr=None)
        client.wait_for_jobs([client.submit(tasks)])
        files = [output / f"{number}.stdout" for number in range(job.tasks)]
        results = [int(file.read_text(encoding="utf-8")) for file in files]
        ended = time.perf_counter()
        # It asks once a second whether the job is done; the last result's time stamp does not wait for that.
        last_result_at = max(file.stat().st_mtime for file in files)
    job.check(results)
    return {
        "seconds": ended - begun,
        "map_seconds": min(last_result_at - submitting_at, ended - submitting),
        "disk_bytes": sum(file.stat().st_blocks * 512 for file in output.rglob("*") if file.is_file()),
    }


if __name__ == "__main__":
    main(run, refuse=own_network)
