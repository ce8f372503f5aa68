"""A Dask cluster on loopback, of real processes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.helpers import until


class DaskCluster:
    """A scheduler and its workers, each a process of its own."""

    def __init__(self, folder: Path) -> None:
        """Start the scheduler; files go into the folder."""
        self._folder = folder
        self._file = folder / "scheduler.json"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.start_scheduler("0")
        self.address: str = json.loads(self._file.read_text())["address"]

    def start_scheduler(self, port: str) -> None:
        """Start the scheduler (again), on a port."""
        self._file.unlink(missing_ok=True)
        where = ("--host", "127.0.0.1", "--port", port, "--scheduler-file", self._file)
        self.scheduler = self._start("scheduler", "--no-dashboard", *where)
        until(lambda: self._file.exists() and self._file.read_text().endswith("}"), what="the scheduler listens")

    def add_worker(self, threads: int = 1, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start a worker without a nanny, with some more variables; return its process."""
        words = ["worker", self.address, "--nthreads", str(threads), "--no-nanny", "--no-dashboard"]
        self.workers.append(
            self._start(*words, "--host", "127.0.0.1", "--local-directory", self._folder / "scratch", env=env)
        )
        return self.workers[-1]

    def log(self) -> str:
        """Return what all have said."""
        return (self._folder / "cluster.log").read_text(errors="replace")

    def _start(self, *words: str | Path, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        with (self._folder / "cluster.log").open("ab") as log:
            # Nothing of this test's surroundings: a worker elsewhere has no jobpool.
            env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | (env or {})
            return subprocess.Popen(
                [sys.executable, "-P", "-m", "dask", *map(str, words)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder, env=env, start_new_session=True,
            )  # fmt: skip

    def close(self) -> None:
        """End all processes."""
        for process in (*self.workers, self.scheduler):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def dask_cluster(folder: Path, workers: int = 2, threads: int = 1) -> Iterator[DaskCluster]:
    """Run a cluster of so many workers."""
    made = DaskCluster(folder)
    try:
        for _ in range(workers):
            made.add_worker(threads)
        until(lambda: made.log().count("Registered to") >= workers, what="the workers are there")
        yield made
    finally:
        made.close()
