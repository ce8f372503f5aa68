"""A disk whose machine loses its power: an image in a file, copied at one moment, while everything stands still.

Why the copy is what a disk would hold: the pool lies on an ext4 of its own on a loop device. What a process writes
stays in the memory of that file system until it is synced, or until the kernel writes it back by itself; that begins
after five seconds, and the journal is committed every five, or every minute as it is mounted here; nor does this mount
write a file back when it is closed, as ext4 otherwise does for programs that forget to sync. So the copy has what was
synced and hardly anything else (``test_power_loss`` shows it), in the order of the journal, which is replayed when the
copy is mounted, as after a real loss of power. The file itself is read through the memory of the
file system that it lies on, which is where the loop device has put all that it was sent.

A copy that is made while the loop device still writes would be none of one moment: then it is made again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.faults.injection import is_stopped, mounted, need, processes_of
from tests.helpers import until

OPTIONS = "loop,commit=60,noauto_da_alloc"


class Disk:
    """A file system on an image of its own; pools in ``home``."""

    def __init__(self, folder: Path, image: Path, place: Path) -> None:
        """Use an image that is mounted at a place; copies go to the folder."""
        self.home = place / "home"
        self.place = place
        self._folder = folder
        self._image = image
        self._copies = 0

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[None]:
        """Stop every process that works on the pools of this disk, what they start meanwhile included."""
        stopped: set[int] = set()
        try:
            while fresh := set(processes_of(self.home)) - stopped:
                for pid in fresh:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGSTOP)
                        stopped.add(pid)
                for pid in fresh:
                    until(lambda pid=pid: _stands_still(pid), what=f"process {pid} is stopped")  # type: ignore[misc]
            yield
        finally:
            for pid in stopped:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    def cut(self) -> Path:
        """Copy what the disk holds at this moment; return the copy, an image."""
        self._copies += 1
        copy = self._folder / f"cut-{self._copies}.img"
        while True:
            before = self._writes()
            subprocess.run(["cp", "--sparse=always", str(self._image), str(copy)], check=True)
            if self._writes() == before:
                return copy

    def _writes(self) -> str:
        """Return how many writes the loop device has begun and ended."""
        device = self.place.stat().st_dev
        text = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}/stat").read_text().split()
        # Writes that were completed; requests under way; flushes that were completed.
        return " ".join([text[4], text[8], *text[15:16]])


def _stands_still(pid: int) -> bool:
    try:
        return is_stopped(pid)
    except OSError:
        return True


@contextlib.contextmanager
def disk(folder: Path, megabytes: int = 64) -> Iterator[Disk]:
    """Make a disk."""
    need("mkfs.ext4", "mount", "umount", root=True)
    image, place = folder / "disk.img", folder / "disk"
    with image.open("wb") as file:
        file.truncate(megabytes << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
    with mounted(image, place, OPTIONS):
        yield Disk(folder, image, place)


@contextlib.contextmanager
def after_the_loss(copy: Path) -> Iterator[Path]:
    """Mount a copy, as a machine does that has its power back; yields the home of its pools."""
    with mounted(copy, copy.with_suffix("")) as place:
        yield place / "home"
    copy.unlink()
