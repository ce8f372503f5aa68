"""A witness outside the program: what a pool ever showed as succeeded stays so, and never runs again."""

from __future__ import annotations

import contextlib
from typing import Any

from jobpool_cli.pool import JobPool
from tests.faults.harness import Faults


class Witness:
    """Looks at one pool now and then, and remembers how long the audit file was when it first saw a success."""

    def __init__(self, faults: Faults, pool: JobPool[Any], audit: str = "audit") -> None:
        """Begin with nothing seen."""
        self._faults = faults
        self._pool = pool
        self._audit = faults.folder / audit
        self._seen: dict[int, int] = {}

    def look(self) -> set[int]:
        """Return what is shown as succeeded."""
        shown = self._faults.look(self._pool)
        # Afterwards: whatever begins from here on begins after the task was shown.
        length = self.audited()
        for task in shown - self._seen.keys():
            self._seen[task] = length
        return shown

    def audited(self) -> int:
        """Return how long the audit file is: it grows with every attempt that begins."""
        with contextlib.suppress(FileNotFoundError):
            return self._audit.stat().st_size
        return 0

    def check(self) -> None:
        """See in the audit file that no task began after it was shown as succeeded."""
        again: list[int] = []
        position = 0
        with contextlib.suppress(FileNotFoundError), self._audit.open("rb") as file:
            for line in file:
                task = int(line.split()[0])
                if position >= self._seen.get(task, position + 1):
                    again.append(task)
                position += len(line)
        assert not again, f"tasks ran again that had been shown as succeeded: {again[:20]}"
