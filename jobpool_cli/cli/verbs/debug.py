"""``jobpool debug``: one task, run in the terminal."""

from __future__ import annotations

import time
import traceback
from typing import Annotated

import typer

from jobpool_cli.cli import options, render
from jobpool_cli.cli.render_tables import call_text
from jobpool_cli.errors import ExitCode, JobPoolError
from jobpool_cli.pool import JobPool
from jobpool_cli.show.text import duration, for_stream

RESULT_LENGTH = 10_000


def command(
    pool: Annotated[str, typer.Argument(metavar="POOL", help="The pool's name; last is the newest.")],
    task: Annotated[int, typer.Argument(metavar="TASK", help="The task's number.")],
    *,
    pdb: Annotated[
        bool, typer.Option("--pdb", help="Open the debugger where an exception is raised.", show_default=False)
    ] = False,
    home: options.Home = None,
) -> None:
    """Run one task here, as a retry would: what it prints is seen at once, and breakpoint() works.

    The pool stays as it is. The result is written to stdout; if the function raises, its traceback, and exit code 1.
    """
    opened = JobPool.open(pool, home=home)
    opened.check_tasks([task])
    (given,) = opened.arguments([task]).to_pylist() or [{}]
    function = opened.manifest.udf.rpartition(":")[2]
    render.say(f"{function}({call_text({**given, **opened.constants()})})")
    started = time.monotonic()
    try:
        result = opened.debug(task, pdb=pdb)
    except (KeyboardInterrupt, JobPoolError):
        raise
    except BaseException as error:  # noqa: BLE001 - also SystemExit: it is the function that ends, not this command
        render.say(f"raised {type(error).__name__} after {duration(time.monotonic() - started)}, loading included")
        if not pdb:  # which shows it first
            _show(error)
        raise typer.Exit(ExitCode.TASKS_FAILED) from None
    render.write(for_stream(_text_of(result), lines=True))
    render.say(f"returned after {duration(time.monotonic() - started)}, loading included")


def _show(error: BaseException) -> None:
    from jobpool_cli.worker.foreground import from_users_code  # noqa: PLC0415 - pyarrow, which this command has by now

    own = error.with_traceback(from_users_code(error.__traceback__))
    render.say("".join(traceback.format_exception(own)).rstrip("\n"))


def _text_of(result: object) -> str:
    try:
        text = repr(result)
    except Exception as error:  # noqa: BLE001 - the class's own method
        text = f"<{type(result).__qualname__}, whose repr() raised {type(error).__name__}>"
    return text if len(text) <= RESULT_LENGTH else f"{text[:RESULT_LENGTH]}... ({len(text):,} characters)"
