"""The user's code as it was submitted: a copy of the UDF's file and of the sibling modules that it imports.

A pool runs for weeks while its author goes on editing; what runs is what was submitted. Only modules beside the file
are copied (found by reading the source, never by running it): installed packages are the environment's business.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from jobpool_cli.errors import DamagedPoolError, InputError, MachineError
from jobpool_cli.layout import FOLDER_MODE
from jobpool_cli.model import UdfSource
from jobpool_cli.store.durable import sync_folder, write_new

MANIFEST = "snapshot.json"


def take_snapshot(path: Path, function: str, folder: Path, version: int) -> UdfSource:
    """Copy the UDF's file and the siblings that it imports into a folder, and write down what was copied.

    Args:
        path: the user's file.
        function: the UDF's name in it.
        folder: where the copy goes; made if missing.
        version: the number of this snapshot in its pool.
    """
    # Absolute but not resolved: a script that is a symbolic link finds its siblings beside the name that was given,
    # and that name is what the user knows.
    path = path.absolute()
    root = path.parent
    hashes: dict[str, str] = {}
    _make_folder(folder)
    for source in _files_needed(path, root):
        relative = source.relative_to(root).as_posix()
        try:
            content = source.read_bytes()
        except OSError as error:
            raise InputError(f"{source} cannot be read: {error.strerror or error}") from error
        target = folder / relative
        _make_folder(target.parent)
        _write(target, content)
        hashes[relative] = hashlib.sha256(content).hexdigest()
    taken = UdfSource(
        version=version, path=str(path), function=function, sha256=hashes[path.name], created=datetime.now(UTC)
    )
    manifest = {
        "version": version,
        "path": taken.path,
        "function": function,
        "sha256": taken.sha256,
        "created": taken.created.isoformat(),
        "files": hashes,
    }
    _write(folder / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
    for written in {(folder / relative).parent for relative in hashes} | {folder}:
        sync_folder(written)
    return taken


def read_snapshot(folder: Path) -> UdfSource:
    """What a snapshot folder holds.

    Raises:
        DamagedPoolError: there is no readable snapshot.json.
    """
    manifest = _read_manifest(folder)
    try:
        return UdfSource(
            version=int(str(manifest["version"])),
            path=str(manifest["path"]),
            function=str(manifest["function"]),
            sha256=str(manifest["sha256"]),
            created=datetime.fromisoformat(str(manifest["created"])),
        )
    except (KeyError, ValueError) as error:
        raise DamagedPoolError(f"{folder / MANIFEST} is not what jobpool wrote: {error!r}") from error


def snapshot_files(folder: Path) -> dict[str, str]:
    """Relative path (with ``/``) to sha256, for every file of a snapshot."""
    files = _read_manifest(folder).get("files")
    if not isinstance(files, dict) or not files:
        raise DamagedPoolError(f"{folder / MANIFEST} is not what jobpool wrote: it names no files")
    for relative in files:
        # The manifest decides what is opened and run: it must not lead out of the folder.
        parts = str(relative).split("/")
        if ".." in parts or "" in parts:
            raise DamagedPoolError(f"{folder / MANIFEST} names a file outside its folder: {relative!r}")
    return {str(name): str(digest) for name, digest in files.items()}


def verify_snapshot(folder: Path) -> None:
    """Check that the code is what was submitted.

    Raises:
        DamagedPoolError: a file of the snapshot is altered or missing.
    """
    for relative, digest in snapshot_files(folder).items():
        try:
            content = (folder / relative).read_bytes()
        except OSError as error:
            raise DamagedPoolError(
                f"the snapshot of the code lost a file: {folder / relative}: {error.strerror or error}",
                "put the file back, or map again with the present code",
            ) from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise DamagedPoolError(
                f"the snapshot of the code was altered since it was taken: {folder / relative}",
                "to run changed code in this pool, retry with --udf",
            )


def _read_manifest(folder: Path) -> dict[str, object]:
    """snapshot.json as it stands."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DamagedPoolError(f"{path} cannot be read: {error}") from error
    if not isinstance(manifest, dict):
        raise DamagedPoolError(f"{path} is not what jobpool wrote: no JSON object")
    return manifest


def _make_folder(folder: Path) -> None:
    """Make a folder, and its parents, for the user's eyes only."""
    try:
        for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
            missing.mkdir(mode=FOLDER_MODE, exist_ok=True)
    except OSError as error:
        raise MachineError(f"{folder} cannot be made: {error.strerror or error}") from error


def _write(path: Path, content: bytes) -> None:
    """Write one file of the snapshot."""
    try:
        write_new(path, content)
    except OSError as error:
        raise MachineError(f"{path} cannot be written: {error.strerror or error}") from error


def _files_needed(path: Path, root: Path) -> list[Path]:
    """The file, then every sibling that it needs, directly or through another sibling."""
    needed: dict[Path, None] = {path: None}
    queue = [path]
    while queue:
        current = queue.pop()
        for found in _siblings_imported(current, root):
            if found not in needed:
                needed[found] = None
                queue.append(found)
    return list(needed)


def _siblings_imported(path: Path, root: Path) -> Iterator[Path]:
    """Files under ``root`` that the imports of one file lead to, wherever in the file they stand."""
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError, OSError):
        # A sibling that Python cannot parse fails when it is imported, with a better message than one from here.
        return
    package = path.relative_to(root).parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _resolve(tuple(alias.name.split(".")), root)
        elif isinstance(node, ast.ImportFrom):
            base = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                if node.level - 1 > len(package):
                    continue
                base = package[: len(package) - (node.level - 1)] + base
            yield from _resolve(base, root)
            for alias in node.names:
                # `from package import name`: the name may be a submodule. Harmless if it is a mere attribute.
                yield from _resolve((*base, alias.name), root)


def _resolve(dotted: tuple[str, ...], root: Path) -> Iterator[Path]:
    """Files that importing one dotted name may run, or touch later."""
    if not dotted or dotted[0] in sys.builtin_module_names:
        return
    for depth in range(1, len(dotted) + 1):
        place = root.joinpath(*dotted[:depth])
        if (place / "__init__.py").is_file():
            # A whole package: its modules may be imported by computed names.
            yield from _package_files(place)
        elif place.with_name(place.name + ".py").is_file():
            yield place.with_name(place.name + ".py")


def _package_files(package: Path) -> Iterator[Path]:
    """Every Python file of a package, leaving out caches and hidden folders."""
    for each in sorted(package.iterdir()):
        if each.name.startswith(".") or each.name == "__pycache__":
            continue
        # A link to a folder may lead in a circle; the import system follows it, the copy need not.
        if each.is_dir() and not each.is_symlink():
            yield from _package_files(each)
        elif each.suffix == ".py" and each.is_file():
            yield each
