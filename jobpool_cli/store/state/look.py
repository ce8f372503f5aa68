"""One look at a pool: its status from the counters, the lock and the slots, at the same cost for any size."""

from __future__ import annotations

from jobpool_cli.errors import REFUSALS, DamagedPoolError
from jobpool_cli.layout import PoolPaths
from jobpool_cli.model import PoolState, PoolStatus, TaskState
from jobpool_cli.store.manifest import Manifest
from jobpool_cli.store.slots import read_running, refusals, silent_for
from jobpool_cli.store.state.problems import advice
from jobpool_cli.store.state.reader import Counters, StateReader, to_datetime

SHUT_DOWN = "shut down"
SHUTTING_DOWN = "it is being shut down"
UNSEALED = "results are not sealed yet"
HELD = "the pool goes on by itself as soon as there is room"
ENDED = "the disk did not take what the supervisor had to write"
# A live supervisor shows several times in this while that it is at work, except where a disk keeps it waiting.
SILENT_SECONDS = 5.0


def look(paths: PoolPaths, manifest: Manifest, reader: StateReader, *, live: bool) -> PoolStatus:
    """Return the pool's status.

    Args:
        paths: the pool.
        manifest: what it is.
        reader: an open reader of its state.
        live: whether a supervisor held the lock before the reader looks.
    """
    with reader.snapshot():
        counters = reader.counters()
        if not live:
            # While it is worked on, its supervisor has made sure, and somebody may be asking many times a second.
            reader.check_successes()
        versions = reader.udf_versions() if counters.udf > 1 else {1: counters.success}
    counts = {
        TaskState.SUCCESS: counters.success,
        TaskState.ERROR: counters.error,
        TaskState.TIMEOUT: counters.timeout,
        TaskState.CANCELLED: counters.cancelled,
    }
    open_tasks = manifest.n_jobs - counters.finished
    if min(open_tasks, *counts.values()) < 0:
        raise DamagedPoolError(
            f"{paths.state_db} is damaged: it counts {counters.finished} finished tasks of {manifest.n_jobs}",
            advice(paths.state_db),
        )
    # A task may have ended in its slot's moment and not yet in the books, never the other way round.
    running = min(len(read_running(paths.slots)), open_tasks) if live else 0
    counts = {TaskState.PENDING: open_tasks - running, TaskState.RUNNING: running, **counts}
    held, ended = refusals(paths.slots)
    if open_tasks == 0 and (live or not counters.unsealed):
        state = PoolState.DONE
    elif live:
        state = PoolState.PAUSED if counters.paused or held else PoolState.RUNNING
    else:
        state = PoolState.INTERRUPTED
    finished_at = to_datetime(counters.last_finished) if counters.last_finished is not None else None
    retried_at = to_datetime(counters.retried_at) if counters.retried_at is not None else None
    created = manifest.created
    return PoolStatus(
        pool=paths.root.name,
        state=state,
        n_jobs=manifest.n_jobs,
        counts=counts,
        created=created,
        total_time=max(0.0, (finished_at - created).total_seconds()) if finished_at else 0.0,
        retry_time=max(0.0, ((finished_at or retried_at) - retried_at).total_seconds()) if retried_at else None,
        reason=_refusal(state, held if live else 0, ended)
        or _reason(counters, state, open_tasks)
        or _silence(paths, state),
        udf=manifest.udf,
        workers=manifest.options.processes,
        udf_versions=versions,
    )


def _refusal(state: PoolState, held: int, ended: int) -> str:
    """Say that a disk is why a pool does not go on: the books may say something older, since it did not take it."""
    if held in REFUSALS:
        return f"{REFUSALS[held][0]}: {HELD}"
    if state is PoolState.INTERRUPTED and ended in REFUSALS:
        return f"{REFUSALS[ended][0]}: {ENDED}"
    return ""


def _reason(counters: Counters, state: PoolState, open_tasks: int) -> str:
    """Say why a pool does not go on."""
    if state is PoolState.INTERRUPTED:
        return counters.stop_reason if open_tasks else "; ".join(filter(None, (counters.stop_reason, UNSEALED)))
    return SHUTTING_DOWN if open_tasks and counters.stop_reason == SHUT_DOWN else ""


def _silence(paths: PoolPaths, state: PoolState) -> str:
    """Say that a supervisor lives and does nothing: somebody stopped it, or its disk keeps it waiting."""
    silent = silent_for(paths.slots) if state in (PoolState.RUNNING, PoolState.PAUSED) else 0.0
    return f"its supervisor has not answered for {silent:.0f} s" if silent > SILENT_SECONDS else ""
