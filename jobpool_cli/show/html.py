"""A pool as HTML, for notebooks: styles inline, since notebooks keep no others, and legible on light and on dark."""

from __future__ import annotations

from html import escape as quoted

from jobpool_cli.model import PoolState, PoolStatus, TaskState
from jobpool_cli.show.progress import words_of_bar
from jobpool_cli.show.text import clock, count, done_share, duration, escape, number, time_taken

# In the middle between black and white, so that each is seen on both.
COLOURS = {
    TaskState.SUCCESS: "#2e9f5b",
    TaskState.ERROR: "#d9483b",
    TaskState.TIMEOUT: "#b5408f",
    TaskState.CANCELLED: "#b98a1d",
    TaskState.RUNNING: "#2f8fc4",
    TaskState.PENDING: "rgba(128,128,128,.35)",
}
_WORDS = {"red": COLOURS[TaskState.ERROR], "yellow": COLOURS[TaskState.CANCELLED], "": ""}
_STATES = {
    PoolState.DONE: COLOURS[TaskState.SUCCESS],
    PoolState.RUNNING: COLOURS[TaskState.RUNNING],
    PoolState.PAUSED: COLOURS[TaskState.CANCELLED],
    PoolState.INTERRUPTED: COLOURS[TaskState.ERROR],
}
# In the order in which a bar fills.
_ORDER = (
    TaskState.SUCCESS,
    TaskState.ERROR,
    TaskState.TIMEOUT,
    TaskState.CANCELLED,
    TaskState.RUNNING,
    TaskState.PENDING,
)
_SHOWN_ALWAYS = {TaskState.SUCCESS, TaskState.RUNNING, TaskState.PENDING}


def pool_html(status: PoolStatus) -> str:
    """Draw a pool as a notebook shows it: its name and state, a bar, how many tasks stand where, times."""
    head = (
        f'<div><b>{_text(status.pool)}</b> is <span style="color:{_STATES[status.state]};font-weight:600">'
        f"{status.state.value}</span>: {_text(done_share(status))}</div>"
    )
    counts = "".join(
        f'<span style="white-space:nowrap;opacity:{1 if status.counts[state] else 0.6}">{_dot(state)}{state.value}'
        f' <b style="font-variant-numeric:tabular-nums">{number(status.counts[state])}</b></span> '
        for state in _ORDER
        if status.counts[state] or (state in _SHOWN_ALWAYS and status.state is not PoolState.DONE)
    )
    facts = [f"created {clock(status.created)}"]
    if status.udf:
        facts.insert(0, status.udf)
    if status.workers:
        facts.append(count(status.workers, "worker"))
    if status.finished:
        facts.append(f"took {time_taken(status)}" if status.state is PoolState.DONE else time_taken(status))
    small = " · ".join(
        f'<span style="display:inline-block;overflow-wrap:anywhere">{_text(fact)}</span>' for fact in facts
    )
    small = f'<div style="opacity:.75;font-size:.9em">{small}</div>'
    reason = (
        f'<div style="color:{_STATES[PoolState.INTERRUPTED]}">{_text(status.reason)}</div>' if status.reason else ""
    )
    many = f'<div style="display:flex;flex-wrap:wrap;gap:0 1.2em">{counts}</div>'
    return _box(f"{head}{_bar(status)}{many}{reason}{small}")


def progress_html(status: PoolStatus, speed: float | None, *, watching: bool) -> str:
    """Draw how far a pool is, while somebody waits for it or after that.

    Args:
        status: the last look.
        speed: tasks per second, None while it is not known.
        watching: whether there will be another look.
    """
    if watching:
        words = words_of_bar(status, speed)
    elif status.state is PoolState.DONE:
        words = [*words_of_bar(status, None)[:-1], (f"took {duration(status.total_time)}", "")]
    else:
        interrupted = status.state is PoolState.INTERRUPTED
        words = [*words_of_bar(status, None), ("interrupted", "red") if interrupted else ("stopped watching", "yellow")]
    said = " · ".join(
        f'<span style="color:{_WORDS[style]};font-weight:600">{_text(word)}</span>' if style else _text(word)
        for word, style in words
    )
    return _box(
        f'{_bar(status)}<div style="font-variant-numeric:tabular-nums"><b>{_text(status.pool)}</b> {said}</div>'
    )


def _box(inner: str) -> str:
    return f'<div style="max-width:44em;line-height:1.5;padding:.2em 0">{inner}</div>'


def _bar(status: PoolStatus) -> str:
    """Draw the shares of the states; none that exists is too narrow to be seen."""
    parts = "".join(
        f'<span title="{number(status.counts[state])} {state.value}" style="flex:{status.counts[state]} 1 0;'
        f'{"" if state is TaskState.PENDING else f"min-width:4px;background:{COLOURS[state]}"}"></span>'
        for state in _ORDER
        if status.counts[state]
    )
    percent = 100 * status.finished // status.n_jobs if status.n_jobs else 100
    return (
        f'<div role="progressbar" aria-valuemin="0" aria-valuemax="100" aria-valuenow="{percent}"'
        ' style="display:flex;height:.6em;margin:.35em 0;border-radius:.3em;overflow:hidden;'
        f'background:{COLOURS[TaskState.PENDING]}">{parts}</div>'
    )


def _dot(state: TaskState) -> str:
    return (
        '<span style="display:inline-block;width:.65em;height:.65em;border-radius:50%;margin-right:.4em;'
        f'background:{COLOURS[state]}"></span>'
    )


def _text(text: str) -> str:
    return quoted(escape(text))
