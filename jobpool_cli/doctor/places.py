"""The file system and the clock under a folder."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from jobpool_cli.doctor.findings import DISK, FILE_SYSTEM, Finding, bad, ok, warn
from jobpool_cli.store import durable

# Local file systems keep the memory that SQLite's readers and writers share; these do so within one machine at best.
NETWORK = re.compile(r"(9p|afs|beegfs|ceph|cifs|fhgfs|glusterfs|gpfs|lustre|ncpfs|nfs4?|orangefs|pvfs2|smb[23]?|smbfs)")
LOW_BYTES = 256 << 20
# A clock that differs by less is as good as right.
CLOCK_SECONDS = 5.0


def check_place(folder: Path) -> Iterator[Finding]:
    """Look at the file system that a folder is on."""
    kind = _kind_of(folder)
    if NETWORK.fullmatch(kind) or kind in {"fuse.sshfs", "fuse.glusterfs"}:
        yield warn(
            FILE_SYSTEM,
            f"{folder} is on a network file system ({kind}): SQLite's write-ahead log works there on one machine only",
            "run all commands on one machine, or keep pools on a local disk: --home, JOBPOOL_HOME",
        )
    found = os.statvfs(folder)
    if found.f_flag & os.ST_RDONLY:
        yield bad(FILE_SYSTEM, f"{folder} is mounted read-only", "mount it for writing, or choose another home")
    free = found.f_bavail * found.f_frsize
    if durable.is_nearly_full(folder) or (found.f_files and not found.f_favail):
        yield bad(DISK, f"the disk of {folder} is full", "free some space: pools that wait for it go on by themselves")
    elif free < LOW_BYTES:
        yield warn(DISK, f"the disk of {folder} has {_size(free)} left", "free some space before it is full")
    else:
        yield ok(DISK, f"{_size(free)} free on {kind}")


def check_clock(created: datetime, what: str) -> Iterator[Finding]:
    """Look whether something was made in the future."""
    ahead = created.timestamp() - time.time()
    if ahead > CLOCK_SECONDS:
        yield warn(
            "clock",
            f"{what} was made {ahead:,.0f} s from now ({created.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC):"
            " the clock was ahead then, or is behind now",
            "set the clock (timedatectl); times that are shown may be wrong, results are not",
        )


def _kind_of(folder: Path) -> str:
    """Return the type of the file system that a folder is on."""
    wanted = os.path.realpath(folder)
    best = -1
    found = "an unknown file system"
    try:
        lines = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return found
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        place = re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), fields[4])
        # The last of several mounts at one place is the one that is seen.
        if (wanted == place or wanted.startswith(place.rstrip("/") + "/")) and len(place) >= best:
            best, found = len(place), after.split()[0]
    return found


def _size(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:  # noqa: PLR2004 - as disks are sold
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:,.1f} GB"
