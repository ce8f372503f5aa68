"""Whose a pool is, and who else could have changed it.

A pool's code and pickles run with the rights of whoever loads them. So they are loaded only from a pool that belongs to
the user, and that nobody else may write to: ``check_alone`` is the one place that decides. Plain state may be read from
any pool that the machine lets one read; ``check_readable`` refuses what would lead elsewhere, and warns.
"""

from __future__ import annotations

import contextlib
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from jobpool_cli.errors import MachineError, PoolWarning

ROOT_USER = 0
# Without these not even the status can be told.
_NEEDED = ("pool.json", "lock", "state.db")
_OTHERS = 0o002
_GROUP = 0o020


class Flaw(NamedTuple):
    """Why a pool is not one user's alone: a path, what is wrong with it, and what mends it."""

    path: Path
    what: str
    remedy: str
    is_link: bool = False


def check_readable(root: Path) -> None:
    """Make sure that a pool's folder can be looked at and leads nowhere else; warn if others may write to it.

    Costs a look at each entry of the folder.

    Raises:
        MachineError: it is another user's, or holds a symbolic link.
    """
    try:
        flaw = _first(_of_places(root), _of_entries(root, deep=False))
    except FileNotFoundError:
        return  # whoever reads on says what is missing
    except PermissionError:
        raise not_yours(root) from None
    if flaw is not None and flaw.is_link:
        raise _refusal(root, flaw)
    for path in (root / name for name in _NEEDED):
        if path.exists() and not os.access(path, os.R_OK):
            raise not_yours(path)
    if flaw is not None:
        warnings.warn(
            f"{flaw.path} {flaw.what}: what this pool says may not be true; {flaw.remedy}", PoolWarning, stacklevel=4
        )


def check_owner(root: Path) -> None:
    """Make sure that a pool is the user's own.

    Raises:
        MachineError: it belongs to another user.
    """
    owner = os.lstat(root).st_uid
    if owner != os.geteuid():
        raise MachineError(
            f"{root.name} belongs to {_user(owner)}, and you are {_user(os.geteuid())}",
            "its code and its pickles run with the rights of whoever loads them; let its owner do this",
        )


def check_alone(root: Path) -> None:
    """Make sure that a pool is the user's own and that nobody else may write to any part of it.

    Raises:
        MachineError: it is not; nothing of it may be run or unpickled.
    """
    try:
        check_owner(root)
        flaw = _first(_of_places(root), _of_entries(root, deep=True))
    except OSError as error:
        raise MachineError(f"{error.filename or root} cannot be looked at: {error.strerror or error}") from error
    if flaw is not None:
        raise _refusal(root, flaw)


def is_alone(root: Path) -> bool:
    """Return whether ``check_alone`` would pass."""
    try:
        check_alone(root)
    except MachineError:
        return False
    return True


def check_no_links(root: Path) -> None:
    """Make sure that a pool's folder holds no symbolic link, at any depth.

    Raises:
        MachineError: it does.
    """
    flaw = next((flaw for flaw in _of_entries(root, deep=True) if flaw.is_link), None)
    if flaw is not None:
        raise _refusal(root, flaw)


def check_place(pools: Path) -> None:
    """Make sure that nobody else can put something into the place of the user's pools, before one is made there.

    Raises:
        MachineError: others may write to the home or to the folder of the pools, or a link of theirs leads there.
    """
    flaw = next(_of_folders(pools, os.geteuid()), None)
    if flaw is not None:
        raise MachineError(
            f"{flaw.path} {flaw.what}: a pool there could be altered by others",
            f"{flaw.remedy}, or choose another home",
        )


def check_links(pools: Path) -> None:
    """Make sure that the home and the folder of the pools are no links that somebody else has put there.

    Raises:
        MachineError: one is.
    """
    for folder in (pools.parent, pools):
        follow(folder)


def follow(path: Path) -> Path:
    """Return what a symbolic link leads to, or the path itself; only links that can be trusted are followed.

    Those are the user's own, root's, and those of whoever owns the folder that they lie in: nobody else could have put
    them there. It is what Linux does in sticky folders (``fs.protected_symlinks``), wherever it is set.

    Raises:
        MachineError: somebody else has put the link there, or links lead in a circle.
    """
    for _ in range(40):
        try:
            found = os.lstat(path)
        except OSError:
            return path
        if not stat.S_ISLNK(found.st_mode):
            return path
        if found.st_uid not in {os.geteuid(), ROOT_USER, os.stat(path.parent).st_uid}:
            raise MachineError(
                f"{path} is a symbolic link that {_user(found.st_uid)} has put there, to {os.readlink(path)}",
                "it is not followed: choose another place, or a folder to which nobody else may write",
            )
        target = path.parent / os.readlink(path)
        if not os.path.lexists(target) and path.exists():
            return path  # a descriptor in /proc: what /dev/stdout leads to
        path = target
    raise MachineError(f"{path} is a symbolic link that leads in a circle", "choose another place")


def not_a_folder(root: Path) -> MachineError:
    """Say that a symbolic link has the name of a pool."""
    return MachineError(
        f"{root} is a symbolic link, and a pool is a folder of its own",
        f"remove the link (rm {_quoted(root)}), or keep all pools elsewhere: --home, JOBPOOL_HOME",
    )


# --- what can be wrong


def _first(*flaws: Iterator[Flaw]) -> Flaw | None:
    """A link first of all: it decides what else is looked at."""
    found = [flaw for each in flaws for flaw in each]
    return next((flaw for flaw in found if flaw.is_link), found[0] if found else None)


def _of_places(root: Path) -> Iterator[Flaw]:
    found = os.lstat(root)
    if stat.S_ISLNK(found.st_mode):
        yield Flaw(root, "is a symbolic link", f"remove it: rm {_quoted(root)}", is_link=True)
    yield from _of_folders(root.parent, found.st_uid)


def _of_folders(pools: Path, owner: int) -> Iterator[Flaw]:
    """What is wrong with the folder of the pools and the home: who may write there can exchange a whole pool."""
    for folder in (pools.parent, pools):
        try:
            found = os.stat(follow(folder))
        except FileNotFoundError:
            continue
        if found.st_uid not in {owner, ROOT_USER}:
            yield Flaw(folder, f"belongs to {_user(found.st_uid)}", "let them be of one owner")
        elif not found.st_mode & stat.S_ISVTX and others_rights(found) & (_GROUP | _OTHERS):
            yield Flaw(folder, "may be written to by others", f"take that right away: chmod go-w {_quoted(folder)}")


def others_rights(folder: os.stat_result) -> int:
    """Return the bits of a folder's mode that give others a right; a group of the owner alone is nobody else."""
    rights = folder.st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    if rights & stat.S_IRWXG and _is_own_group(folder.st_uid, folder.st_gid):
        rights &= stat.S_IRWXO
    return rights


def _is_own_group(user: int, group: int) -> bool:
    """Whether a group is the private one of a user, as many systems make one for each (with the umask 002)."""
    import grp  # noqa: PLC0415 - these two seldom, and they may ask a server
    import pwd  # noqa: PLC0415

    try:
        person, found = pwd.getpwuid(user), grp.getgrgid(group)
    except KeyError:
        return False
    return person.pw_gid == group and person.pw_name == found.gr_name and set(found.gr_mem) <= {person.pw_name}


def _of_entries(root: Path, *, deep: bool) -> Iterator[Flaw]:
    """What is wrong with the pool's folder and what is in it."""
    pool = os.lstat(root)
    yield from _of_entry(root, root, pool, pool.st_uid)
    folders = [os.fspath(root)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                try:
                    found = entry.stat(follow_symlinks=False)
                except FileNotFoundError:  # a temporary file that was renamed this moment
                    continue
                # Nearly all are in order, and there may be thousands.
                if stat.S_ISLNK(found.st_mode) or found.st_uid != pool.st_uid or found.st_mode & (_GROUP | _OTHERS):
                    yield from _of_entry(root, Path(entry.path), found, pool.st_uid)
                if deep and stat.S_ISDIR(found.st_mode):
                    folders.append(entry.path)


def _of_entry(root: Path, path: Path, found: os.stat_result, owner: int) -> Iterator[Flaw]:
    if stat.S_ISLNK(found.st_mode):
        remedy = f"a pool has none: put back what was there, or remove it: rm {_quoted(path)}"
        yield Flaw(path, "is a symbolic link", remedy, is_link=True)
    elif found.st_uid not in {owner, ROOT_USER}:
        yield Flaw(path, f"belongs to {_user(found.st_uid)}", f"see how it came there: ls -l {_quoted(path.parent)}")
    elif found.st_mode & (_GROUP | _OTHERS):
        yield Flaw(path, "may be written to by others", f"take that right away: chmod -R go-w {_quoted(root)}")


# --- what is said


def _refusal(root: Path, flaw: Flaw) -> MachineError:
    return MachineError(
        f"{root.name} is not used as it stands: {flaw.path} {flaw.what}",
        f"others could have altered what would run with your rights; {flaw.remedy}",
    )


def not_yours(path: Path) -> MachineError:
    """Say whose it is that may not be read; where that cannot be seen, whose the nearest folder above it is."""
    whose = ""
    for each in (path, *path.parents):
        with contextlib.suppress(OSError):
            whose = f": it belongs to {_user(os.lstat(each).st_uid)}"
            break
    return MachineError(f"{path} may not be read{whose}", "a pool is for its owner alone; ask them for the results")


def _quoted(path: Path) -> str:
    """Return a path as a shell takes it: in advice, it stands in a command."""
    import shlex  # noqa: PLC0415 - only where something is wrong

    return shlex.quote(str(path))


def _user(number: int) -> str:
    import pwd  # noqa: PLC0415 - as above

    try:
        return f"user {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"user {number}"
