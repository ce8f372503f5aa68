"""The supervisor process's entry point; its command line is private to ``supervisor.launch``."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from jobpool_cli.engines.processes import adopt_orphans, raise_descriptors
from jobpool_cli.engines.worker_process import WorkerProcess
from jobpool_cli.errors import ConflictError, DamagedPoolError, ExitCode, InputError, JobPoolError
from jobpool_cli.layout import PoolPaths
from jobpool_cli.store import durable, ownership
from jobpool_cli.supervisor.launch import Report
from jobpool_cli.supervisor.lock import PoolLock
from jobpool_cli.supervisor.log import log
from jobpool_cli.supervisor.standby import stand_by, take_over_log


def reporter(fd: int) -> Callable[[Report], None]:
    """Return a function that sends the first report it is given to the starter, who may be gone, and no other."""
    os.set_inheritable(fd, False)  # noqa: FBT003 - positional in C
    open_fds = [fd]

    def report(message: Report) -> None:
        if not open_fds:
            return
        try:
            os.write(open_fds[0], message.encode())
        except BrokenPipeError:
            pass
        finally:
            os.close(open_fds.pop())

    return report


def _kind(error: JobPoolError) -> str:
    """Name what the starter raises again as itself."""
    match error:
        case ConflictError():
            return "conflict"
        case InputError():
            return "input"
        case DamagedPoolError():
            return "damaged"
    return ""


def main() -> int:
    """Supervise one pool; everything printed goes to supervisor.log."""
    given = dict(each.removeprefix("--").split("=", 1) for each in sys.argv[1:])
    # Here and, inherited, in the workers: Arrow's own allocator keeps what batches of all sizes have left behind, which
    # in a pool of ten million tasks is a hundred megabytes a process. Read when pyarrow is loaded.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    report = reporter(int(given["report"]))
    standby: list[WorkerProcess] = []
    if "root" in given:
        paths = PoolPaths(Path(given["root"]))
    else:
        found = stand_by(int(given["pipe"]), pool_id=given["id"], folder=given["folder"], workers=int(given["workers"]))
        if found is None:
            return 0
        paths, standby = found
        take_over_log(paths)
    try:
        ownership.check_alone(paths.root)
        # Held to the end of the process: whoever finds it free finds nobody at work any more.
        PoolLock(paths.lock)
        durable.sync_commits(paths.state_db)
        from jobpool_cli.supervisor.loop import Supervisor  # noqa: PLC0415 - the loser of a race loads nothing

        raise_descriptors()
        adopt_orphans()
        Supervisor(paths, report, standby).run()
    except JobPoolError as error:
        log(f"{type(error).__name__}: {error.message}")
        report(Report(ok=False, kind=_kind(error), message=error.message, hint=error.hint))
        return int(error.exit_code)
    except Exception as error:  # noqa: BLE001 - the last resort: whoever waits must hear of it
        log(traceback.format_exc())
        report(Report(ok=False, message=f"{type(error).__name__}: {error}"))
        return int(ExitCode.SYSTEM)
    return 0


if __name__ == "__main__":
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    # Not sys.exit: to take the modules down takes longer than a small pool's work, and whoever waits waits for it.
    os._exit(code)
