"""Standing by: a supervisor that was started before its pool is there, and starts workers before there is work.

`map` starts one while it still checks the arguments, so that the imports of supervisor and workers, most of the time
that a small pool takes, pass meanwhile. It holds no lock and writes nothing; when its starter closes the pipe, or
dies, it ends, and its workers with it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import selectors
import threading
from pathlib import Path

from jobpool_cli.engines.worker_process import WorkerProcess, start_worker
from jobpool_cli.layout import PoolPaths
from jobpool_cli.supervisor.launch import open_log
from jobpool_cli.worker.protocol import ProtocolError

STDOUT, STDERR = 1, 2
LOOK_SECONDS = 0.02


def stand_by(pipe: int, *, pool_id: str, folder: str, workers: int) -> tuple[PoolPaths, list[WorkerProcess]] | None:
    """Start workers one after another, each when the one before it has done its imports, until the pool is there.

    Args:
        pipe: the pool's folder is read from it; the end of the stream calls all of it off.
        pool_id: the id that the pool will have.
        folder: working directory of the workers.
        workers: how many at most; never more than there are cores.

    Returns:
        the pool and the processes; None if there will be no pool.
    """
    wanted = min(workers, len(os.sched_getaffinity(0)))
    started = [start_worker(1, pool_id=pool_id, folder=folder, output=None)]
    # Meanwhile this process does its own.
    importlib.import_module("jobpool_cli.supervisor.loop")
    sealing = threading.Thread(
        target=importlib.import_module, args=["jobpool_cli.store.outcomes.segments"], daemon=True
    )
    root = b""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        selector.register(started[0].outcomes, selectors.EVENT_READ)
        is_next_due = False
        while True:
            for key, _ in selector.select(LOOK_SECONDS if sealing.is_alive() else None):
                if key.fd != pipe:
                    selector.unregister(key.fd)
                    is_next_due = _is_warm(started[-1])
                    continue
                chunk = os.read(pipe, 1 << 16)
                if not chunk:
                    return None
                root += chunk
                if root.endswith(b"\n"):
                    return PoolPaths(Path(os.fsdecode(root[:-1]))), started
            if is_next_due and sealing.ident is None:
                # Before a second worker: a small pool hardly needs that one, and is done when it is sealed.
                sealing.start()
            if is_next_due and not sealing.is_alive() and len(started) < wanted:
                started.append(start_worker(len(started) + 1, pool_id=pool_id, folder=folder, output=None))
                selector.register(started[-1].outcomes, selectors.EVENT_READ)
                is_next_due = False


def take_over_log(paths: PoolPaths) -> None:
    """Write to the pool's supervisor.log from now on."""
    log = open_log(paths)
    for standard in (STDOUT, STDERR):
        os.dup2(log, standard)
    os.close(log)


def _is_warm(process: WorkerProcess) -> bool:
    """Whether a worker has said that its imports are done; False if it is dead."""
    with contextlib.suppress(ProtocolError):
        return bool(process.reader.feed(process.outcomes)[0])
    return False
