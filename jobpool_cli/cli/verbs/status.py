"""``jobpool status``: how a pool is doing."""

from __future__ import annotations

from datetime import UTC, datetime

from jobpool_cli.cli import options
from jobpool_cli.cli.render import status_json, write, write_json
from jobpool_cli.finding import LAST
from jobpool_cli.model import PoolState, PoolStatus, TaskState
from jobpool_cli.pool import JobPool
from jobpool_cli.show.text import clock, count, done_share, duration, for_stream, number, paint, paint_state, time_taken

BAR_CELLS = 40
_SHOWN_ALWAYS = (TaskState.PENDING, TaskState.RUNNING, TaskState.SUCCESS)


def command(pool: options.Pool = LAST, *, json: options.Json = False, home: options.Home = None) -> None:
    """Show how a pool is doing: its state, how many tasks stand where, and what one could do next."""
    status = JobPool.open(pool, home=home).snapshot()
    if json:
        write_json(status_json(status))
    else:
        _write(status)


def _write(status: PoolStatus) -> None:
    """Write a pool's status as a block of lines."""
    write(f"{paint(for_stream(status.pool), 'bold')} is {paint_state(status.state.value)}: {done_share(status)}")
    write(f"  {_bar(status)}")
    wide = len(number(status.n_jobs))
    for state in TaskState:
        many = status.counts[state]
        if many or state in _SHOWN_ALWAYS:
            name = paint_state(state.value, f"{state.value:<10}") if many else paint(f"{state.value:<10}", "dim")
            write(f"  {name} {number(many):>{wide}}")
    for name, value in _facts(status):
        write(f"{paint(f'{name:<10}', 'dim')} {value}")


def _bar(status: PoolStatus) -> str:
    """Draw the shares of success, failed and cancelled; none that exists is rounded away."""
    segments = (
        (TaskState.SUCCESS, status.counts[TaskState.SUCCESS], "█"),
        (TaskState.ERROR, status.failed, "▓"),
        (TaskState.CANCELLED, status.counts[TaskState.CANCELLED], "▒"),
    )
    cells = [max(1, many * BAR_CELLS // status.n_jobs) if many else 0 for _, many, _ in segments]
    largest = cells.index(max(cells))
    cells[largest] -= max(0, sum(cells) - BAR_CELLS)
    if status.n_jobs and status.finished == status.n_jobs:
        cells[largest] += BAR_CELLS - sum(cells)  # rounding down must not leave a done pool with a gap
    drawn = [paint_state(state.value, block * each) for (state, _, block), each in zip(segments, cells, strict=True)]
    return "".join(drawn) + paint("░" * (BAR_CELLS - sum(cells)), "dim")


def _facts(status: PoolStatus) -> list[tuple[str, str]]:
    age = (datetime.now(UTC) - status.created).total_seconds()
    facts = [
        ("function", for_stream(status.udf)),
        ("workers", number(status.workers)),
        ("created", f"{clock(status.created)}, {duration(max(0.0, age))} ago"),
    ]
    if status.finished:
        facts.append(("time", time_taken(status)))
    if len(status.udf_versions) > 1:
        parts = [f"{count(many)} by version {version}" for version, many in status.udf_versions.items()]
        facts.append(("code", "results come from more than one version: " + ", ".join(parts)))
    if status.reason:
        facts.append(("reason", for_stream(status.reason)))
    facts += [("next", line) for line in _next_steps(status)]
    return facts


def _next_steps(status: PoolStatus) -> list[str]:
    """Return the commands that make sense now."""
    steps = []
    if status.state is PoolState.INTERRUPTED or (status.state is PoolState.PAUSED and not status.reason):
        # What is paused for a reason, such as a full disk, goes on by itself.
        steps.append(f"jobpool resume {status.pool}")
    if status.failed:
        steps.append(f"jobpool errors {status.pool}")
    if status.state is PoolState.DONE and not status.failed and status.counts[TaskState.SUCCESS]:
        steps.append(f"jobpool collect {status.pool} -o FILE")
    if status.state is PoolState.DONE and status.counts[TaskState.CANCELLED]:
        steps.append(f"jobpool retry --cancelled {status.pool}")
    return steps
