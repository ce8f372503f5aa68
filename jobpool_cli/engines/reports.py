"""What one worker may report: every field of its messages, checked once, against the batches that it was handed.

A worker shares its process with the user's function, which may write into the worker's descriptors or its memory. So
nothing that comes from a worker is believed before it has passed here: not a task number that it was never given, not a
count that does not add up, not a file outside ``results/``. What passes can be recorded as it is.
"""

from __future__ import annotations

import base64
import binascii
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobpool_cli.engines.base import BootFailed, EngineEvent, Outcomes, Ready, Refused
from jobpool_cli.errors import REFUSALS
from jobpool_cli.layout import TEMPORARY_PREFIX
from jobpool_cli.store.ranges import Range, merged, without
from jobpool_cli.store.slots import IDLE, POSITION_BITS, POSITION_MASK
from jobpool_cli.worker.protocol import BatchOrder, Frame, ProtocolError

INT64_MAX = 2**63 - 1
# Thirty years: no batch has taken longer.
LONGEST_SECONDS = 1e9
# What one field of a failure may hold at most: above what ``worker.failure`` cuts it to, and bounded.
MAX_FIELD_CHARACTERS = 2_000_000
_SEGMENT_NAME = re.compile(re.escape(TEMPORARY_PREFIX) + r"[0-9a-f]{12}-segment\.parquet")
_PARQUET_MAGIC = b"PAR1"


@dataclass
class _Handed:
    """A batch in the worker's hands; ``size`` falls when its tail is taken back."""

    order: BatchOrder
    size: int
    done: int = 0


class Reports:
    """The books on one worker process: what it was handed, and how far it has reported."""

    def __init__(self, slot: int, worker: int, results: Path) -> None:
        """Begin with a process that has not loaded its code.

        Args:
            slot: its slot.
            worker: its number.
            results: where it may write segments.
        """
        self._slot = slot
        self._worker = worker
        self._results = results
        self._handed: dict[int, _Handed] = {}
        self.booted = False

    # --- what it has

    def sent(self, order: BatchOrder) -> None:
        """Note a batch that it was handed."""
        self._handed[order.batch] = _Handed(order, order.size)

    def taken_back(self, batch: int) -> None:
        """Note that it has a batch no more."""
        self._handed.pop(batch, None)

    def has(self, batch: int) -> bool:
        """Return whether it was handed that batch, and has not ended it or given it back."""
        return batch in self._handed

    @property
    def idle(self) -> bool:
        """Whether it has no batch."""
        return not self._handed

    def trimmed(self, batch: int, kept: int) -> int | None:
        """Note that it keeps only so many positions of a batch; None, and no change, if that cannot be."""
        handed = self._handed.get(batch)
        if handed is None or kept < handed.done:
            return None
        handed.size = min(handed.size, kept)
        return handed.size

    def running(self, word: int) -> tuple[int, int] | None:
        """Return the (batch, position) that its slot shows, None if it shows none that the worker can be at."""
        handed = self._handed.get(word >> POSITION_BITS) if word != IDLE else None
        position = word & POSITION_MASK
        return (handed.order.batch, position) if handed and handed.done <= position < handed.size else None

    # --- what it says

    def event(self, frame: Frame) -> EngineEvent | None:
        """Return what a message tells, None if nothing that anyone need know.

        Raises:
            ProtocolError: no worker sends that.
        """
        try:
            match frame.kind:
                case "warm" if not self.booted:
                    return None
                case "ready" if not self.booted:
                    self.booted = True
                    return Ready(self._slot)
                case "boot-failed" if not self.booted:
                    return BootFailed(self._slot, _text(frame.body["message"]), _text(frame.body["hint"]))
                case "refused" if frame.body["number"] in REFUSALS:
                    return Refused(self._slot, _number(frame.body["number"]), _text(frame.body["message"]))
                case "outcomes" if self.booted:
                    return self._outcomes(frame)
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            raise ProtocolError(f"a message without what belongs to it: {error}") from error
        raise ProtocolError(f"a message at a wrong time: {frame.kind!r:.40}")

    def _outcomes(self, frame: Frame) -> Outcomes:
        body = frame.body
        handed = self._handed.get(_number(body["batch"]))
        if handed is None:
            raise ProtocolError("outcomes of a batch that it does not have")
        upto = _number(body["upto"], handed.done, handed.size)
        failures = [_failure(each, handed.done, upto) for each in _list(body["failures"])]
        positions = [each["position"] for each in failures]
        if len(set(positions)) != len(positions):
            raise ProtocolError("a failure that is told twice")
        claimed = merged(_range(each) for each in _list(body.get("ranges", [])))
        failed = merged((task, task + 1) for task in map(handed.order.task_at, positions))
        if claimed != without(merged(handed.order.slices(handed.done, upto)), failed):
            raise ProtocolError("outcomes of tasks that it did not have, or not of all that it had")
        body["ranges"] = claimed
        rows = sum(high - low for low, high in claimed)
        if _number(body["rows"]) != rows:
            raise ProtocolError("outcomes that are not as many as it says")
        if rows:
            _text(body["result_kind"])
            _number(body["whole"])
            self._check_columns(body, frame.payload)
        _seconds(body["busy"])
        if body["last_finished"] is not None:
            _number(body["last_finished"])
        if not isinstance(body["final"], bool):
            raise ProtocolError("an end of a batch that is neither yes nor no")
        handed.done = upto
        if body["final"]:
            del self._handed[handed.order.batch]
        return Outcomes(self._slot, self._worker, body, frame.payload)

    def _check_columns(self, body: dict[str, Any], payload: bytes) -> None:
        """Check that the successes are there: with the message, or in a segment of the worker's."""
        if ("file" in body) is bool(payload):
            raise ProtocolError("outcomes that are nowhere, or in two places")
        if not payload:
            self._check_segment(_text(body["file"]), _number(body["size"]))

    def _check_segment(self, name: str, size: int) -> None:
        if not _SEGMENT_NAME.fullmatch(name):
            raise ProtocolError("a segment under a name that no worker gives")
        path = self._results / name
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_size != size:
                raise ProtocolError("a segment that is not the file that it says")
            with path.open("rb") as file:
                begins = file.read(len(_PARQUET_MAGIC))
                file.seek(-len(_PARQUET_MAGIC), 2)
                ends = file.read()
        except OSError as error:
            raise ProtocolError(f"a segment that cannot be read: {error}") from error
        if (begins, ends) != (_PARQUET_MAGIC, _PARQUET_MAGIC):
            raise ProtocolError("a segment that is no Parquet file")


def _number(value: object, low: int = 0, high: int = INT64_MAX) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise ProtocolError(f"a number out of its range: {value!r:.40}")
    return value


def _seconds(value: object) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value < LONGEST_SECONDS:
        raise ProtocolError(f"a time that is none: {value!r:.40}")


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise ProtocolError("a list that is none")
    return value


def _range(value: object) -> Range:
    low, high = _pair(value)
    if low >= high:
        raise ProtocolError("a range that is empty")
    return low, high


def _pair(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:  # noqa: PLR2004 - two ends
        raise ProtocolError("a pair that is none")
    return _number(value[0]), _number(value[1])


def _text(value: object) -> str:
    """A text that can be stored: not endless, and writable as UTF-8."""
    if not isinstance(value, str) or len(value) > MAX_FIELD_CHARACTERS:
        raise ProtocolError("a text that is none, or endless")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ProtocolError("a text that is not UTF-8") from error
    return value


def _failure(value: object, low: int, high: int) -> dict[str, Any]:
    """Check a failure as ``worker.failure.describe`` tells it, at a position from ``low`` to below ``high``."""
    if not isinstance(value, dict):
        raise ProtocolError("a failure that is none")
    _number(value["position"], low, high - 1)
    for name in ("type", "message", "frames"):
        _text(value[name])
    for name in ("started", "duration"):
        _number(value[name])
    start, end = _pair(value["log"])
    if start > end:
        raise ProtocolError("a range of the log that ends before it begins")
    if value["where"] is not None:
        file, line, function = _where(value["where"])
        _text(file), _number(line), _text(function)
    if value["exception"] is not None:
        try:
            base64.b64decode(_text(value["exception"]), validate=True)
        except (binascii.Error, ValueError) as error:
            raise ProtocolError("an exception that is not in base64") from error
    return value


def _where(value: object) -> Sequence[object]:
    if not isinstance(value, list) or len(value) != 3:  # noqa: PLR2004 - file, line, function
        raise ProtocolError("a place that is none")
    return value
