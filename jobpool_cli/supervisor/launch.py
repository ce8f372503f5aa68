"""Start a supervisor that outlives its starter: own session, no terminal, and word of its first worker."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass

from jobpool_cli.engines.processes import MARK, ROOT_MARK
from jobpool_cli.errors import ConflictError, InputError, JobPoolError, MachineError
from jobpool_cli.layout import FILE_MODE, PoolPaths

# Children of a Python session that started pools; kept so that they can be reaped when they end.
_started: list[subprocess.Popen[bytes]] = []

SHOWN_LOG_BYTES = 2000


@dataclass(frozen=True)
class Report:
    """The one line that a supervisor sends to its starter: ready, or why not."""

    ok: bool
    kind: str = ""
    message: str = ""

    def encode(self) -> bytes:
        """The line."""
        return (json.dumps(self.__dict__) + "\n").encode()


def launch(paths: PoolPaths) -> None:
    """Start the pool's supervisor, and return when its first worker has loaded the UDF or it has nothing to run.

    Raises:
        ConflictError: the pool has a supervisor.
        InputError: the UDF does not load in a worker.
        MachineError: no process could be started.
    """
    _started[:] = [each for each in _started if each.poll() is None]
    read_end, write_end = os.pipe()
    log = os.open(paths.supervisor_log, os.O_CREAT | os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW, FILE_MODE)
    logged = os.fstat(log).st_size
    try:
        _started.append(
            subprocess.Popen(
                [sys.executable, "-P", "-m", "jobpool_cli.supervisor", str(paths.root), f"--report={write_end}"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(write_end,),
                start_new_session=True,
                cwd="/",
                # A pool that is started from a task of another pool does not end with it.
                env={name: value for name, value in os.environ.items() if name != MARK}
                | {ROOT_MARK: os.path.realpath(paths.root)},
            )
        )
    except OSError as error:
        raise MachineError(f"the supervisor could not be started: {error}") from error
    finally:
        os.close(write_end)
        os.close(log)
    with open(read_end, "rb") as pipe:
        line = pipe.readline()
    if not line:
        # The log's end is shown here, because `map` deletes a pool that never ran.
        said = _written_since(paths, logged)
        raise MachineError(f"the supervisor of {paths.root.name} ended before it was ready" + (said and f":\n{said}"))
    report = Report(**json.loads(line))
    if not report.ok:
        raise _error(report)


def _written_since(paths: PoolPaths, start: int) -> str:
    """Return the end of what supervisor.log was given since then."""
    with contextlib.suppress(OSError), open(paths.supervisor_log, "rb") as file:
        file.seek(max(start, os.fstat(file.fileno()).st_size - SHOWN_LOG_BYTES))
        return file.read().decode("utf-8", "replace").strip()
    return ""


def _error(report: Report) -> JobPoolError:
    kinds: dict[str, type[JobPoolError]] = {"conflict": ConflictError, "input": InputError}
    return kinds.get(report.kind, MachineError)(report.message)
