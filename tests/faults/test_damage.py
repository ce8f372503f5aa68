"""Damaged pools: what is read is right or refused, what is lost is named, and nothing is made worse."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults import inprocess, ledger
from tests.faults.harness import SQUARE, Faults

PAGE = 4096
READS: dict[str, list[str]] = {
    "status": [],
    "tasks": [],
    "results": [],
    "collect": [],
    "errors": [],
    "logs": [],
    "args": [],
    "wait": [],
    "tail": [],
    "is": ["done"],
    "debug": ["0"],
}
# What has nothing to do with the state.
STATELESS = {"args", "debug", "rm", "shutdown"}
ACTS: dict[str, list[str]] = {
    "resume": [],
    "retry": [],
    "cancel": [],
    "pause": [],
    "shutdown": [],
    "rm": ["--yes"],
    "doctor": [],
}


def words(verb: str, extra: list[str], name: str = "pool") -> list[str]:
    """Return a command's words, the pool in its place."""
    return [verb, name, *extra]


def contents(root: Path) -> dict[str, bytes]:
    """Return every file that a pool was made of."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and path.name not in {"state.db-shm", "state.db-wal", "supervisor.log"}
    }


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Overwrite a part of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def truncated(part: float) -> Callable[[Path], None]:
    """Return what cuts a file to a part of its length."""
    return lambda path: os.truncate(path, int(path.stat().st_size * part))


def replaced(data: bytes) -> Callable[[Path], None]:
    """Return what puts something else in a file's place."""

    def act(path: Path) -> None:
        path.write_bytes(data)

    return act


DAMAGES: dict[str, Callable[[Path], None]] = {
    "cut to half": truncated(0.5),
    "cut to a page": lambda path: os.truncate(path, PAGE),
    "cut by a byte": lambda path: os.truncate(path, path.stat().st_size - 1),
    "empty": truncated(0),
    "text": replaced(b"not a database, but long enough to be one\n" * 500),
    "header zeroed": lambda path: overwrite(path, 0, bytes(100)),
    "first page overwritten": lambda path: overwrite(path, 100, os.urandom(PAGE - 100)),
    "missing": Path.unlink,
}


@pytest.mark.scenario(12)
@pytest.mark.parametrize("damage", ledger.scaled(["cut to half", "header zeroed", "empty", "missing"], [*DAMAGES]))
def test_a_damaged_state_database_is_refused_by_every_verb_and_left_as_it_is(faults: Faults, damage: str) -> None:
    """Scenario 12: state.db truncated, overwritten, zeroed: exit 5, advice, no traceback, the original untouched."""
    pool = faults.map(SQUARE, 50, "--wait")
    faults.ended(pool)
    DAMAGES[damage](pool.paths.state_db)
    faults.injected()
    before = contents(pool.paths.root)
    for verb, extra in (READS | ACTS).items():
        if verb in STATELESS:
            continue
        told = inprocess.run(faults.home, *words(verb, extra))
        text = told.err + told.out
        assert told.code == 5, (verb, told)
        assert "state.db" in text, verb
        assert "doctor" in text or "copy" in text, verb
        assert contents(pool.paths.root) == before, verb
    assert "damaged" in inprocess.run(faults.home, "list").out
    # Once as a process of its own: no traceback there either.
    faults.jobpool("status", "pool", code=5)


@pytest.mark.scenario(12)
def test_a_page_overwritten_anywhere_is_noticed_by_whoever_needs_it_and_by_whoever_would_write(faults: Faults) -> None:
    """Scenario 12: each page of state.db overwritten in turn: a verb is right, or exits 5; resume does not begin."""
    pool = faults.map("def f(x: int) -> int:\n    return x // (x - 5)\n", 50, "--wait", code=1)
    faults.ended(pool)
    whole = pool.paths.state_db.read_bytes()
    (right,) = [faults.jobpool("status", "pool", "--json").stdout]
    results = faults.jobpool("results", "pool").stdout
    pages = range(len(whole) // PAGE)
    for page in list(pages)[ledger.scaled(1, 0) :: ledger.scaled(4, 1)]:
        overwrite(pool.paths.state_db, page * PAGE, os.urandom(PAGE))
        faults.injected()
        damaged = pool.paths.state_db.read_bytes()
        status = inprocess.run(faults.home, "status", "pool", "--json")
        assert status[:2] in {(0, right), (5, "")}, (page, status)
        read = inprocess.run(faults.home, "results", "pool")
        assert read[:2] in {(0, results), (5, "")}, (page, read)
        retried = inprocess.run(faults.home, "retry", "pool")
        assert retried.code == 5, (page, retried)
        assert pool.paths.state_db.read_bytes() == damaged, page
        for file in pool.paths.requests.iterdir():
            file.unlink()
        pool.paths.state_db.write_bytes(whole)
    faults.check(pool, None, audit=None)


OTHERS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    # what is damaged: which verbs refuse, which ones go on
    "pool.json": ("pool.json", (*READS, "resume", "retry"), ()),
    "args.parquet": ("args.parquet", ("args", "collect"), ("status", "results", "tasks", "errors", "logs")),
    "the snapshot": ("udf/v1/pool_job.py", ("debug",), ("status", "results", "collect", "tasks", "errors", "args")),
    "the snapshot's list": ("udf/v1/snapshot.json", ("debug",), ("status", "results", "collect", "tasks", "args")),
    "slots": ("slots", (), ("status", "results", "collect", "tasks", "args")),
    "lock": ("lock", (), ("status", "results", "collect", "tasks", "args")),
}


@pytest.mark.scenario(12)
@pytest.mark.parametrize("which", OTHERS)
def test_whichever_file_is_damaged_what_does_not_need_it_still_works(faults: Faults, which: str) -> None:
    """Scenario 12: pool.json, arguments, code, slots, lock: refused with exit 5 where it is needed, and only there."""
    pool = faults.map(SQUARE, 50, "--wait")
    faults.ended(pool)
    file, refusing, going_on = OTHERS[which]
    path = pool.paths.root / file
    whole = path.read_bytes()
    for data in (whole[: len(whole) // 2], b"", b"\xff\x00 something else\n" * 40):
        path.write_bytes(data)
        faults.injected()
        before = contents(pool.paths.root)
        for verb in refusing:
            told = inprocess.run(faults.home, *words(verb, (READS | ACTS)[verb]))
            assert told.code == 5, (verb, told)
            assert path.name in told.err, (verb, told)
        for verb in going_on:
            told = inprocess.run(faults.home, *words(verb, READS[verb]))
            assert told.code == 0, (verb, told)
        assert contents(pool.paths.root) == before
    path.write_bytes(whole)
    faults.check(pool)


# --- other versions


def set_pragma(path: Path, pragma: str, value: int) -> None:
    """Write a number into a database's header."""
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA {pragma} = {value}")
    connection.commit()
    connection.close()


@pytest.mark.scenario(15)
@pytest.mark.parametrize("what", ["pool.json", "state.db", "a foreign database"])
def test_a_pool_of_a_newer_format_is_refused_by_every_verb_with_both_versions_and_unchanged(
    faults: Faults, what: str
) -> None:
    """Scenario 15: a newer format version, a foreign application id: exit 5, both versions named."""
    pool = faults.map(SQUARE, 20, "--wait")
    faults.ended(pool)
    described, state = pool.paths.pool_json, pool.paths.state_db
    whole = described.read_bytes(), state.read_bytes()
    if what == "pool.json":
        described.write_bytes(described.read_bytes().replace(b'"format_version": 1', b'"format_version": 7'))
    elif what == "state.db":
        set_pragma(state, "user_version", 7)
    else:
        set_pragma(state, "application_id", 0x6D796462)
    named = {
        "pool.json": ("version 7", "version 1"),
        "state.db": ("version 7", "version 1"),
        "a foreign database": ("0x6d796462", "0x6a62706c"),
    }[what]
    faults.injected()
    before = contents(pool.paths.root)
    for verb, extra in (READS | ACTS).items():
        if what != "pool.json" and verb in STATELESS:
            continue
        told = inprocess.run(faults.home, *words(verb, extra))
        assert told.code == 5, (verb, told)
        for version in named:
            assert version in told.err + told.out, (verb, told)
        assert contents(pool.paths.root) == before, verb
    (line,) = faults.jobpool("list", "--json").stdout.splitlines()
    assert '"damaged"' in line
    assert named[0] in line
    described.write_bytes(whole[0])
    state.write_bytes(whole[1])
    faults.check(pool)
