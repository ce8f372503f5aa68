"""Work h: the commands that are called in loops, prompts and at a press of Tab, on a machine that holds many pools.

There are 200 pools, one of them with ten million finished tasks. The yardstick is ``python -c pass``: what no program
in Python can be faster than, on this machine and with this environment. A round runs every command once.
"""

from __future__ import annotations

import functools
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path

from benchmarks.goals import Goal, Round
from benchmarks.measure import Contender, Context, Figures, Row, in_turn, run_process
from benchmarks.peers.jobpool import wait_for_end
from benchmarks.works.i_ten_million import make_inputs
from jobpool_cli import JobPool

KEY = "h"
TITLE = "commands on a machine that holds 200 pools, one of 10,000,000 tasks"
POOLS = 200
LARGE = 10_000_000
QUICK_POOLS, QUICK_LARGE = 5, 3_000
# A command takes a tenth of a second: many rounds cost little, and their median is steady where one round is not.
RUNS_PER_ROUND = 10
QUICK_RUNS = 2

COMMANDS: dict[str, tuple[str, list[str]]] = {
    "status_small": ("jobpool status, 3 tasks", ["status", "small-1"]),
    "status_large": ("jobpool status, 10,000,000 tasks", ["status", "large"]),
    "is": ("jobpool is done, 10,000,000 tasks", ["is", "large", "done"]),
    "list": ("jobpool list, 200 pools", ["list"]),
    "help": ("jobpool --help", ["--help"]),
}
# What has been typed when Tab is pressed.
COMPLETIONS = {
    "verb": ("completion of a verb", "jobpool st"),
    "option": ("completion of an option", "jobpool status --j"),
    "pool": ("completion of a pool's name", "jobpool status small-1"),
}
SHELLS = ("bash", "zsh", "fish")

COLUMNS = {"wall": "whole command, s"}
PLOT = "wall"


def _times_python(key: str) -> Goal:
    return Goal(
        f"`{_label(key)}`: at most 8 times `python -c pass`", functools.partial(_ratio, key, "python"), at_most=8
    )


def _label(key: str) -> str:
    return COMMANDS[key][0].removeprefix("jobpool ")


def _ratio(key: str, other: str, figures: Round) -> float:
    return _wall(key, figures) / _wall(other, figures)


def _wall(key: str, figures: Round) -> float:
    return figures["python" if key == "python" else f"jobpool:{key}"]["wall"]


GOALS = [
    _times_python("status_small"),
    _times_python("status_large"),
    _times_python("is"),
    Goal(
        "`status` takes the same for 10,000,000 tasks as for 3 (at most 1.1 times)",
        functools.partial(_ratio, "status_large", "status_small"),
        at_most=1.1,
    ),
    *(
        Goal(
            f"{what} in {shell}: at most 8 times `python -c pass`",
            functools.partial(_ratio, f"{shell}_{key}", "python"),
            at_most=8,
        )
        for key, (what, _) in COMPLETIONS.items()
        for shell in SHELLS
    ),
    Goal("`--help`: at most 12 times `python -c pass`", functools.partial(_ratio, "help", "python"), at_most=12),
    Goal("`list` of 200 pools: under half a second", lambda figures: _wall("list", figures), at_most=0.5),
]


def run(context: Context) -> list[Row]:
    """Make the pools, then measure all commands in turn."""
    with context.folder() as home:
        _make_pools(context, home)
        contenders = [Contender("python", "python -c pass", functools.partial(_time, context, home, [], {}))]
        for key, (name, words) in COMMANDS.items():
            contenders.append(Contender(f"jobpool:{key}", name, functools.partial(_time, context, home, words, {})))
        for shell in SHELLS:
            for key, (what, typed) in COMPLETIONS.items():
                measure = functools.partial(_time, context, home, [], _asked_by(shell, typed))
                contenders.append(Contender(f"jobpool:{shell}_{key}", f"{what}, {shell}", measure))
        for each in contenders:
            each.measure()  # compiles modules, and fills the system's caches of files
        # No word about each run: it would be three hundred lines.
        return in_turn(contenders, QUICK_RUNS if context.quick else context.rounds * RUNS_PER_ROUND)


def _time(context: Context, home: Path, words: list[str], asked: Mapping[str, str]) -> Figures:
    command = [*context.jobpool, *words] if words or asked else [str(context.python), "-c", "pass"]
    ran = run_process(command, env=context.env(home) | dict(asked))
    assert ran.stdout or not (words or asked) or words[0] == "is", f"{command} said nothing"
    return {"wall": ran.wall}


def _asked_by(shell: str, typed: str) -> dict[str, str]:
    """Return the environment in which a shell's completion calls the program."""
    asked = {"_JOBPOOL_COMPLETE": f"complete_{shell}"}
    if shell == "bash":
        return asked | {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    return asked | {"_TYPER_COMPLETE_ARGS": typed, "_TYPER_COMPLETE_FISH_ACTION": "get-args"}


def _make_pools(context: Context, home: Path) -> None:
    """Run one small pool and the large one; the other small ones are copies of the first, with identities of their own.

    The large one lies in their midst, neither the newest nor the first.
    """
    many, large = (QUICK_POOLS, QUICK_LARGE) if context.quick else (POOLS, LARGE)
    for name, tasks in (("small-1", 3), ("large", large)):
        context.tell(f"  making a pool of {tasks:,} tasks")
        udf, table = make_inputs(home, tasks)
        context.run_jobpool("map", f"{udf}:square", table, "--name", name, "--wait", home=home)
        wait_for_end(JobPool.open(name, home=str(home)))
    first = JobPool.open("small-1", home=str(home))
    for number in range(2, many):
        root = home / "pools" / f"small-{number}"
        shutil.copytree(first.paths.root, root, ignore=shutil.ignore_patterns("pool.json"))
        first.manifest._replace(id=str(uuid.uuid4()), name=root.name).write(root / "pool.json")
