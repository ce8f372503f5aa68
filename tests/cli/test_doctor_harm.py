"""``jobpool doctor --repair`` does no harm: not to other pools, not to what lies elsewhere, not to what it mends."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobpool_cli.doctor import salvage
from jobpool_cli.engines.processes import kill_marked
from jobpool_cli.errors import DamagedPoolError, MachineError
from jobpool_cli.model import TaskState
from jobpool_cli.pool import JobPool
from jobpool_cli.store import durable, ownership
from jobpool_cli.store.arguments import stored
from jobpool_cli.store.arguments.decoding import ENCODING, PICKLE
from jobpool_cli.store.manifest import Manifest
from tests.cli.test_doctor import bench, doctor, done, finished, overwrite, sql, troubles
from tests.helpers import Bench, check_invariants, marked, square, until

__all__ = ["bench", "done", "finished"]  # fixtures

# Its child has neither its output nor its session.
STARTS = """
def f(x: int) -> int:
    subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    _audit()
    _wait_for("go")
    return x * x
"""


@pytest.mark.parametrize("identity", ["", "detached", 7, "0" * 32])
def test_an_id_that_might_be_the_mark_of_others_is_damage(done: JobPool[Any], identity: object) -> None:
    content = json.loads(done.paths.pool_json.read_text())
    done.paths.pool_json.write_text(json.dumps({**content, "id": identity}))
    with pytest.raises(DamagedPoolError, match="garbles"):
        Manifest.read(done.paths.pool_json)


def test_nothing_is_repaired_where_a_link_leads_elsewhere(bench: Bench, done: JobPool[Any]) -> None:
    outside = bench.folder / "outside"
    outside.mkdir()
    (outside / "segment-000009.parquet").write_bytes(b"precious")
    done.paths.args.chmod(0o644)
    before = sorted(os.listdir(done.paths.root))
    shutil.move(done.paths.results, bench.folder / "results")
    done.paths.results.symlink_to(outside)
    told = doctor(bench, "pool", "--repair")
    assert told.code == 6
    assert "is a symbolic link" in told.err
    assert done.paths.args.stat().st_mode & 0o777 == 0o644
    assert sorted(os.listdir(done.paths.root)) == before
    assert os.listdir(outside) == ["segment-000009.parquet"]


def test_what_cannot_be_closed_to_others_is_named_and_the_rest_goes_on(
    bench: Bench, done: JobPool[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    done.paths.args.chmod(0o644)
    (done.paths.logs / "pipe").touch()
    (done.paths.logs / "pipe").chmod(0o644)
    fchmod = os.fchmod

    def refuse(fd: int, mode: int) -> None:
        if os.readlink(f"/proc/self/fd/{fd}").endswith("args.parquet"):
            raise PermissionError(errno.EPERM, "Operation not permitted")
        fchmod(fd, mode)

    monkeypatch.setattr(os, "fchmod", refuse)
    told = doctor(bench, "pool", "--repair")
    assert "args.parquet stays open to others: Operation not permitted" in told.out
    assert (done.paths.logs / "pipe").stat().st_mode & 0o777 == 0o600


def test_a_copy_of_a_running_pool_leaves_the_processes_of_the_original_alone(bench: Bench) -> None:
    pool = bench.map(STARTS, 2)
    until(lambda: len(bench.audit()) == 2 and len(marked(pool)) >= 4)
    running = set(marked(pool))
    copy = pool.paths.root.with_name("copy")
    shutil.copytree(pool.paths.root, copy)
    assert "processes" not in troubles(bench, "copy")
    assert "ended" not in doctor(bench, "copy", "--repair").out
    kill_marked(pool.manifest.id, copy / "logs")
    assert set(marked(pool)) == running
    bench.release("go")
    pool.follow()
    check_invariants(pool, square)


class Loud:
    """Unpickling it leaves a file."""

    def __init__(self, trace: Path) -> None:
        """Say which."""
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave it."""
        return Path.touch, (self.trace,)


def test_no_pickle_is_loaded_from_a_pool_to_which_others_may_write(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    field = pa.field("x", pa.binary(), metadata={ENCODING: PICKLE})
    table = pa.table([[pickle.dumps(Loud(trace))]], schema=pa.schema([field]))
    root = tmp_path / "home" / "pools" / "pool"
    root.mkdir(parents=True)
    path = root / "args.parquet"
    pq.write_table(table, path)
    path.chmod(0o600)
    root.chmod(0o770)
    (shown,) = stored.read_table(path)["x"].to_pylist()
    assert "not yours alone" in shown
    assert not trace.exists()
    root.chmod(0o700)
    stored.read_table(path)
    assert trace.exists()


def test_a_pool_whose_name_has_version_in_it_is_rebuilt(bench: Bench, done: JobPool[Any]) -> None:
    root = done.paths.root.rename(done.paths.root.with_name("conversion"))
    overwrite(root / "state.db", 0, 4096)
    assert troubles(bench, "conversion")["state.db"]["repairs"]
    assert doctor(bench, "conversion", "--repair").code == 0


def test_a_full_disk_stops_the_repair_before_anything_is_lost(
    bench: Bench, done: JobPool[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    overwrite(done.paths.state_db, 4096 * 4, 4096)
    before = done.paths.state_db.read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", full)
        told = doctor(bench, "pool", "--repair")
    assert told.code == 6
    assert "disk full" in told.err
    assert done.paths.state_db.read_bytes() == before
    assert not list(done.paths.root.glob(".tmp-*"))


def test_what_the_machine_refuses_of_a_segment_is_no_damage(
    done: JobPool[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = salvage._Whole(30)

    def ends(error: Exception) -> Any:
        def refuse(*_: object, **__: object) -> None:
            raise error

        return refuse

    for error, expected in ((OSError(errno.EMFILE, "x"), MachineError), (pa.lib.ArrowMemoryError(""), MemoryError)):
        monkeypatch.setattr(pq, "ParquetFile", ends(error))
        with pytest.raises(expected):
            list(salvage._take_segments(done.paths, known))
    monkeypatch.setattr(pq, "ParquetFile", ends(TypeError()))
    assert len(list(salvage._take_segments(done.paths, known))) == 2
    assert len(os.listdir(done.paths.aside)) == 2


def test_rows_of_a_wrong_type_are_dropped_and_counted(bench: Bench, done: JobPool[Any]) -> None:
    # As a database whose schema is not strict: damage writes what it likes.
    connection = sqlite3.connect(done.paths.state_db)
    (schema,) = connection.execute("SELECT sql FROM sqlite_schema WHERE name = 'failures'").fetchone()
    connection.execute("PRAGMA writable_schema = ON")
    loose = schema.replace(" STRICT", "").replace(") STRICT", ")")
    connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'failures'", (loose,))
    connection.commit()
    connection.close()
    sql(done, "UPDATE failures SET line = 'garbled', log_start = x'00'")
    assert any("were dropped: 1" in each.text for each in salvage.rebuild(done.paths, done.manifest))
    assert doctor(bench, "pool").code == 0
    assert done.snapshot().counts[TaskState.SUCCESS] == 29
    assert done.snapshot().counts[TaskState.PENDING] == 1


def test_what_a_killed_repair_left_goes_at_the_next_start(tmp_path: Path) -> None:
    left = tmp_path / ".tmp-0123-salvage"
    left.mkdir()
    (left / "state.db").touch()
    durable.remove_temporaries(tmp_path)
    assert not left.exists()


def test_paths_in_advice_can_be_pasted(tmp_path: Path) -> None:
    root = tmp_path / "my home" / "pools" / "pool"
    root.mkdir(parents=True)
    root.chmod(0o777)
    with pytest.raises(MachineError) as caught:
        ownership.check_alone(root)
    assert f"chmod -R go-w '{root}'" in caught.value.hint


@pytest.mark.usefixtures("done")
def test_a_trusted_link_to_a_home_that_others_may_write_to_is_warned_of(bench: Bench, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(bench.home)
    bench.home.chmod(0o777)
    with pytest.warns(UserWarning, match="may be written to by others"):
        ownership.check_readable(link / "pools" / "pool")
    bench.home.chmod(0o700)


def test_a_file_with_a_temporary_name_and_a_lock_that_is_a_folder_do_not_end_it(
    bench: Bench, done: JobPool[Any]
) -> None:
    (bench.home / "pools" / ".tmp-x").touch()
    assert doctor(bench).code == 0
    (bench.home / "pools" / ".tmp-x").unlink()
    done.paths.lock.unlink()
    done.paths.lock.mkdir()
    assert troubles(bench, "pool")["lock"]["mark"] == "bad"
    assert doctor(bench, "pool").code == 5
    assert doctor(bench, "pool", "--repair").code == 6


@pytest.mark.usefixtures("done")
def test_a_home_that_the_private_group_may_write_to_is_fine(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ownership, "_is_own_group", lambda *_: True)
    bench.home.chmod(0o770)
    assert "home" not in troubles(bench)
    bench.home.chmod(0o775)
    assert doctor(bench).code == 0
    bench.home.chmod(0o700)
