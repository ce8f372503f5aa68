"""``jobpool doctor``: what is wrong, and what to do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from jobpool_cli.cli import options, render
from jobpool_cli.doctor.findings import DISK, FILE_SYSTEM, Finding, Mark, bad, ok
from jobpool_cli.errors import ExitCode, JobPoolError
from jobpool_cli.finding import by_age, find
from jobpool_cli.layout import PoolPaths, home_folder, pools_folder
from jobpool_cli.show.text import for_stream, paint

COLOURS = {Mark.OK: "green", Mark.WARN: "yellow", Mark.BAD: "red"}
MARK_WIDTH = 6
# So much of a line is what the rest of it is about.
SUBJECT_WIDTH = 14


def command(
    pool: Annotated[
        str | None,
        typer.Argument(
            metavar="[POOL]",
            help="A pool's name; without it, the machine and all pools in short.",
            autocompletion=options.pool_names,
            show_default=False,
        ),
    ] = None,
    *,
    repair: Annotated[
        bool, typer.Option("--repair", help="Mend what can be mended without losing anything.", show_default=False)
    ] = False,
    json: options.Json = False,
    home: options.Home = None,
) -> None:
    """Say what is wrong with a pool, or with the machine and the home, and what to do about it.

    Everything in the pool is read through. Lines begin with ok, warn or bad; the exit code is 0 if nothing is bad, 5 if
    a pool is damaged, 6 if it is the machine. --repair keeps whatever it replaces, in the pool's folder aside.
    """
    folder = home_folder(home)
    if pool is None:
        raise typer.Exit(_machine_and_pools(folder, repair=repair, json=json))
    root = find(pool, folder)
    paths = PoolPaths(root)
    from jobpool_cli.doctor.pool import examine  # noqa: PLC0415 - verbs that are completed load nothing

    if repair:
        from jobpool_cli.doctor.repair import repair as mend  # noqa: PLC0415

        for finding in mend(paths):
            _show(finding, root.name, json=json, done=True)
    wrong = {finding.subject for finding in examine(paths) if _show(finding, root.name, json=json) is Mark.BAD}
    if wrong:
        raise typer.Exit(ExitCode.DAMAGED if wrong - {DISK, FILE_SYSTEM} else ExitCode.SYSTEM)
    if not json:
        render.note(f"{root.name} is whole")


def _machine_and_pools(home: Path, *, repair: bool, json: bool) -> int:
    from jobpool_cli.doctor.machine import examine_machine  # noqa: PLC0415
    from jobpool_cli.removal import remove_abandoned  # noqa: PLC0415

    pools = pools_folder(home)
    if repair and pools.exists():
        remove_abandoned(pools)
    machine = {_show(finding, None, json=json) for finding in examine_machine(home)}
    damaged = False
    for root in by_age(home):
        finding = _in_short(root.name, PoolPaths(root))
        _show(finding, root.name, json=json)
        damaged |= finding.mark is Mark.BAD
    if damaged:
        return ExitCode.DAMAGED
    return ExitCode.SYSTEM if Mark.BAD in machine else ExitCode.OK


def _in_short(name: str, paths: PoolPaths) -> Finding:
    """Return the worst of what is wrong with a pool, and how much more there is."""
    from jobpool_cli.doctor.pool import examine  # noqa: PLC0415

    try:
        # The disk is everybody's, and told of once.
        found = [
            each for each in examine(paths) if each.mark is not Mark.OK and each.subject not in {DISK, FILE_SYSTEM}
        ]
    except (JobPoolError, OSError) as error:
        return bad(name, str(error))
    if not found:
        return ok(name, "the pool is whole")
    worst = next((each for each in found if each.mark is Mark.BAD), found[0])
    more = f" (and {len(found) - 1} more)" if found[1:] else ""
    return worst._replace(
        subject=name, text=f"{worst.subject}: {worst.text}{more}", advice=f"see all: jobpool doctor {name}"
    )


def _show(finding: Finding, pool: str | None, *, json: bool, done: bool = False) -> Mark:
    if json:
        render.write_json(
            {
                "pool": pool,
                "mark": finding.mark.value,
                "subject": finding.subject,
                "text": finding.text,
                "advice": finding.advice,
                "repairs": finding.repairs,
                "repaired": done,
            }
        )
        return finding.mark
    mark = "mended" if done and finding.mark is Mark.OK else finding.mark.value
    head = paint(f"{mark:<{MARK_WIDTH}}", COLOURS[finding.mark])
    render.write(f"{head}  {for_stream(finding.subject):<{SUBJECT_WIDTH}}  {for_stream(finding.text)}")
    for line in _advice_of(finding, pool):
        render.write(f"{'':<{MARK_WIDTH}}  {'':<{SUBJECT_WIDTH}}  {paint('do:', 'cyan')} {for_stream(line)}")
    return finding.mark


def _advice_of(finding: Finding, pool: str | None) -> Iterator[str]:
    # What is told in short is mended where all of it is seen.
    repairs = finding.repairs and not finding.advice.startswith("see all")
    if repairs:
        yield f"jobpool doctor {pool or ''}".rstrip() + " --repair"
    if finding.advice:
        yield ("or: " if repairs else "") + finding.advice
