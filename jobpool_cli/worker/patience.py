"""What a worker does when the disk refuses what it has to write for the pool: no task is to blame for that.

A full disk is waited for, as a pipe that nobody reads from would be: in the middle of a task's ``print`` if need be.
That time does not count against the task's limit. The supervisor is told, so that `status` can say why nothing goes on;
where waiting would not help, it stops the pool and this worker.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from jobpool_cli.errors import NO_ROOM, REFUSALS
from jobpool_cli.store.slots import STARTED

LOOK_SECONDS = 0.2
TELL_SECONDS = 1.0


class Patience:
    """Patience with the pool's disk."""

    def __init__(self, slot: memoryview, tell: Callable[[int, str], None]) -> None:
        """Begin with none needed.

        Args:
            slot: this worker's, in which a task's time runs.
            tell: tells the supervisor what was refused: the system's number for why, and a text.
        """
        self._slot = slot
        self._tell = tell
        self._told_at = -math.inf

    def wait(self, error: OSError, what: str) -> bool:
        """Return True when it is time to try again, False where the error is not about the disk.

        Where trying again would not help it does not return.

        Args:
            error: what came of the last try.
            what: was to be written.
        """
        if error.errno not in REFUSALS:
            return False
        if error.errno in NO_ROOM:
            if time.monotonic() >= self._told_at + TELL_SECONDS:
                self._told_at = time.monotonic()
                self._tell(error.errno, f"{what} cannot be written")
            time.sleep(LOOK_SECONDS)
            if threading.current_thread() is threading.main_thread():
                # As if the task had begun so much later: only it could be charged for the wait.
                self._slot[STARTED] += int(LOOK_SECONDS * 1e9)
            return True
        self._tell(error.errno, f"{what} cannot be written")
        while True:
            # The supervisor is about to end this process.
            time.sleep(LOOK_SECONDS)
