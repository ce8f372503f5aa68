"""``jobpool errors``: failures, grouped by their cause."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from jobpool_cli.cli import options, render
from jobpool_cli.cli.render_tables import call_text
from jobpool_cli.errors import UsageError
from jobpool_cli.finding import LAST
from jobpool_cli.model import NOWHERE, Failure, FailureGroup, Where
from jobpool_cli.pool import JobPool
from jobpool_cli.show.text import count, duration, for_stream, iso, paint, shorten
from jobpool_cli.store.values.jsonable import jsonable

# A command line with more numbers than this is none that a person copies.
TASKS_IN_COMMAND = 12

Arguments = Mapping[int, Mapping[str, object]]


def command(
    pool: options.Pool = LAST,
    *,
    first: Annotated[
        bool, typer.Option("--first", help="Only the first failed task, with its traceback.", show_default=False)
    ] = False,
    task: Annotated[
        list[int] | None,
        typer.Option(
            "--task", "-t", metavar="N", help="This task, with its traceback; may be repeated.", show_default=False
        ),
    ] = None,
    every: Annotated[
        bool, typer.Option("--list", "--all", help="A line per failed task instead of groups.", show_default=False)
    ] = False,
    history: Annotated[
        bool,
        typer.Option("--history", help="With --task: also of attempts after which it ran again.", show_default=False),
    ] = False,
    json: options.Json = False,
    home: options.Home = None,
) -> None:
    """Show failures, grouped by exception type and place in your code, each with an example and how to retry it."""
    if sum([first, bool(task), every]) > 1:
        raise UsageError("choose one of --first, --task and --list")
    if history and not task:
        raise UsageError("--history needs a --task")
    opened = JobPool.open(pool, home=home)
    if every:
        _write_list(opened.failures(), as_json=json)
    elif first or task:
        _write_single(opened, task or [], history=history, as_json=json)
    else:
        _write_groups(opened, as_json=json)


# --- groups


def _write_groups(pool: JobPool[Any], *, as_json: bool) -> None:
    groups = pool.failure_groups()
    arguments = _arguments(pool, [group.example for group in groups])
    retries = [_retry_command(pool, group, groups) for group in groups]
    if as_json:
        render.write_json(
            {
                "pool": pool.name,
                "failed": sum(group.size for group in groups),
                "groups": [
                    {
                        "type": group.type,
                        "where": _where_json(group.where),
                        "count": group.size,
                        "message": group.message,
                        "example": {"task": group.example, "arguments": jsonable(arguments[group.example])},
                        "tasks": list(pool.tasks_of_group(group)),
                        "retry": retry,
                    }
                    for group, retry in zip(groups, retries, strict=True)
                ],
            }
        )
        return
    for number, (group, retry) in enumerate(zip(groups, retries, strict=True)):
        if number:
            render.write()
        kind = paint(for_stream(group.type), "red")
        place = f" at {group.where}" if group.where else ""
        render.write(f"{count(group.size)}: {kind}{for_stream(place)}")
        for line in (group.message or "(no message)").splitlines()[:3]:
            render.write(f"    {for_stream(shorten(line, 300))}")
        render.write(f"  for example task {group.example}: {for_stream(call_text(arguments[group.example]))}")
        render.write(f"  {paint('see', 'dim')}    jobpool errors {pool.name} --task {group.example}")
        render.write(f"  {paint('retry', 'dim')}  {for_stream(retry)}")
    _say_if_none(pool, len(groups))


def _retry_command(pool: JobPool[Any], group: FailureGroup, groups: Sequence[FailureGroup]) -> str:
    """Return the command that runs exactly this group again."""
    words = ["jobpool", "retry", pool.name]
    if len(groups) == 1:
        return shlex.join(words)
    if group.size <= TASKS_IN_COMMAND:
        return shlex.join([*words, *(word for task in pool.tasks_of_group(group) for word in ("--task", str(task)))])
    place = NOWHERE if group.where is None else f"{group.where.file}:{group.where.line}"
    if group.where is not None and sum(each.is_like(group.type, place) for each in groups) > 1:
        place = str(group.where)  # two functions in one line
    return shlex.join([*words, "--type", group.type, "--at", place])


# --- single failures


def _write_single(pool: JobPool[Any], tasks: Sequence[int], *, history: bool, as_json: bool) -> None:
    if tasks:
        pool.check_tasks(tasks)
        failures = pool.failures(tasks, history=history)
    else:
        found = pool.first_failure()
        failures = [found] if found is not None else []
    arguments = _arguments(pool, [failure.task for failure in failures])
    for number, failure in enumerate(failures):
        given = arguments[failure.task]
        if as_json:
            render.write_json({"pool": pool.name, **_failure_json(failure), "arguments": jsonable(given)})
            continue
        if number:
            render.write()
        took = f" after {duration(failure.duration)}" if failure.duration is not None else ""
        attempt = f" in attempt {failure.attempt}" if failure.attempt > 1 or history else ""
        head = f"task {failure.task}: {failure.state}{attempt}{took}"
        render.write(f"{paint(head, 'bold')}: {for_stream(call_text(given))}")
        text = failure.traceback or f"{failure.type}: {failure.message}"
        render.write(for_stream(text.rstrip("\n"), lines=True))
    failed = {failure.task for failure in failures}
    for task in tasks:
        if task not in failed:
            render.say(f"task {task} has not failed")
    if not tasks:
        _say_if_none(pool, len(failures))


def _write_list(failures: Sequence[Failure], *, as_json: bool) -> None:
    if as_json:
        for failure in failures:
            render.write_json(_failure_json(failure))
        return
    render.write_table(
        ["task", "state", "attempt", "type", "where", "message"],
        (
            [str(each.task), each.state, str(each.attempt), each.type, str(each.where or ""), each.message]
            for each in failures
        ),
        right=["task", "attempt"],
        states="state",
    )


def _failure_json(failure: Failure) -> dict[str, Any]:
    return {
        "task": failure.task,
        "attempt": failure.attempt,
        "state": str(failure.state),
        "current": failure.current,
        "type": failure.type,
        "message": failure.message,
        "where": _where_json(failure.where),
        "traceback": failure.traceback,
        "started": iso(failure.started),
        "duration": failure.duration,
        "worker": failure.worker,
        "udf": failure.udf,
    }


def _where_json(where: Where | None) -> dict[str, Any] | None:
    return None if where is None else {"file": where.file, "line": where.line, "function": where.function}


def _arguments(pool: JobPool[Any], tasks: Sequence[int]) -> Arguments:
    if not tasks:
        return {}
    wanted = sorted(set(tasks))
    constants = pool.constants()
    rows = pool.arguments(wanted).to_pylist() or [{} for _ in wanted]
    return {task: {**row, **constants} for task, row in zip(wanted, rows, strict=True)}


def _say_if_none(pool: JobPool[Any], found: int) -> None:
    if not found:
        render.say(f"no task of {pool.name} has failed")
