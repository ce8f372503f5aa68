"""The machine and the home: what every pool there depends on."""

from __future__ import annotations

import os
import platform
import resource
import shlex
import sqlite3
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from jobpool_cli.doctor.findings import Finding, bad, ok, warn
from jobpool_cli.doctor.places import check_clock, check_place
from jobpool_cli.errors import JobPoolError
from jobpool_cli.finding import by_age
from jobpool_cli.layout import TEMPORARY_PREFIX, PoolPaths, pools_folder
from jobpool_cli.store.manifest import Manifest
from jobpool_cli.store.ownership import others_rights
from jobpool_cli.supervisor.lock import is_held

LINGER = Path("/var/lib/systemd/linger")
# With fewer a pool of a hundred workers cannot start.
FEW_FILES = 512


def examine_machine(home: Path) -> Iterator[Finding]:
    """Look at the machine and at jobpool's home."""
    yield from _versions()
    yield from _limits()
    yield from _lingering()
    pools = pools_folder(home)
    if not home.exists():
        yield ok("home", f"{home} is not there yet; the first map makes it")
        return
    yield from _permissions(home, pools)
    yield from check_place(pools if pools.exists() else home)
    yield from _newest(home)
    yield from _leftovers(pools)


def _versions() -> Iterator[Finding]:
    import pyarrow as pa  # noqa: PLC0415

    from jobpool_cli.version import __version__  # noqa: PLC0415

    yield ok(
        "versions",
        f"jobpool {__version__}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version},"
        f" pyarrow {pa.__version__}, {platform.system()} {platform.release()}",
    )


def _limits() -> Iterator[Finding]:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= most < FEW_FILES:
        yield warn(
            "open files",
            f"a process may have {most} files open: enough for {max(0, most - 64) // 4} workers a pool",
            "raise it: ulimit -Hn, or LimitNOFILE of the service",
        )
    size, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if size != resource.RLIM_INFINITY:
        yield warn(
            "file size",
            f"files may grow to {size:,} bytes (ulimit -f): a pool that reaches that stops",
            "lift it before map: ulimit -f unlimited",
        )


def _lingering() -> Iterator[Finding]:
    """Where systemd ends a user's processes at logout, pools end, too."""
    import pwd  # noqa: PLC0415

    if os.geteuid() == 0 or not Path("/run/systemd/system").exists():
        return
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return
    if not (LINGER / name).exists():
        yield warn(
            "lingering",
            "it is off: where systemd is set to end a user's processes at logout (KillUserProcesses), pools end then,"
            " too, and are interrupted",
            "loginctl enable-linger; or, after logging in again: jobpool resume POOL",
        )


def _permissions(home: Path, pools: Path) -> Iterator[Finding]:
    for folder in (home, pools):
        if not folder.exists():
            continue
        found, name = folder.stat(), shlex.quote(str(folder))
        rights = others_rights(found)
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            yield bad("home", f"{folder} may not be read and written", f"see whose it is: ls -ld {name}")
        elif rights & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX:
            yield bad("home", f"others may write to {folder}, and could put code of theirs there", f"chmod go-w {name}")
        elif rights:
            yield warn(
                "home", f"others may look into {folder} (the pools in it are closed to them)", f"chmod 700 {name}"
            )
        else:
            yield ok("home", f"{folder} is yours alone")


def _newest(home: Path) -> Iterator[Finding]:
    created: list[datetime] = []
    for root in by_age(home):
        try:
            created.append(Manifest.read(root / "pool.json").created)
        except JobPoolError:
            continue
    if created:
        findings = list(check_clock(max(created), "the newest pool"))
        yield from findings or [ok("clock", f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, after the newest pool")]


def _leftovers(pools: Path) -> Iterator[Finding]:
    if not pools.exists():
        return
    left = [
        entry.name
        for entry in os.scandir(pools)
        if entry.name.startswith(TEMPORARY_PREFIX) and entry.is_dir() and not is_held(PoolPaths(Path(entry.path)).lock)
    ]
    if left:
        many = f"{len(left)} folders" if len(left) > 1 else "a folder"
        yield warn("leftovers", f"{many} of a killed map or rm in {pools}", "the next map removes them", repairs=True)
