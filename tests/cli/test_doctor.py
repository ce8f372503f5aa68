"""``jobpool doctor``: every kind of damage is found, told with what to do, and mended where nothing is lost by that."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jobpool_cli.engines.processes import MARK
from jobpool_cli.model import PoolState, TaskState
from jobpool_cli.pool import JobPool
from jobpool_cli.supervisor.lock import PoolLock
from tests.faults.inprocess import Told, run
from tests.helpers import Bench, check_invariants, kill_supervisor, square, until

# Half succeed, 3 fails, and what waits for "go" can be interrupted or cancelled.
MIXED = """
def f(x: int) -> int:
    if x == 3:
        raise ValueError("three")
    if x >= 20:
        _wait_for("go")
    return x * x
"""
TASKS = 30


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of a finished pool with a failure and two files of results, to be copied and damaged."""
    made = Bench(tmp_path_factory.mktemp("finished"))
    pool = made.map(MIXED, TASKS)
    until(lambda: pool.snapshot().counts[TaskState.SUCCESS] == 19)
    pool.shutdown(wait=False)
    made.release("go")
    pool.resume()
    pool.follow()
    until(lambda: not pool.is_live())
    yield pool.paths.root
    made.close()


@pytest.fixture
def done(bench: Bench, finished: Path) -> JobPool[Any]:
    """A copy of it in the test's own home."""
    root = bench.home / "pools" / "pool"
    root.parent.mkdir(parents=True, mode=0o700)
    bench.home.chmod(0o700)
    shutil.copytree(finished, root)
    bench.release("go")
    return JobPool(root)


def half_done(bench: Bench) -> JobPool[Any]:
    """A pool that is being worked on, and waits for "go" after 19 successes and a failure."""
    pool = bench.map(MIXED, TASKS)
    until(lambda: pool.snapshot().counts[TaskState.SUCCESS] == 19)
    return pool


def doctor(bench: Bench, *words: str) -> Told:
    return run(bench.home, "doctor", *words)


def findings(bench: Bench, *words: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in doctor(bench, *words, "--json").out.splitlines()]


def troubles(bench: Bench, *words: str) -> dict[str, dict[str, Any]]:
    """Return what is not ok, by its subject."""
    return {each["subject"]: each for each in findings(bench, *words) if each["mark"] != "ok"}


def sql(pool: JobPool[Any], *statements: str) -> None:
    connection = sqlite3.connect(pool.paths.state_db)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def overwrite(path: Path, offset: int, size: int) -> None:
    """Turn every bit: random bytes may happen to mean the same, in a page's header above all."""
    with path.open("r+b") as file:
        file.seek(offset)
        old = file.read(size)
        file.seek(offset)
        file.write(bytes(each ^ 0xFF for each in old))


@pytest.mark.usefixtures("done")
def test_of_a_pool_that_is_whole_every_line_begins_with_ok_and_the_exit_code_is_0(
    bench: Bench,
) -> None:
    told = doctor(bench, "pool")
    assert told.code == 0
    assert {line.split()[0] for line in told.out.splitlines()} == {"ok"}
    assert "29 results in 2 files can be read" in told.out
    for subject in ("pool.json", "args.parquet", "udf/v1", "state.db", "permissions", "supervisor"):
        assert any(line.split()[1] == subject for line in told.out.splitlines()), subject


@pytest.mark.usefixtures("done")
def test_json_has_a_line_for_each_thing_that_was_looked_at(bench: Bench) -> None:
    for found in findings(bench, "pool"):
        assert found.keys() == {"schema", "pool", "mark", "subject", "text", "advice", "repairs", "repaired"}
        assert (found["schema"], found["pool"]) == (1, "pool")


def test_a_pool_whose_supervisor_was_killed_is_interrupted_and_resume_is_advised(bench: Bench) -> None:
    pool = half_done(bench)
    kill_supervisor(pool)
    found = troubles(bench, "pool")
    assert "was killed" in found["supervisor"]["text"]
    assert "jobpool resume pool" in found["supervisor"]["advice"]
    assert doctor(bench, "pool").code == 0
    bench.release("go")
    pool.resume()
    pool.follow()
    check_invariants(pool, square)


def test_of_a_pool_that_is_being_worked_on_it_only_looks(bench: Bench) -> None:
    pool = half_done(bench)
    assert doctor(bench, "pool").code == 0
    told = doctor(bench, "pool", "--repair")
    assert told.code == 4
    assert "being worked on" in told.err
    bench.release("go")
    pool.follow()
    check_invariants(pool, square)


# --- what cannot be mended is named, with what to do


DAMAGES: dict[str, tuple[Callable[[JobPool[Any]], object], str, str]] = {
    "a page of a segment": (
        lambda pool: overwrite(next(pool.paths.results.iterdir()), 50, 20),
        "results/segment-00000",
        "retry --damaged pool",
    ),
    "the code": (
        lambda pool: next(pool.paths.udf_version(1).glob("*.py")).write_text("x"),
        "udf/v1",
        "retry with --udf",
    ),
    "the arguments": (lambda pool: overwrite(pool.paths.args, 20, 20), "args.parquet", "restore it from a copy"),
    "the arguments are gone": (lambda pool: pool.paths.args.unlink(), "args.parquet", "restore it from a copy"),
    "another pool's arguments": (
        lambda pool: pool.paths.pool_json.write_text(pool.paths.pool_json.read_text().replace(": 30,", ": 31,")),
        "args.parquet",
        "restore both",
    ),
    "pool.json": (lambda pool: pool.paths.pool_json.write_text("{"), "pool.json", ""),
    "a newer pool.json": (
        lambda pool: pool.paths.pool_json.write_text(
            pool.paths.pool_json.read_text().replace('"format_version": 1', '"format_version": 9')
        ),
        "pool.json",
        "a newer one",
    ),
    "a newer state.db": (lambda pool: sql(pool, "PRAGMA user_version = 9"), "state.db", "a newer one"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_cannot_be_mended_is_named_with_what_to_do_and_exit_code_5(
    bench: Bench, done: JobPool[Any], damage: str
) -> None:
    act, subject, advice = DAMAGES[damage]
    act(done)
    before = {path: path.read_bytes() for path in done.paths.root.rglob("*") if path.is_file()}
    assert doctor(bench, "pool").code == 5
    found = {name: each for name, each in troubles(bench, "pool").items() if name.startswith(subject)}
    assert {each["mark"] for each in found.values()} == {"bad"}
    assert all(advice in each["advice"] for each in found.values())
    # Trying to mend it all the same changes nothing.
    assert doctor(bench, "pool", "--repair").code == 5
    after = {path: path.read_bytes() for path in done.paths.root.rglob("*") if path.is_file()}
    assert {path: data for path, data in after.items() if not path.name.startswith("state.db-")} == {
        path: data for path, data in before.items() if not path.name.startswith("state.db-")
    }


def test_a_clock_that_was_ahead_is_told_of(bench: Bench, done: JobPool[Any]) -> None:
    text = done.paths.pool_json.read_text()
    year = done.manifest.created.year
    done.paths.pool_json.write_text(text.replace(f'"created": "{year}', f'"created": "{year + 5}'))
    assert "from now" in troubles(bench, "pool")["clock"]["text"]
    assert doctor(bench, "pool").code == 0
    assert "newest pool" in troubles(bench)["clock"]["text"]


# --- what can be mended


def test_leftovers_are_removed_and_rights_of_others_taken_away(bench: Bench, done: JobPool[Any]) -> None:
    (done.paths.results / ".tmp-0123-segment.parquet").write_bytes(b"half")
    done.paths.args.chmod(0o644)
    done.paths.logs.chmod(0o755)
    found = troubles(bench, "pool")
    assert "rights to args.parquet" in found["permissions"]["text"]
    assert found["permissions"]["repairs"]
    assert any(".tmp-" in subject for subject in found)
    assert doctor(bench, "pool").code == 0
    assert doctor(bench, "pool", "--repair").code == 0
    assert not troubles(bench, "pool")
    assert done.paths.args.stat().st_mode & 0o777 == 0o600
    assert done.paths.logs.stat().st_mode & 0o777 == 0o700
    check_invariants(done, square)


def test_processes_that_run_on_without_a_supervisor_are_ended(bench: Bench, done: JobPool[Any]) -> None:
    stray = subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(600)"],
        env={**os.environ, MARK: f"{done.manifest.id}:1"},
        start_new_session=True,
    )
    try:
        until(lambda: "processes" in troubles(bench, "pool"))
        assert doctor(bench, "pool").code == 5
        assert doctor(bench, "pool", "--repair").code == 0
        assert stray.wait(10) == -signal.SIGKILL
    finally:
        stray.kill()
        stray.wait()


def test_a_file_of_results_that_the_state_does_not_know_is_moved_aside(bench: Bench, done: JobPool[Any]) -> None:
    stray = done.paths.segment(9)
    stray.write_bytes(next(done.paths.results.iterdir()).read_bytes())
    assert "does not know" in troubles(bench, "pool")["results/segment-000009.parquet"]["text"]
    assert doctor(bench, "pool", "--repair").code == 0
    assert (done.paths.aside / stray.name).exists()
    assert not troubles(bench, "pool")
    check_invariants(done, square)


def test_wrong_counters_are_counted_anew(bench: Bench, done: JobPool[Any]) -> None:
    before = done.snapshot().counts
    sql(done, "UPDATE counters SET success = 28, error = 2")
    assert doctor(bench, "pool").code == 5
    assert "it counts 2 tasks as error" in troubles(bench, "pool")["state.db"]["text"]
    assert doctor(bench, "pool", "--repair").code == 0
    assert done.snapshot().counts == before
    check_invariants(done, square)


STATES: dict[str, Callable[[Path], object]] = {
    "header zeroed": lambda path: path.write_bytes(bytes(100) + path.read_bytes()[100:]),
    "first page lost": lambda path: overwrite(path, 0, 4096),
    "a page in the middle": lambda path: overwrite(path, 4096 * 4, 4096),
    "cut to half": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "missing": lambda path: path.unlink(),
    "text": lambda path: path.write_text("nothing like a database\n" * 300),
}


@pytest.mark.parametrize("damage", STATES)
def test_a_damaged_state_database_is_rebuilt_from_the_results_and_the_old_one_is_kept(
    bench: Bench, done: JobPool[Any], damage: str
) -> None:
    path = done.paths.state_db
    STATES[damage](path)
    old = path.read_bytes() if path.exists() else None
    assert doctor(bench, "pool").code == 5
    told = doctor(bench, "pool", "--repair")
    assert told.code == 0, told
    assert "29 successes proved by their results" in told.out
    kept = [each.read_bytes() for each in done.paths.aside.rglob("state.db")] if old is not None else [old]
    assert kept == [old]
    status = done.snapshot()
    assert status.counts[TaskState.SUCCESS] == 29
    # The failure is known where its row could be read; elsewhere its task is pending, and is said to be.
    assert status.counts[TaskState.ERROR] + status.counts[TaskState.PENDING] == 1
    if status.counts[TaskState.PENDING]:
        assert "pending now, since nothing is known of them: task 3" in told.out
        assert status.state is PoolState.INTERRUPTED
        done.resume()
        done.follow()
    check_invariants(done, square)


def test_an_interrupted_pool_is_rebuilt_with_the_results_that_were_not_sealed(bench: Bench) -> None:
    pool = half_done(bench)
    kill_supervisor(pool)
    # Folded in, so that what is damaged next is not in the log.
    sql(pool, "PRAGMA wal_checkpoint(TRUNCATE)")
    overwrite(pool.paths.state_db, 0, 4096)
    told = doctor(bench, "pool", "--repair")
    assert told.code == 0, told
    assert pool.snapshot().counts[TaskState.SUCCESS] == 19
    assert pool.snapshot().counts[TaskState.ERROR] == 1
    bench.release("go")
    pool.resume()
    pool.follow()
    check_invariants(pool, square)


def test_a_repair_that_is_killed_between_two_steps_is_done_again(bench: Bench, done: JobPool[Any]) -> None:
    """The damaged database is in aside, the new one is not in place yet."""
    overwrite(done.paths.state_db, 4096 * 4, 4096)
    place = done.paths.aside / "state.db-0a0b0c"
    place.mkdir(parents=True)
    done.paths.state_db.rename(place / "state.db")
    (done.paths.root / ".tmp-0123-state.db").write_bytes(b"half")
    told = doctor(bench, "pool", "--repair")
    assert told.code == 0, told
    assert "a copy in aside" in told.out
    assert done.snapshot().counts[TaskState.SUCCESS] == 29
    check_invariants(done, square)


def test_the_lock_is_held_while_it_mends(bench: Bench, done: JobPool[Any]) -> None:
    lock = PoolLock(done.paths.lock)
    try:
        assert doctor(bench, "pool", "--repair").code == 4
    finally:
        lock.release()


# --- what it leaves alone


def test_repair_of_a_copy_of_a_running_pool_leaves_the_original_its_workers(bench: Bench) -> None:
    pool = half_done(bench)
    shutil.copytree(pool.paths.root, bench.home / "pools" / "copy")
    assert "processes" not in troubles(bench, "copy")
    doctor(bench, "copy", "--repair")
    bench.release("go")
    pool.follow()
    assert {failure.type for failure in pool.failures(history=True)} == {"ValueError"}


def test_repair_touches_nothing_that_a_link_leads_to(bench: Bench, done: JobPool[Any], tmp_path: Path) -> None:
    elsewhere = tmp_path / "documents"
    elsewhere.mkdir()
    (elsewhere / ".tmp-mine").write_text("mine")
    (elsewhere / "segment-000009.parquet").write_text("mine")
    shutil.rmtree(done.paths.results)
    done.paths.results.symlink_to(elsewhere)
    told = doctor(bench, "pool", "--repair")
    assert told.code == 6
    assert "symbolic link" in told.err
    assert {path.name for path in elsewhere.iterdir()} == {".tmp-mine", "segment-000009.parquet"}


def test_a_pool_may_have_any_name_and_be_mended(bench: Bench, done: JobPool[Any]) -> None:
    root = done.paths.root.rename(bench.home / "pools" / "conversion")
    overwrite(root / "state.db", 0, 4096)
    assert doctor(bench, "conversion", "--repair").code == 0
    check_invariants(JobPool(root))


def test_a_row_that_holds_something_of_a_wrong_type_is_left_out_of_what_is_rebuilt(
    bench: Bench, done: JobPool[Any]
) -> None:
    connection = sqlite3.connect(done.paths.state_db)
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute("UPDATE sqlite_schema SET sql = replace(sql, 'STRICT', '')")
    connection.commit()
    connection.close()
    sql(done, "UPDATE failures SET started = 'yesterday'")
    overwrite(done.paths.state_db, 0, 16)
    assert "rebuilt" in doctor(bench, "pool", "--repair").out
    assert doctor(bench, "pool").code == 0
    assert done.snapshot().counts[TaskState.PENDING] == 1


# --- the machine and all pools


def test_without_a_pool_it_tells_of_the_machine_and_of_each_pool_in_a_line(bench: Bench, done: JobPool[Any]) -> None:
    told = doctor(bench)
    assert told.code == 0
    subjects = [line.split()[1] for line in told.out.splitlines()]
    assert subjects[0] == "versions"
    assert subjects[-1] == "pool"
    assert {"home", "disk", "clock"} <= set(subjects)
    overwrite(next(done.paths.results.iterdir()), 50, 20)
    told = doctor(bench)
    assert told.code == 5
    assert "jobpool doctor pool" in told.out.splitlines()[-1]


def test_a_home_that_is_not_there_yet_is_no_trouble(tmp_path: Path) -> None:
    told = run(tmp_path / "nothing", "doctor")
    assert told.code == 0
    assert "the first map makes it" in told.out


@pytest.mark.usefixtures("done")
def test_a_home_to_which_others_may_write_is_bad_and_exit_code_6(bench: Bench) -> None:
    bench.home.chmod(0o777)
    told = doctor(bench)
    assert told.code == 6
    assert f"chmod go-w {bench.home}" in told.out
    bench.home.chmod(0o700)


@pytest.mark.usefixtures("done")
def test_what_a_killed_map_left_is_told_of_and_removed(bench: Bench) -> None:
    left = bench.home / "pools" / ".tmp-0123456789ab"
    left.mkdir()
    os.utime(left, (0, 0))
    assert "killed map or rm" in troubles(bench)["leftovers"]["text"]
    assert doctor(bench, "--repair").code == 0
    assert not left.exists()


def test_a_network_file_system_is_recognised_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jobpool_cli.doctor import places  # noqa: PLC0415

    monkeypatch.setattr(places, "_kind_of", lambda _: "nfs4")
    assert any("network file system (nfs4)" in each.text for each in places.check_place(tmp_path))


def test_there_is_no_such_pool(bench: Bench) -> None:
    assert doctor(bench, "none").code == 3
