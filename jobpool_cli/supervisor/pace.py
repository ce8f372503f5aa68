"""How much work is handed out at once, learned from how long tasks take; and how fast lost workers are replaced."""

from __future__ import annotations

import math

from jobpool_cli.supervisor.holdings import MAX_BATCH_TASKS

TARGET_SECONDS = 0.2
GROWTH = 8
# Above this a task is so long that fetching the next one afterwards costs nothing, and holding one ahead might.
AHEAD_BELOW_SECONDS = 0.1
# Taking back the tail of a running batch costs a millisecond: not worth it for less work than this.
TRIM_ABOVE_SECONDS = 0.005
ESTIMATE_WEIGHT = 0.4
MAX_BOOT_DEATHS = 3
# Once a worker has loaded the code it is not the code that kills those that boot: the next ones come more slowly.
MAX_LATER_BOOT_DEATHS = 12
MAX_BACKOFF_SECONDS = 10.0


class Pace:
    """The sizes of batches: ``TARGET_SECONDS`` of work, less near the end, and never much more than the last one."""

    def __init__(self, target_seconds: float = TARGET_SECONDS, most: int = MAX_BATCH_TASKS) -> None:
        """Begin without an idea.

        Args:
            target_seconds: how much work a batch is to be.
            most: how many tasks it may have.
        """
        self._target_seconds = target_seconds
        self._most = most
        self._seconds_per_task: float | None = None

    def learn(self, seconds: float) -> None:
        """Take note of how long a task took lately, on average."""
        known = self._seconds_per_task
        self._seconds_per_task = seconds if known is None else known + ESTIMATE_WEIGHT * (seconds - known)

    def batch_size(self, last: int, share: float) -> int:
        """Return how many tasks a worker gets.

        Args:
            last: how many it got last.
            share: its part of all that waits.
        """
        if self._seconds_per_task is None:
            return 1
        wanted = self._target_seconds / max(self._seconds_per_task, 1e-9)
        return max(1, min(self._most, math.ceil(min(wanted, share)), max(1, last) * GROWTH))

    @property
    def depth(self) -> int:
        """How many batches a worker holds: one ahead where tasks are short."""
        ahead = AHEAD_BELOW_SECONDS * self._target_seconds / TARGET_SECONDS
        return 2 if self._seconds_per_task is not None and self._seconds_per_task < ahead else 1

    def is_worth_trimming(self, tasks: int) -> bool:
        """Return whether so many tasks are worth being taken out of a running batch."""
        return tasks > 0 and tasks * (self._seconds_per_task or 0.0) > TRIM_ABOVE_SECONDS


class Boots:
    """Workers that die before they are ready, or without a task to blame: how long to go on, and how fast."""

    def __init__(self) -> None:
        """Begin with none."""
        self.deaths = 0
        """How many in a row died before they were ready."""
        self.idle_deaths = 0
        """How many in a row were ready, and died before they began what they were handed."""
        self._max_deaths = MAX_BOOT_DEATHS
        self._blameless_losses = 0

    def succeeded(self) -> None:
        """Take note of a worker that is ready."""
        self.deaths = 0
        self._max_deaths = MAX_LATER_BOOT_DEATHS

    def died(self) -> bool:
        """Take note of one that was never ready; return whether to give up."""
        self.deaths += 1
        return self.deaths >= self._max_deaths

    def died_idle(self) -> bool:
        """Take note of one that was ready and began nothing; return whether to give up."""
        self.idle_deaths += 1
        return self.idle_deaths >= MAX_LATER_BOOT_DEATHS

    def lost_blameless(self) -> None:
        """Take note of one that is gone without a task to blame."""
        self._blameless_losses += 1

    def worked(self) -> None:
        """Take note of outcomes: whatever killed workers has passed."""
        self._blameless_losses = 0
        self.idle_deaths = 0

    def backoff(self, *, blamed: bool) -> float:
        """Return in how many seconds the next one is started."""
        if blamed or not self._blameless_losses:
            return 0.0
        return min(MAX_BACKOFF_SECONDS, 0.05 * 2.0 ** min(self._blameless_losses - 1, 10))
