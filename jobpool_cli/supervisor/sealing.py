"""Sealing: blobs of the inbox become Parquet segments, in a thread, while the loop goes on."""

from __future__ import annotations

import re
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from jobpool_cli.layout import PoolPaths
from jobpool_cli.store import durable
from jobpool_cli.store.state.reader import StateReader

# While the pool runs, the inbox is sealed whenever it holds this much. Bytes alone do not tell how large the segment
# will be: the blob of a single row is a kilobyte, of which a few bytes are left in a segment of many. So it takes many
# rows as well, up to a size that bounds memory and the inbox.
SEAL_ABOVE_ROWS = 250_000
SEAL_ABOVE_BYTES = 8 << 20
SEAL_AT_LAST_BYTES = 16 << 20
# What sealing holds in memory a few times over: compressed, it may be a hundredth of that. While a segment is written,
# more than that may come in, so a segment takes no more of it, either.
SEAL_AT_LAST_WHOLE_BYTES = 64 << 20


def worth_sealing(rows: int, size: int, whole: int = 0) -> bool:
    """Whether an inbox of so many rows and bytes, of which it would be ``whole`` uncompressed, is to be sealed."""
    if whole >= SEAL_AT_LAST_WHOLE_BYTES:
        return True
    return size >= SEAL_AT_LAST_BYTES or (rows >= SEAL_ABOVE_ROWS and size >= SEAL_ABOVE_BYTES)


@dataclass(frozen=True)
class SealedSegment:
    """A written, synced segment, still under its temporary name."""

    ids: tuple[int, ...]
    temporary: Path
    size: int


class Sealer:
    """Writes segments one after another in a thread of its own; knows nothing of transactions."""

    def __init__(self, paths: PoolPaths) -> None:
        """Start no thread yet."""
        self._paths = paths
        self._executor = ThreadPoolExecutor(1, "seal")
        self._jobs: list[Future[list[SealedSegment]]] = []
        self._final: dict[Path, Path] = {}
        """Where segments go that are not recorded yet."""
        with StateReader(paths.state_db) as reader:
            # Also of a file that is lost: its name still stands for the results that were in it.
            recorded = [Path(segment.file) for segment in reader.segments()]
        self._next = 1 + max(map(_number, [*recorded, *paths.results.glob("segment-*.parquet")]), default=0)

    def warm_up(self) -> None:
        """Import what sealing needs while there is nothing else to do."""
        self._executor.submit(_import_segments)

    @property
    def busy(self) -> bool:
        """Whether a segment is being written or waits to be taken over."""
        return bool(self._jobs)

    def begin(self, inbox: list[tuple[int, str, int]]) -> None:
        """Seal these blobs, given as (id, kind, bytes); kinds of results do not mix in a segment."""
        for ids in _plan(inbox):
            self._jobs.append(self._executor.submit(self._seal, ids))

    def _seal(self, ids: tuple[int, ...]) -> list[SealedSegment]:
        from jobpool_cli.store.outcomes.segments import seal  # noqa: PLC0415 - pyarrow costs 200 ms; the thread pays it

        with StateReader(self._paths.state_db) as reader:
            blobs = reader.blobs(ids)
        written: list[SealedSegment] = []
        try:
            while ids:
                temporary = durable.temporary_beside(self._paths.results / "segment.parquet")
                taken, size = seal(blobs, temporary, SEAL_AT_LAST_WHOLE_BYTES)
                written.append(SealedSegment(ids[:taken], temporary, size))
                ids, blobs = ids[taken:], blobs[taken:]
        except BaseException:
            for segment in written:
                segment.temporary.unlink(missing_ok=True)
            raise
        return written

    def finished(self) -> list[SealedSegment]:
        """Return the segments that are written since the last call; the others stay in the inbox.

        Raises:
            OSError: one could not be written; call again for those behind it.
        """
        written: list[Future[list[SealedSegment]]] = []
        while self._jobs and self._jobs[0].done():
            error = self._jobs[0].exception()
            if error is not None and written:
                break
            written.append(self._jobs.pop(0))
        return [segment for job in written for segment in job.result()]

    def place(self, temporary: Path) -> str:
        """Rename a segment into place and return its file name; the caller records it right afterwards.

        Called again for the same segment, when recording it did not work out, it finds it in its place.
        """
        if temporary not in self._final:
            self._final[temporary] = self._paths.segment(self._next)
            self._next += 1
        final = self._final[temporary]
        if not final.exists():
            durable.publish(temporary, final)
        return final.name

    def recorded(self) -> None:
        """Forget what was placed: all of it is in the books."""
        self._final.clear()

    def close(self) -> None:
        """Wait for the thread to end."""
        self._executor.shutdown(cancel_futures=True)


def _import_segments() -> None:
    import jobpool_cli.store.outcomes.segments  # noqa: F401, PLC0415


def _number(path: Path) -> int:
    found = re.fullmatch(r"segment-(\d+)\.parquet", path.name)
    return int(found[1]) if found else 0


def _plan(inbox: list[tuple[int, str, int]]) -> list[tuple[int, ...]]:
    """Group blobs into segments: by kind, up to a size; blobs of nothing but None go with the largest kind."""
    by_kind: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for each, kind, size in inbox:
        by_kind[kind].append((each, size))
    if len(by_kind) > 1 and "" in by_kind:
        empty = by_kind.pop("")
        largest = max(by_kind.values(), key=lambda blobs: sum(size for _, size in blobs))
        largest.extend(empty)
    plan = []
    for blobs in by_kind.values():
        ids: list[int] = []
        total = 0
        for each, size in blobs:
            ids.append(each)
            total += size
            if total >= SEAL_AT_LAST_BYTES:
                plan.append(tuple(ids))
                ids, total = [], 0
        if ids:
            plan.append(tuple(ids))
    return plan
