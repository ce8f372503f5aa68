"""Every path of a pool directory, and the version of its format; docs/reference/pool-directory.md is the page.

::

    <home>/pools/<name>/
        pool.json               format version, name, created, UDF entry point, options; written once
        udf/v1/                 snapshot of the user's code: the function's file or pickle, and modules it imports
        udf/v2/ ...             one more for each `retry --udf`
        args.parquet            the arguments, one row per task, in order
        constants/0000.pickle   values that are the same for every task, where they are large
        state.db                SQLite: counters, inbox, segments, failures, attempts, requests answered
        results/*.parquet       sealed segments, one row per successful task
        logs/worker-0001.log    one append-only file per worker process; each attempt owns a byte range of it
        aside/                  damaged files, kept after their tasks were taken up again; most often not there
        requests/*.json         what commands ask of the supervisor, renamed in
        slots                   shared memory: what each worker process runs right now
        lock                    held by the supervisor for its whole life
        supervisor.log          what the supervisor has to say; empty when all is well

Files are 0600 and folders 0700 from their first moment.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from jobpool_cli.errors import UsageError

FORMAT_VERSION = 1
# "jbpl" in ASCII, in the header of state.db: tells a pool's database from any other SQLite file.
APPLICATION_ID = 0x6A62706C

FILE_MODE = 0o600
FOLDER_MODE = 0o700

# A leading dot hides a file from globs and from dataset readers until it is whole and renamed.
TEMPORARY_PREFIX = ".tmp-"

NAME_PATTERN = r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}"


class PoolPaths(NamedTuple):
    """All paths of one pool, from its root folder."""

    root: Path

    @property
    def pool_json(self) -> Path:
        """What the pool is; written once, readable by a person."""
        return self.root / "pool.json"

    @property
    def args(self) -> Path:
        """The arguments."""
        return self.root / "args.parquet"

    @property
    def constants(self) -> Path:
        """Folder of the constants that are too large for args.parquet; there only if there are any."""
        return self.root / "constants"

    @property
    def state_db(self) -> Path:
        """The state database."""
        return self.root / "state.db"

    @property
    def results(self) -> Path:
        """Folder of the sealed segments."""
        return self.root / "results"

    @property
    def aside(self) -> Path:
        """Folder of damaged files that something whole has replaced; there only if there are any."""
        return self.root / "aside"

    @property
    def logs(self) -> Path:
        """Folder of the workers' logs."""
        return self.root / "logs"

    @property
    def requests(self) -> Path:
        """Folder that commands rename their requests into."""
        return self.root / "requests"

    @property
    def slots(self) -> Path:
        """The shared memory of supervisor, workers and readers."""
        return self.root / "slots"

    @property
    def lock(self) -> Path:
        """The supervisor's lock: liveness is this lock, never a process number."""
        return self.root / "lock"

    @property
    def supervisor_log(self) -> Path:
        """Standard error of the supervisor."""
        return self.root / "supervisor.log"

    @property
    def udf(self) -> Path:
        """Folder of the code snapshots."""
        return self.root / "udf"

    def udf_version(self, version: int) -> Path:
        """Folder of one code snapshot."""
        return self.udf / f"v{version}"

    def worker_log(self, worker: int) -> Path:
        """Log of one worker process; worker numbers rise over the pool's whole life and are never used twice."""
        return self.logs / f"worker-{worker:04d}.log"

    def segment(self, number: int) -> Path:
        """One sealed segment."""
        return self.results / f"segment-{number:06d}.parquet"


class HostPaths(PoolPaths):
    """The folder like a pool's on a machine where the pool is not: arguments come batch by batch."""

    @property
    def batches(self) -> Path:
        """Folder of the rows of single batches."""
        return self.root / "batches"

    def batch(self, number: int) -> Path:
        """The rows of one batch's tasks."""
        return self.batches / f"{number}.arrow"


def home_folder(override: str | None = None) -> Path:
    """Where jobpool keeps its data: ``--home``, else ``JOBPOOL_HOME``, else the platform's user data folder."""
    chosen = override or os.environ.get("JOBPOOL_HOME")
    if chosen:
        # Unlike Path.expanduser, this leaves a user alone whom it does not know.
        return Path(os.path.expanduser(chosen)).absolute()
    # Imported here: the two ways above need no more than the standard library.
    import platformdirs  # noqa: PLC0415

    return Path(platformdirs.user_data_dir("jobpool", appauthor=False))


def pools_folder(home: Path) -> Path:
    """The folder that holds one folder per pool."""
    return home / "pools"


def is_name(name: str) -> bool:
    """Return whether a pool may bear this name."""
    return re.fullmatch(NAME_PATTERN, name) is not None and name != "last"


def check_name(name: object) -> str:
    """Return the name if a pool may bear it.

    Raises:
        UsageError: the name is empty, too long, or holds what a file name or a shell would trip over.
    """
    if not isinstance(name, str) or not is_name(name):
        raise UsageError(
            f"{name!r} cannot be a pool's name",
            "use 1 to 100 letters, digits, '.', '_' or '-', beginning with a letter, a digit or '_'"
            " ('last' is taken: it means the newest pool)",
        )
    return name
