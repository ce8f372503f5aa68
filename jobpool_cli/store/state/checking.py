"""Whether a state database is whole: its pages, its indexes, and that the counters are those of its rows."""

from __future__ import annotations

from jobpool_cli.errors import DamagedPoolError
from jobpool_cli.layout import PoolPaths
from jobpool_cli.store.state.problems import advice
from jobpool_cli.store.state.reader import StateReader

_BY_ROWS = """
SELECT (SELECT coalesce(sum(rows), 0) FROM inbox),
       (SELECT coalesce(sum(rows), 0) FROM segments),
       (SELECT count(*) FROM failures WHERE current = 1 AND state <> 'timeout'),
       (SELECT count(*) FROM failures WHERE current = 1 AND state = 'timeout'),
       (SELECT coalesce(sum(high - low), 0) FROM cancelled)
"""


def check_whole(paths: PoolPaths) -> None:
    """Look at the whole database; takes a second for a million failures.

    A supervisor does so before it writes: what is damaged is not made worse.

    Raises:
        DamagedPoolError: says what is wrong.
    """
    with StateReader(paths.state_db) as reader, reader.snapshot():
        found = problems(reader) or [
            f"it counts {kept} tasks as {name}, and has the rows of {there}"
            for name, (kept, there) in recount(reader).items()
            if kept != there
        ]
    if found:
        raise DamagedPoolError(f"{paths.state_db} is damaged: {found[0]}", advice(paths.state_db))


def problems(reader: StateReader) -> list[str]:
    """Return what SQLite finds wrong, the first few things."""
    found = [str(text) for (text,) in reader.query("PRAGMA integrity_check(5)")]
    return [] if found == ["ok"] else found


def recount(reader: StateReader) -> dict[str, tuple[int, int]]:
    """Return for each state of tasks how many there are by the counters, and how many by the rows."""
    counters = reader.counters()
    ((unsealed, sealed, error, timeout, cancelled),) = reader.query(_BY_ROWS)
    by_udf = sum(reader.udf_versions().values())
    return {
        "success": (counters.success, unsealed + sealed),
        "error": (counters.error, error),
        "timeout": (counters.timeout, timeout),
        "cancelled": (counters.cancelled, cancelled),
        "not sealed": (counters.unsealed, unsealed),
        "success by version of the code": (by_udf, unsealed + sealed),
    }
