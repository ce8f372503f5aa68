"""Checksums of what Parquet has none for: its pages bear their own, the footer that tells where they lie does not."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

from jobpool_cli.store import durable

MAGIC = b"PAR1"
# The footer's length in four bytes, and the magic.
TAIL_BYTES = 8


def footer_crc(path: Path) -> int:
    """Return the checksum of a Parquet file's footer.

    Raises:
        OSError: the file cannot be read.
        ValueError: it has no footer.
    """
    fd = durable.open_old(path)
    try:
        size = os.fstat(fd).st_size
        tail = os.pread(fd, TAIL_BYTES, max(0, size - TAIL_BYTES))
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != MAGIC or length + TAIL_BYTES > size:
            raise ValueError("it does not end as a Parquet file does")
        return zlib.crc32(os.pread(fd, length, size - TAIL_BYTES - length) + tail)
    finally:
        os.close(fd)
