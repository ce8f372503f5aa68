"""Faults, injected for real: signals, strace, small file systems, images that lose power, clocks, limits, other users.

Each is a context manager or a command prefix. What a machine lacks is said by ``need``; the test is skipped with that
reason, except where ``CI`` is set: there nothing may be missing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.helpers import until


def need(*programs: str, root: bool = False) -> None:
    """Skip the test, with the reason, where a program is missing or we are not root; on CI that is a failure."""
    missing = [program for program in programs if shutil.which(program) is None]
    reason = f"it needs {', '.join(missing)}" if missing else ""
    if root and os.geteuid() != 0:
        reason = f"{reason}; it needs root".removeprefix("; ")
    if not reason:
        return
    if os.environ.get("CI"):
        pytest.fail(f"CI must not skip this scenario, but {reason}")
    pytest.skip(reason)


def alive(pid: int) -> bool:
    """Return whether a process runs: there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def processes_of(home: Path) -> list[int]:
    """Return the commands, supervisors and workers that run with that home for their pools."""
    wanted, found = f"JOBPOOL_HOME={home}".encode(), []
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            environment = Path(entry.path, "environ").read_bytes() if entry.name.isdigit() else b""
            if wanted in environment.split(b"\0") and alive(int(entry.name)):
                found.append(int(entry.name))
    return found


def kill(*pids: int) -> None:
    """Kill -9 whichever of these still run."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """Hold processes with SIGSTOP; they go on afterwards."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        for pid in pids:
            until(lambda pid=pid: is_stopped(pid), what=f"process {pid} is stopped")  # type: ignore[misc]
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def is_stopped(pid: int) -> bool:
    """Return whether SIGSTOP has taken hold of every thread of a process."""
    states = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            states.append((thread / "stat").read_text().rpartition(")")[2].split()[0])
    return all(state in "TtZ" for state in states)


def straced(*rules: str, output: Path, follow: bool = True) -> list[str]:
    """Return a command prefix that runs the rest under strace with these ``inject`` rules.

    Args:
        rules: ``fdatasync:error=EIO:when=5``, ``pwrite64:signal=KILL:when=3``; ``when`` counts per traced process.
        output: where strace writes the calls that it tampered with.
        follow: also trace what the command starts.
    """
    calls = ",".join(sorted({rule.partition(":")[0] for rule in rules}))
    words = ["strace", "--quiet=all", "--output", str(output), "-e", f"trace={calls}", "-e", "signal=none"]
    return [*words, *(["-f"] if follow else []), *(word for rule in rules for word in ("-e", f"inject={rule}"))]


@contextlib.contextmanager
def strace_on(pid: int, *rules: str, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Tamper with the calls of a process that runs, all its threads included; left alone again afterwards."""
    calls = ",".join(sorted({rule.partition(":")[0] for rule in rules}))
    words = ["strace", "--quiet=exit", "--output", str(output), "-e", f"trace={calls}", "-f", "-p", str(pid)]
    tracer = subprocess.Popen(
        [*words, *(word for rule in rules for word in ("-e", f"inject={rule}"))], stderr=subprocess.PIPE
    )
    try:
        until(lambda: _tracer_of(pid) or tracer.poll() is not None, what="strace is attached")
        yield tracer
    finally:
        with contextlib.suppress(ProcessLookupError):
            tracer.send_signal(signal.SIGINT)
        try:
            tracer.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            # strace 6.1 may wait for ever for a process that was killed under it.
            tracer.kill()
            tracer.communicate()


def _tracer_of(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("TracerPid:"):
                return int(line.split()[1])
    return 0


@contextlib.contextmanager
def tmpfs(place: Path, size: str) -> Iterator[Path]:
    """Mount a file system in memory of that size."""
    need("mount", "umount", root=True)
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=700", "jobpool-test", str(place)], check=True)
    try:
        yield place
    finally:
        unmount(place)


@contextlib.contextmanager
def filled(place: Path, but: int = 0) -> Iterator[Path]:
    """Let a file take all the room of a file system, but for so many bytes; it is gone afterwards."""
    filler = place / "filler"
    fd = os.open(filler, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        # Page by page at last: what others write at the same time is refused as well.
        for chunk in (1 << 20, 4 << 10, 1):
            with contextlib.suppress(OSError):
                while (disk := os.statvfs(place)).f_bavail * disk.f_frsize - but >= chunk:
                    os.write(fd, bytes(chunk))
        yield filler
    finally:
        os.close(fd)
        filler.unlink()


@contextlib.contextmanager
def mounted(image: Path, place: Path, options: str = "loop") -> Iterator[Path]:
    """Mount an image."""
    place.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-o", options, str(image), str(place)], check=True)
    try:
        yield place
    finally:
        unmount(place)


def unmount(place: Path) -> None:
    """Unmount, as soon as nobody uses it; detach it at last, so that no later test trips over it."""
    deadline = time.monotonic() + 10
    while subprocess.run(["umount", str(place)], capture_output=True, check=False).returncode != 0:
        if time.monotonic() > deadline:
            subprocess.run(["umount", "--lazy", str(place)], check=False)
            return
        time.sleep(0.05)


def in_pid_namespace(*words: str) -> list[str]:
    """Return a command that runs in a PID namespace of its own, with its own /proc."""
    need("unshare", root=True)
    return ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *words]


def as_user(name: str, words: Sequence[str]) -> list[str]:
    """Return the command run as another user of this machine, with nothing of ours kept but the environment."""
    need("setpriv", root=True)
    return ["setpriv", f"--reuid={name}", "--regid=nogroup", "--clear-groups", *words]
