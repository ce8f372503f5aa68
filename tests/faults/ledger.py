"""What a run of the fault suite counted: a line of JSON an event, appended by every test process, read at the end."""

from __future__ import annotations

import json
import os
from typing import TypeVar

# Names the file; without it nothing is counted.
LEDGER = "JOBPOOL_FAULTS_LEDGER"
# "long": the sweeps of `make faults`; anything else: the form that `make test` runs.
SCALE = "JOBPOOL_FAULTS"
# Numbers of the scenarios to run, as "4,5"; all if it is empty.
ONLY = "JOBPOOL_FAULTS_ONLY"

T = TypeVar("T")


def is_long() -> bool:
    """Return whether this is a run of the long sweeps."""
    return os.environ.get(SCALE) == "long"


def scaled(quick: T, long: T) -> T:
    """Return how much of something this run does."""
    return long if is_long() else quick


def write(scenario: int, **event: object) -> None:
    """Append an event of a scenario."""
    if LEDGER in os.environ:
        line = json.dumps({"scenario": scenario, **event}) + "\n"
        fd = os.open(os.environ[LEDGER], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(fd, line.encode())
        finally:
            os.close(fd)
