"""The fuse: a pool of which every task crashes is stopped, before it has cost a million worker processes.

It blows when so many tasks in a row were given up because they crashed their workers, and none ended in any other way
meanwhile. What makes it safe for pools in which only some tasks crash:

- only tasks count whose every crash fell into the present row: those that crashed among others that ended, and are
  repeated when nothing else is left, do not;
- after some crashes the tasks that are tried next come from all over the pool, so that a block of bad rows is left;
- every task that ended otherwise makes the row longer that it takes: a pool of which most tasks end never blows it;
- so does every worker, because those that are busy with long tasks say nothing of how these end.
"""

from __future__ import annotations

from jobpool_cli.supervisor.holdings import History

TASKS = 20
TASKS_PER_FURTHER_WORKER = 5
# From so many on, tasks from elsewhere in the pool are tried.
DOUBTFUL_TASKS = 10


class Fuse:
    """Counts crashes that follow upon each other."""

    def __init__(self, slots: int) -> None:
        """Begin for a pool of so many workers."""
        self._least = TASKS + TASKS_PER_FURTHER_WORKER * (slots - 1)
        self._row = 1
        """The number of the present row."""
        self.reset()

    def reset(self) -> None:
        """Forget everything: other code runs from now on."""
        self._limit = self._least
        self.begin_row()

    def begin_row(self) -> None:
        """Count anew: somebody wants to see tasks run (again)."""
        self._row += 1
        self._crashed = 0
        self.given_up = 0
        """Tasks in the present row that will not run again."""

    def ended(self, tasks: int) -> None:
        """So many tasks have ended in any other way."""
        self._limit += tasks
        self.begin_row()

    def crashed(self, history: History, *, again: bool) -> None:
        """A task has crashed its worker."""
        if history.crashes == 1:
            history.row = self._row
            self._crashed += 1
        if history.row == self._row and not again:
            self.given_up += 1

    @property
    def doubtful(self) -> bool:
        """Whether to try tasks from all over the pool."""
        return self._crashed >= DOUBTFUL_TASKS

    @property
    def insists(self) -> bool:
        """Whether to repeat those that crashed before any other, so that it is soon clear."""
        return self._crashed >= self._limit

    @property
    def blown(self) -> bool:
        """Whether it is clear."""
        return self.given_up >= self._limit
