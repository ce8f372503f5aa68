"""How a pool's status reads, for people and for programs."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Any

from jobpool_cli.cli.render import (
    clock,
    count,
    duration,
    for_stream,
    iso,
    number,
    paint,
    paint_state,
    write,
)
from jobpool_cli.model import PoolState, PoolStatus, TaskState

BAR_CELLS = 40
_SHOWN_ALWAYS = (TaskState.PENDING, TaskState.RUNNING, TaskState.SUCCESS)


def status_json(status: PoolStatus) -> dict[str, Any]:
    """Return a status as programs read it; a public contract, keys are only ever added."""
    return {
        "pool": status.pool,
        "state": status.state.value,
        "n_jobs": status.n_jobs,
        "counts": {state.value: status.counts[state] for state in TaskState},
        "finished": status.finished,
        "failed": status.failed,
        "created": iso(status.created),
        "total_time": status.total_time,
        "retry_time": status.retry_time,
        "udf": status.udf,
        "udf_versions": {str(version): many for version, many in status.udf_versions.items()},
        "workers": status.workers,
        "reason": status.reason,
    }


def write_status(status: PoolStatus) -> None:
    """Write a pool's status as a block of lines."""
    share = status.finished / status.n_jobs if status.n_jobs else 1.0
    percent = 100 if status.finished == status.n_jobs else min(99, int(share * 100))
    write(
        f"{paint(for_stream(status.pool), 'bold')} is {paint_state(status.state.value)}: "
        f"{number(status.finished)} of {count(status.n_jobs)} finished ({percent} %)"
    )
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
        time = duration(status.total_time)
        ran = status.finished - status.counts[TaskState.CANCELLED]
        if ran and status.total_time > 0 and status.retry_time is None:
            time += f", {rate(ran / status.total_time)}"
        if status.retry_time is not None:
            time += f" ({duration(status.retry_time)} since the last retry)"
        facts.append(("time", time))
    if len(status.udf_versions) > 1:
        parts = [f"{count(many)} by version {version}" for version, many in status.udf_versions.items()]
        facts.append(("code", "results come from more than one version: " + ", ".join(parts)))
    if status.reason:
        facts.append(("reason", for_stream(status.reason)))
    facts += [("next", line) for line in next_steps(status)]
    return facts


def next_steps(status: PoolStatus) -> list[str]:
    """Return the commands that make sense now."""
    steps = []
    if status.state in {PoolState.INTERRUPTED, PoolState.PAUSED}:
        steps.append(f"jobpool resume {status.pool}")
    if status.failed:
        steps.append(f"jobpool errors {status.pool}")
    if status.state is PoolState.DONE and not status.failed and status.counts[TaskState.SUCCESS]:
        steps.append(f"jobpool collect {status.pool} -o FILE")
    if status.state is PoolState.DONE and status.counts[TaskState.CANCELLED]:
        steps.append(f"jobpool retry --cancelled {status.pool}")
    return steps


def rate(per_second: float) -> str:
    """Write a rate in the unit that gives a number one can read."""
    if per_second >= 10:  # noqa: PLR2004 - below, a decimal matters
        return f"{number(round(per_second))} tasks/s"
    if per_second >= 1:
        return f"{per_second:.1f} tasks/s"
    if per_second * 60 >= 1:
        return f"{per_second * 60:.1f} tasks/min"
    return f"{per_second * 3600:.1f} tasks/h"


def progress_line(status: PoolStatus) -> str:
    """Say in a line how far a pool is, where there is no live bar."""
    parts = [f"{number(status.finished)} of {count(status.n_jobs)} finished"]
    if status.failed:
        parts.append(f"{number(status.failed)} failed")
    if status.counts[TaskState.RUNNING]:
        parts.append(f"{number(status.counts[TaskState.RUNNING])} running")
    paused = " (paused)" if status.state is PoolState.PAUSED else ""
    return f"{status.pool}{paused}: {', '.join(parts)}"


def summary(status: PoolStatus) -> str:
    """Say in a line what came of a pool that is done."""
    parts = []
    for state, word in ((TaskState.SUCCESS, "succeeded"), (None, "failed"), (TaskState.CANCELLED, "cancelled")):
        many = status.failed if state is None else status.counts[state]
        if many:
            text = f"{number(many)} {word}"
            parts.append(paint_state("error" if state is None else state.value, text, sys.stdout))
    what = ", ".join(parts) or "no tasks"
    return f"{for_stream(status.pool)} is {status.state.value} after {duration(status.total_time)}: {what}"
