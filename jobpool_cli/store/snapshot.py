"""The user's code as it was submitted: a copy of the UDF's file, or a pickle of it, and the user's modules it imports.

A pool runs for weeks while its author goes on editing; what runs is what was submitted. Modules are found by reading
the source, never by running it; installed packages are the environment's business and are not copied.
"""

from __future__ import annotations

import ast
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from jobpool_cli.errors import DamagedPoolError, InputError, refused
from jobpool_cli.store.durable import make_folder, read_old, sync_folder, write_new

MANIFEST = "snapshot.json"
# Where a pickled function lies in its snapshot. Like the names below it is no module's, so none can be in its way.
PICKLE_FILE = "function.pickle"
LINES_FOLDER = "source-lines"


class Kind(StrEnum):
    """How a snapshot holds the function."""

    FILE = "file"  # a file that is run as a module of its own
    MODULE = "module"  # a module that is imported under its name
    PICKLE = "pickle"  # a pickle of the function, which imports what it refers to


class Snapshot(NamedTuple):
    """What a snapshot holds: one version of the user's function.

    Attributes:
        version: 1 for the code of `map`, rising with each `retry --udf`.
        kind: how it holds the function.
        path: the file that defines the function, as the user knows it; empty where there is none.
        function: the function's qualified name.
        module: the module that is imported, for ``Kind.MODULE``.
        sha256: of the file or the pickle that holds the function, hex.
        created: when the snapshot was taken (UTC).
        roots: folder in the snapshot (empty for its own) to the folder whose modules are copied there.
        sys_path: where the process that took the snapshot looks for modules; empty if that does not matter.
        lines: file name in tracebacks to the file of the snapshot that holds its text.
        main: the script that this process runs, the modules of which are called ``__main__``; empty if none.
        python: version of the Python that pickled the function.
        cloudpickle: version of the cloudpickle that did.
    """

    version: int
    kind: Kind
    path: str
    function: str
    module: str = ""
    sha256: str = ""
    created: datetime = datetime.min.replace(tzinfo=UTC)
    roots: Mapping[str, str] = {}
    sys_path: tuple[str, ...] = ()
    lines: Mapping[str, str] = {}
    main: str = ""
    python: str = ""
    cloudpickle: str = ""


def take_snapshot(path: Path, function: str, folder: Path, version: int) -> Snapshot:
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
    files = files_needed([(path.parent, path)], lambda _: path.parent)
    snapshot = Snapshot(version, Kind.FILE, str(path), function)
    return write_snapshot(folder, snapshot, files, main_file=path)


def write_snapshot(
    folder: Path,
    snapshot: Snapshot,
    files: Iterable[tuple[Path, Path]],
    contents: Mapping[str, bytes] | None = None,
    main_file: Path | None = None,
) -> Snapshot:
    """Write a snapshot's folder.

    Args:
        folder: where it goes; made if missing.
        snapshot: what it holds; its hash, its date and its roots are found here.
        files: (the folder it is imported from, file) of each Python file to copy.
        contents: further files by their names in the snapshot.
        main_file: the one of the files that holds the function; without it, ``PICKLE_FILE`` of the contents does.

    Raises:
        InputError: a file cannot be read.
        MachineError: the snapshot cannot be written.
    """
    roots: dict[Path, str] = {}
    whole = dict(contents or {})
    main = PICKLE_FILE
    for root, source in files:
        place = roots.setdefault(root, f"root-{len(roots) + 1}" if roots else "")
        relative = "/".join(filter(None, (place, source.relative_to(root).as_posix())))
        if source == main_file:
            main = relative
        try:
            whole[relative] = source.read_bytes()
        except OSError as error:
            raise InputError(f"{source} cannot be read: {error.strerror or error}") from error
    hashes = {relative: hashlib.sha256(content).hexdigest() for relative, content in whole.items()}
    _make_folder(folder)
    for relative, content in whole.items():
        target = folder / relative
        _make_folder(target.parent)
        _write(target, content)
    taken = snapshot._replace(
        sha256=hashes[main],
        created=datetime.now(UTC),
        roots={place: str(root) for root, place in roots.items()},
    )
    manifest = {**taken._asdict(), "created": taken.created.isoformat(), "files": hashes}
    _write(folder / MANIFEST, (json.dumps(manifest, indent=2) + "\n").encode())
    for written in {(folder / relative).parent for relative in hashes} | {folder}:
        sync_folder(written)
    return taken


def read_snapshot(folder: Path) -> Snapshot:
    """What a snapshot folder holds.

    Raises:
        DamagedPoolError: there is no readable snapshot.json.
    """
    manifest = _read_manifest(folder)
    try:
        return Snapshot(
            version=int(str(manifest["version"])),
            kind=Kind(str(manifest["kind"])),
            path=str(manifest["path"]),
            function=str(manifest["function"]),
            module=str(manifest["module"]),
            sha256=str(manifest["sha256"]),
            created=datetime.fromisoformat(str(manifest["created"])),
            roots=_places(manifest["roots"]),
            sys_path=tuple(_texts(manifest["sys_path"])),
            lines=_text_pairs(manifest["lines"]),
            main=str(manifest["main"]),
            python=str(manifest["python"]),
            cloudpickle=str(manifest["cloudpickle"]),
        )
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise DamagedPoolError(f"{folder / MANIFEST} is not what jobpool wrote: {error!r}") from error


def snapshot_files(folder: Path) -> dict[str, str]:
    """Relative path (with ``/``) to sha256, for every file of a snapshot."""
    files = _read_manifest(folder).get("files")
    if not isinstance(files, dict) or not files:
        raise DamagedPoolError(f"{folder / MANIFEST} is not what jobpool wrote: it names no files")
    for relative in files:
        # The manifest decides what is opened and run: it must not lead out of the folder.
        if not _is_inside(relative):
            raise DamagedPoolError(f"{folder / MANIFEST} names a file outside its folder: {relative!r}")
    return {str(name): str(digest) for name, digest in files.items()}


def verify_snapshot(folder: Path) -> None:
    """Check that the code is what was submitted.

    Raises:
        DamagedPoolError: a file of the snapshot is altered or missing.
    """
    for relative, digest in snapshot_files(folder).items():
        try:
            content = read_old(folder / relative)
        except OSError as error:
            raise DamagedPoolError(
                f"the snapshot of the code lost a file: {folder / relative}: {error.strerror or error}",
                "put the file back, or map again with the present code",
            ) from error
        if hashlib.sha256(content).hexdigest() != digest:
            raise DamagedPoolError(
                f"the snapshot of the code was altered since it was taken: {folder / relative}",
                "put the file back as it was; to run failed tasks with changed code, retry with --udf",
            )


def _read_manifest(folder: Path) -> dict[str, object]:
    """snapshot.json as it stands."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(read_old(path))
    except (OSError, ValueError, RecursionError) as error:
        raise DamagedPoolError(f"{path} cannot be read: {error}") from error
    if not isinstance(manifest, dict):
        raise DamagedPoolError(f"{path} is not what jobpool wrote: no JSON object")
    return manifest


def _text_pairs(found: object) -> dict[str, str]:
    if not isinstance(found, dict):
        raise TypeError(f"{found!r} is no object")
    return {str(name): str(value) for name, value in found.items()}


def _places(found: object) -> dict[str, str]:
    """The folders of a snapshot and where they are from; modules are imported from there, so none may lie elsewhere."""
    places = _text_pairs(found)
    for place in places:
        if place and not _is_inside(place):
            raise ValueError(f"{place!r} is no folder in it")
    return places


def _is_inside(relative: str) -> bool:
    parts = str(relative).split("/")
    return not {"", ".", ".."} & {*parts} and "\0" not in relative


def _texts(found: object) -> list[str]:
    if not isinstance(found, list):
        raise TypeError(f"{found!r} is no list")
    return list(map(str, found))


def _make_folder(folder: Path) -> None:
    """Make a folder, and its parents, for the user's eyes only."""
    try:
        for missing in reversed([each for each in (folder, *folder.parents) if not each.exists()]):
            make_folder(missing)
    except OSError as error:
        raise refused(error, f"{folder} cannot be made") from error


def _write(path: Path, content: bytes) -> None:
    """Write one file of the snapshot."""
    try:
        write_new(path, content)
    except OSError as error:
        raise refused(error, f"{path} cannot be written") from error


def files_needed(start: Iterable[tuple[Path, Path]], root_of: Callable[[str], Path | None]) -> list[tuple[Path, Path]]:
    """Return the files, then every module of the user's that they need, directly or through another.

    Args:
        start: (the folder it is imported from, file) of each file to begin with.
        root_of: the folder from which a top-level module of the user's is imported, None if it is no user's.
    """
    needed = dict.fromkeys(start)
    queue = list(needed)
    while queue:
        root, current = queue.pop()
        for dotted, base in _imports_of(current, root):
            home = base or root_of(dotted[0])
            for found in ((home, file) for file in resolve(dotted, home)) if home is not None else ():
                if found not in needed:
                    needed[found] = None
                    queue.append(found)
    return list(needed)


def _imports_of(path: Path, root: Path) -> Iterator[tuple[tuple[str, ...], Path | None]]:
    """Yield the dotted names that a file imports, wherever in it, and the root of those that are relative to it."""
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError, OSError):
        # A sibling that Python cannot parse fails when it is imported, with a better message than one from here.
        return
    package = path.relative_to(root).parts[:-1]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield tuple(alias.name.split(".")), None
        elif isinstance(node, ast.ImportFrom):
            base = tuple(node.module.split(".")) if node.module else ()
            if node.level:
                if node.level - 1 > len(package):
                    continue
                base = package[: len(package) - (node.level - 1)] + base
            for dotted in (base, *((*base, alias.name) for alias in node.names)):
                # `from package import name`: the name may be a submodule. Harmless if it is a mere attribute.
                if dotted:
                    yield dotted, root if node.level else None


def resolve(dotted: tuple[str, ...], root: Path) -> Iterator[Path]:
    """Files that importing one dotted name may run, or touch later."""
    if dotted[0] in sys.builtin_module_names:
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
