"""Start a supervisor that outlives its starter: own session, no terminal, and word of its first worker."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from jobpool_cli.engines.processes import DETACHED, MARK
from jobpool_cli.errors import ConflictError, DamagedPoolError, InputError, JobPoolError, MachineError
from jobpool_cli.layout import PoolPaths
from jobpool_cli.store.durable import open_private
from jobpool_cli.store.manifest import Manifest
from jobpool_cli.store.origins import library_folders
from jobpool_cli.worker.importing import import_seconds


class _Detached(subprocess.Popen[bytes]):
    """A process that is meant to outlive this one: nobody has forgotten to wait for it."""

    def __del__(self) -> None:
        """Do without Popen's warning of a process that still runs."""


# Children of a Python session that started pools; kept so that they can be reaped when they end.
_started: list[_Detached] = []

SHOWN_LOG_BYTES = 2000
# Who waits longer than this for a first worker is told what for.
NOTE_SECONDS = 10.0
# The folder in which the package lies.
_ROOT = str(Path(__file__).resolve().parents[2])


@dataclass(frozen=True)
class Report:
    """The one line that a supervisor sends to its starter: ready, or why not."""

    ok: bool
    kind: str = ""
    message: str = ""
    hint: str = ""

    def encode(self) -> bytes:
        """The line."""
        return (json.dumps(self.__dict__) + "\n").encode()


class Standby:
    """A supervisor that is started before its pool is there, so that its imports pass while `map` still checks.

    It is called off by the end of the ``with`` block, or of this process.
    """

    def __init__(self, workers: int) -> None:
        """Start it, for a pool of so many workers; where that fails, `launch` does without."""
        self.pool_id = str(uuid.uuid4())
        self._world = _world()
        self._report: int | None = None
        read_end, self._pipe = os.pipe()
        with contextlib.suppress(OSError):
            arguments = (
                f"--pipe={read_end}",
                f"--id={self.pool_id}",
                f"--folder={os.getcwd()}",
                f"--workers={workers}",
            )
            self._report = _spawn(arguments, subprocess.DEVNULL, read_end)
        os.close(read_end)

    def give(self, paths: PoolPaths) -> int | None:
        """Tell it the pool; return where its report comes, None if it cannot be used.

        Importing the user's file may have changed what a process inherits from this one: then it is of no use.
        """
        if self._report is None or self._world != _world():
            return None
        try:
            os.write(self._pipe, os.fsencode(paths.root) + b"\n")
        except BrokenPipeError:
            return None
        report, self._report = self._report, None
        return report

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Call it off, unless it has a pool."""
        os.close(self._pipe)
        if self._report is not None:
            os.close(self._report)


def launch(paths: PoolPaths, standby: Standby | None = None) -> None:
    """Start the pool's supervisor, and return when its first worker has loaded the UDF or it has nothing to run.

    Args:
        paths: the pool.
        standby: a supervisor that was started ahead for it.

    Raises:
        ConflictError: the pool has a supervisor.
        InputError: the UDF does not load in a worker.
        MachineError: no process could be started.
    """
    report = standby.give(paths) if standby is not None else None
    line = b"" if report is None else _read_line(report, paths)
    logged = paths.supervisor_log.stat().st_size if paths.supervisor_log.exists() else 0
    if not line:
        log = open_log(paths)
        try:
            line = _read_line(_spawn((f"--root={paths.root}",), log), paths)
        except OSError as error:
            raise MachineError(f"the supervisor could not be started: {error}") from error
        finally:
            os.close(log)
    if not line:
        # The log's end is shown here, because `map` deletes a pool that never ran.
        said = _written_since(paths, logged)
        raise MachineError(f"the supervisor of {paths.root.name} ended before it was ready" + (said and f":\n{said}"))
    told = Report(**json.loads(line))
    if not told.ok:
        raise _error(told)


def open_log(paths: PoolPaths) -> int:
    """Open the pool's supervisor.log for appending; return its descriptor."""
    return open_private(paths.supervisor_log, os.O_WRONLY | os.O_APPEND)


def _spawn(arguments: Sequence[str], log: int, *kept: int) -> int:
    """Start a supervisor process that writes to ``log`` and keeps some descriptors; return where its report comes."""
    _started[:] = [each for each in _started if each.poll() is None]
    read_end, write_end = os.pipe()
    try:
        _started.append(
            _Detached(
                [sys.executable, "-P", "-m", "jobpool_cli.supervisor", f"--report={write_end}", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(write_end, *kept),
                start_new_session=True,
                cwd="/",
                env=_environment(),
            )
        )
    except OSError:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)
    return read_end


def _environment() -> dict[str, str]:
    """Return the environment for a process that begins in another folder than this one, and must find jobpool."""
    # A pool that is started from a task of another pool does not end with it.
    found = {**os.environ, MARK: DETACHED}
    given = found.get("PYTHONPATH", "")
    # An entry may be relative to where this process is; an empty one is that folder.
    entries = [os.path.abspath(entry) for entry in given.split(os.pathsep)] if given else []
    if _ROOT not in entries and _ROOT + os.sep not in library_folders():
        # This process may have come by it in a way that no other knows of, such as sys.path.append.
        entries.append(_ROOT)
    return found | ({"PYTHONPATH": os.pathsep.join(entries)} if entries else {})


def _read_line(fd: int, paths: PoolPaths) -> bytes:
    with open(fd, "rb") as pipe:
        limit = import_seconds()
        answers = select.poll()  # select.select knows no descriptor above 1023
        answers.register(pipe, select.POLLIN)
        if not answers.poll(1000 * min(NOTE_SECONDS, limit / 2)) and sys.stderr is not None:
            waits_for = f"the first worker is still importing the function ({limit:g} s at most)"
            if Manifest.read(paths.pool_json).options.cluster is not None:
                waits_for = "the cluster has no worker with the function yet"
            print(f"jobpool: {waits_for}; Ctrl-C gives up", file=sys.stderr, flush=True)
        return pipe.readline()


def _world() -> tuple[dict[str, str], str | None]:
    """Return what a process inherits and the user's code may change: environment and working directory."""
    folder = None
    with contextlib.suppress(OSError):  # it may be gone
        folder = os.getcwd()
    return dict(os.environ), folder


def _written_since(paths: PoolPaths, start: int) -> str:
    """Return the end of what supervisor.log was given since then."""
    with contextlib.suppress(OSError), open(paths.supervisor_log, "rb") as file:
        file.seek(max(start, os.fstat(file.fileno()).st_size - SHOWN_LOG_BYTES))
        return file.read().decode("utf-8", "replace").strip()
    return ""


def _error(report: Report) -> JobPoolError:
    kinds: dict[str, type[JobPoolError]] = {
        "conflict": ConflictError,
        "input": InputError,
        "damaged": DamagedPoolError,
    }
    return kinds.get(report.kind, MachineError)(report.message, report.hint)
