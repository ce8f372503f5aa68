"""``jobpool results``: the results, one by one."""

from __future__ import annotations

from typing import Annotated

import typer

from jobpool_cli.cli import options, render
from jobpool_cli.cli.render_tables import escape_for_terminal, result_text
from jobpool_cli.finding import LAST
from jobpool_cli.pool import JobPool
from jobpool_cli.show.text import is_terminal
from jobpool_cli.store.values.jsonable import json_text

LINES_AT_ONCE = 1000


def command(
    pool: options.Pool = LAST,
    tasks: Annotated[
        list[int] | None, typer.Argument(metavar="[TASK]...", help="Only these tasks.", show_default=False)
    ] = None,
    *,
    json: options.Json = False,
    home: options.Home = None,
) -> None:
    """Print the results there are so far, ascending by task: the task, a tab, the value.

    Values are written as JSON (text as it is), tables as lists of records; what JSON has no form for is written as
    Python shows it. With --json, a line is an object: {"schema": 1, "task": 0, "result": ...}.
    """
    opened = JobPool.open(pool, home=home)
    out = render.stdout()
    for_people = is_terminal(out)
    harmless = escape_for_terminal()
    found = 0
    lines: list[str] = []
    try:
        for task, value in opened.iter_results(tasks or None):
            found += 1
            if json:
                lines.append(f'{render.JSON_HEAD}"task": {task}, "result": {json_text(value)}}}\n')
            else:
                lines.append(f"{task}\t{result_text(value, for_people=for_people)}\n")
            # On a terminal each at once; elsewhere not a system call for each.
            if for_people or len(lines) >= LINES_AT_ONCE:
                out.write(harmless("".join(lines)))
                lines.clear()
    finally:  # what can be read is printed before what is wrong with the rest
        out.write(harmless("".join(lines)))
    without = len(set(tasks or ())) - found
    if tasks and without:
        render.say(f"{without} of these tasks without a result; see: jobpool tasks {opened.name} --task N")
    elif not found:
        render.note(f"{opened.name} has no results yet")
