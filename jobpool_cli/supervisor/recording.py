"""What the supervisor writes into the books: collected, committed in groups, and kept while the disk has no room.

A transaction that the disk refuses is gone whole, so its changes stay where they are and are made again, in their
order, by the next one: a change may be called more than once, and must leave no trace where it was in vain. Meanwhile
the scheduler hands out nothing (``held``), and the slots tell `status` why, since the books cannot. Anything that does
not pass by itself, a sync that failed above all, is not tried again: it ends the supervisor.
"""

from __future__ import annotations

import errno
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from jobpool_cli.errors import REFUSALS, DiskError
from jobpool_cli.layout import PoolPaths
from jobpool_cli.store import durable
from jobpool_cli.store.slots import ENDED, HELD, SharedSlots
from jobpool_cli.store.state.writer import StateWriter
from jobpool_cli.supervisor.log import log

COMMIT_SECONDS = 0.1
LOOK_SECONDS = 1.0
# What is refused again right after there was room is asked for less and less often.
LONGEST_LOOK_SECONDS = 16.0
RELAPSE_SECONDS = 10.0
# So many bytes of outcomes may wait for room; then the workers keep theirs.
MOST_WAITING_BYTES = 64 << 20


class Recorder:
    """Changes on their way into the state database."""

    def __init__(self, paths: PoolPaths, writer: StateWriter) -> None:
        """Begin with none."""
        self.writer = writer
        self.on_commit: list[Callable[[], None]] = []
        """Called whenever all changes are on the disk."""
        self._root = paths.root
        self._words = SharedSlots(paths.slots).slot(0)
        self._changes: list[Callable[[], None]] = []
        self._changed_at = 0.0
        """When the oldest change that waits for the next commit was collected."""
        self._waiting_bytes = 0
        self._patience = LOOK_SECONDS
        self._next_look = 0.0
        self._released_at = -math.inf

    # --- changes

    def change(self, change: Callable[[], None], size: int = 0) -> None:
        """Have something written with the next commit; ``size`` is what it holds in memory until then."""
        if not self._changes:
            self._changed_at = time.monotonic()
        self._changes.append(change)
        self._waiting_bytes += size

    @property
    def until_commit(self) -> float:
        """In how many seconds the oldest change that waits is to be committed."""
        if not self._changes:
            return math.inf
        due = self._next_look if self.held else self._changed_at + COMMIT_SECONDS
        return due - time.monotonic()

    @property
    def is_overfull(self) -> bool:
        """Whether more waits for room on the disk than memory should hold."""
        return self.held and self._waiting_bytes > MOST_WAITING_BYTES

    def commit(self, *, at_last: bool = False) -> bool:
        """Write all collected changes in one durable transaction; False if the disk has no room for them.

        Args:
            at_last: try it once more, also if it is not long since it failed.

        Raises:
            DiskError: the disk refuses for a reason that does not pass.
        """
        if self._changes:
            if self.held and not at_last and time.monotonic() < self._next_look:
                return False
            with self.attempt() as attempt, self.writer.transaction():
                for change in self._changes:
                    change()
            if not attempt.done:
                return False
            self._changes.clear()
            self._waiting_bytes = 0
        for call in self.on_commit:
            call()
        return True

    @contextmanager
    def attempt(self) -> Iterator[Attempt]:
        """Try to write something; a full disk holds the pool instead of raising.

        Raises:
            DiskError: the disk refuses for a reason that does not pass.
        """
        attempt = Attempt()
        try:
            yield attempt
            attempt.done = True
        except (DiskError, OSError) as error:
            refused = as_disk_error(error)
            if refused is None:
                raise
            if not refused.may_pass:
                raise refused from error
            self.hold(refused.number)

    # --- the disk

    @property
    def held(self) -> bool:
        """Whether the disk has no room."""
        return bool(self._words[HELD])

    def check(self, what: str) -> None:
        """Refuse to begin where the disk has no room.

        Raises:
            DiskError: it has none; ``what`` says what cannot be done.
        """
        self.look()
        if self.held:
            raise DiskError(self._words[HELD], what)

    def hold(self, number: int) -> None:
        """Take note that the disk has no room; `status` shows it from now on."""
        now = time.monotonic()
        if not self.held:
            relapsed = now - self._released_at < RELAPSE_SECONDS
            self._patience = min(2 * self._patience, LONGEST_LOOK_SECONDS) if relapsed else LOOK_SECONDS
            log(f"{REFUSALS[number][0]}: the pool is held until there is room")
        if not self.held or now >= self._next_look:
            self._next_look = now + self._patience
        self._words[HELD] = number

    def look(self, *, at_once: bool = False) -> None:
        """See, once in a while or at once, whether the disk has room: for what waits, and for more."""
        now = time.monotonic()
        if now < self._next_look and not at_once:
            return
        if not self.held:
            self._next_look = now + LOOK_SECONDS
            if at_once:
                with self.attempt():
                    durable.check_room(self._root)
            elif durable.is_nearly_full(self._root):
                self.hold(errno.ENOSPC)
            return
        with self.attempt() as attempt:
            durable.check_room(self._root)
        if attempt.done and self.commit(at_last=True):
            log("there is room on the disk: the pool goes on")
            self._words[HELD] = 0
            self._released_at = now

    def end(self, error: BaseException | None) -> None:
        """Leave word of why the supervisor ends, where it is the disk that ends it."""
        refused = as_disk_error(error) if error is not None else None
        self._words[ENDED] = refused.number if refused else self._words[HELD] if self._changes else 0
        self._words[HELD] = 0


class Attempt:
    """Whether something that was tried was done."""

    def __init__(self) -> None:
        """Begin with no."""
        self.done = False


def as_disk_error(error: BaseException) -> DiskError | None:
    """Return an error as what a disk refused, None if it is something else."""
    if isinstance(error, DiskError):
        return error
    if isinstance(error, OSError) and error.errno in REFUSALS:
        return DiskError(error.errno, f"{error.filename or 'a file of the pool'} cannot be written")
    return None
