"""The works that are measured, a file each. A simple one offers `Work`; any other has a ``run(context)`` of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from benchmarks.goals import Goal
from benchmarks.measure import Context, Figures, Row


class Measured(Protocol):
    """What every work module says of itself.

    Attributes:
        KEY: the letter by which it is asked for.
        TITLE: one line for people.
        GOALS: what it is to show; may be empty.
        COLUMNS: the figures that its table shows, in order, with their headings.
        PLOT: the figure that the plot shows.
    """

    KEY: str
    TITLE: str
    GOALS: Sequence[Goal]
    COLUMNS: Mapping[str, str]
    PLOT: str


class Flow(Measured, Protocol):
    """A work that is measured in its own way: it returns its rows, best by ``context.in_turn(contenders)``."""

    run: Callable[[Context], list[Row]]


class Work(Measured, Protocol):
    """A function over many arguments, which any peer can run.

    Attributes:
        TASKS: the full size.
        QUICK_TASKS: the size that shows whether everything works.
        CONTENDERS: peers (``peer`` or ``peer:variant=value``) and how many tasks each gets; one that is too slow for
            the full size gets fewer, and its rate is compared.
        task: the function, of a single argument; importable by the peer's workers.
        arguments: the arguments of that many tasks.
        check: raises AssertionError if these are not the results of that many tasks.
        derive: further figures from what a peer reported; optional.
    """

    TASKS: int
    QUICK_TASKS: int
    CONTENDERS: Mapping[str, int]
    task: Callable[[int], Any]
    arguments: Callable[[int], list[int]]
    check: Callable[[Sequence[Any], int], None]
    derive: Callable[[Figures, int, int], Figures]
