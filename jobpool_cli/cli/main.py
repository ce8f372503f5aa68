"""The entry point: finds the verb, runs it, and turns every error into a message and an exit code.

A verb is known by its name and a line of help; its module is imported, and its options are built, only when it is the
one that was asked for. A verb's module has one function ``command``.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from types import FrameType
from typing import Annotated, Any, NoReturn, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

from jobpool_cli.cli import render
from jobpool_cli.errors import REFUSALS, ExitCode, JobPoolError, PoolWarning

PROGRAM = "jobpool"
_PYTHON_TELLS = warnings.showwarning

# In the order in which one meets them.
VERBS: dict[str, tuple[str, str]] = {
    "map": ("map", "Run a function over every row of a table, in the background."),
    "status": ("status", "Show how a pool is doing."),
    "list": ("list", "List the pools."),
    "tail": ("tail", "Watch tasks end until the pool is done."),
    "wait": ("wait", "Wait until the pool is done."),
    "is": ("is_", "Answer a question about a pool by the exit code, for scripts."),
    "tasks": ("tasks", "List tasks with their states, times and errors."),
    "logs": ("logs", "Show what tasks printed."),
    "errors": ("errors", "Show failures, grouped by their cause."),
    "results": ("results", "Print results as they are."),
    "collect": ("collect", "Gather the results into one table."),
    "args": ("args", "Show the arguments of tasks."),
    "debug": ("debug", "Run one task here, in the terminal."),
    "retry": ("retry", "Run failed tasks again."),
    "pause": ("pause", "Hand out no further task for now."),
    "resume": ("resume", "Go on after a pause or an interruption."),
    "cancel": ("cancel", "Give up what has not begun."),
    "shutdown": ("shutdown", "Stop working on a pool; the rest stays pending."),
    "rm": ("rm", "Delete pools."),
    "doctor": ("doctor", "Say what is wrong, and what to do about it."),
}

# Click's UsageError, which Typer brings along (under a private name in newer versions) and does not export.
UsageProblem: type[Exception] = typer.BadParameter.__bases__[0]


class Verbs(TyperGroup):
    """The group of all verbs, built one at a time."""

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002, D102
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Return a verb as completion lists it: its name and its line of help."""
        return TyperCommand(cmd_name, short_help=VERBS[cmd_name][1]) if cmd_name in VERBS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Build the verb that the command line names."""
        if args and args[0] in VERBS:
            return args[0], build(args[0]), args[1:]
        if args and not args[0].startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches  # noqa: PLC0415

            near = get_close_matches(args[0], VERBS, 1)
            hint = f"did you mean {near[0]}?" if near else f"see what there is: {PROGRAM} --help"
            raise _UnknownVerbError(f"there is no command {args[0]!r}", hint)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002, D102
        with formatter.section("Commands"):
            formatter.write_dl([(verb, text) for verb, (_, text) in VERBS.items()])


class _UnknownVerbError(JobPoolError):
    exit_code = ExitCode.USAGE


def build(verb: str) -> Any:
    """Import a verb's module and build its command."""
    module, text = VERBS[verb]
    command = import_module(f"jobpool_cli.cli.verbs.{module}").command
    # Plain help: rich's would cost a tenth of a second, and would import every verb to draw the list of them.
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(verb, help=command.__doc__, short_help=text, context_settings={"help_option_names": ["-h", "--help"]})(
        command
    )
    return typer.main.get_command(app)


def _version(wanted: bool) -> None:
    if wanted:
        from jobpool_cli.version import __version__  # noqa: PLC0415

        render.write(f"{PROGRAM} {__version__}")
        raise typer.Exit


def root(
    version: Annotated[  # its callback does the work
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Run a Python function over every row of a table, in detached workers, from a pool on disk."""


def group() -> Any:
    """Build the group; no verb is built yet."""
    app = typer.Typer(
        cls=Verbs,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        epilog=f"{PROGRAM} COMMAND --help tells more about a command. POOL is a pool's name; 'last' is the newest.",
    )
    app.callback()(root)
    return typer.main.get_command(app)


class _Terminated(KeyboardInterrupt):
    """SIGTERM: like Ctrl-C, so that what a command has half done is undone, but with an exit code of its own."""


def _terminate(number: int, _frame: FrameType | None) -> NoReturn:
    raise _Terminated(number)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; the program's own (without ``arguments``) ends the process."""
    if arguments is None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, _terminate)
    for stream in (sys.stdout, sys.stderr):
        # What the locale cannot show is shown as an escape; a lone surrogate becomes what JSON calls it.
        if stream is not None:
            with contextlib.suppress(AttributeError, ValueError):
                stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    warnings.showwarning = _tell
    warnings.simplefilter("always", PoolWarning)
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        code = _abandon_stdout(ExitCode.OK)  # `| head` has seen enough
    except OSError as error:
        render.error(_describe(error), "")
        code = _abandon_stdout(ExitCode.SYSTEM)
    if arguments is None:
        # All is written. Taking the interpreter apart would cost a tenth of what `status` takes, and a thread that a
        # user's module started when `map` loaded it would keep the command from ending.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()
        os._exit(int(code))
    return int(code)


def _tell(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Write what one should know about a pool as a line of ours; all other warnings as Python does."""
    if issubclass(category, PoolWarning):
        render.warn(str(message))
    else:
        _PYTHON_TELLS(message, category, filename, lineno, file, line)


def _run(arguments: list[str]) -> int:
    """Run a command line; errors that are not about the output end here."""
    code: int = ExitCode.OK
    try:
        commands = group()
        if f"_{PROGRAM.upper()}_COMPLETE" in os.environ:
            return _complete(commands, arguments)
        with commands.make_context(PROGRAM, arguments) as context:
            commands.invoke(context)
    except typer.Exit as stop:
        code = stop.exit_code
    except UsageProblem as problem:
        code = _usage(problem)
    except JobPoolError as error:
        render.error(error.message, error.hint)
        code = error.exit_code
    except _Terminated as terminated:
        code = 128 + terminated.args[0]
    except (KeyboardInterrupt, typer.Abort):
        code = ExitCode.INTERRUPTED
    except OSError:
        raise
    except Exception as error:
        # The last resort: a user never meets a traceback unasked.
        if os.environ.get("JOBPOOL_DEBUG"):
            raise
        render.error(
            f"this is a fault in {PROGRAM} itself: {type(error).__name__}: {error}",
            "set JOBPOOL_DEBUG=1 to see where, and report it",
        )
        code = ExitCode.SYSTEM
    return code


def _complete(commands: Any, arguments: list[str]) -> int:
    """Offer words to a shell; return the exit code."""
    # Makes the shells known; Typer does it itself only where it also adds --install-completion.
    from typer.completion import completion_init  # type: ignore[attr-defined]  # noqa: PLC0415

    # For zsh and fish Typer takes markup out of each line of help by way of rich, which takes longer than all the
    # rest; ours has no markup. A module that is None cannot be imported, and is none that can be found.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
    completion_init()
    try:
        commands.main(arguments, prog_name=PROGRAM)
    except SystemExit as stop:  # always: caught, so that the process ends as quickly as every other command's
        return int(stop.code or ExitCode.OK)
    return ExitCode.OK


def _usage(problem: Any) -> int:
    """Say what is wrong with a command line, in our words and Click's."""
    context = problem.ctx
    path = context.command_path if context is not None else PROGRAM
    if type(problem).__name__ == "NoArgsIsHelpError" or (context is not None and problem.message == "Missing command."):
        render.say(context.get_help())
        return ExitCode.USAGE
    text = problem.format_message().strip().rstrip(".")
    near = ""
    possibilities = getattr(problem, "possibilities", None)
    if possibilities:
        text, near = problem.message, f"did you mean {' or '.join(sorted(possibilities))}? "
    render.error(text[:1].lower() + text[1:], f"{near}see: {path} --help")
    return ExitCode.USAGE


def _describe(error: OSError) -> str:
    # What the system says of this one, "File too large", says nothing of the limit.
    reason = REFUSALS[errno.EFBIG][0] if error.errno == errno.EFBIG else error.strerror or str(error)
    return f"{error.filename}: {reason}" if error.filename else f"the output could not be written: {reason}"


def _abandon_stdout(code: ExitCode) -> ExitCode:
    """Point stdout nowhere, so that the interpreter's last flush has nothing to complain about."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return code
