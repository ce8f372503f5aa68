"""A file is written whole or not at all."""

import csv
import errno
import io
import json
import math
import os
import signal
import stat
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobpool_cli.errors import MachineError, UsageError
from jobpool_cli.store.outcomes.export import export, format_of

TABLE = pa.table({"n": [1, 2], "s": ["a", None]})


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("a.parquet", None, "parquet"),
        ("a.CSV", None, "csv"),
        ("a.tsv", None, "tsv"),
        ("a.jsonl", None, "jsonl"),
        ("a.b.ndjson", None, "jsonl"),
        ("a.txt", "csv", "csv"),
        ("a.csv", "parquet", "parquet"),
        (None, None, "csv"),
        (None, "jsonl", "jsonl"),
    ],
)
def test_the_format_is_the_given_one_or_that_of_the_suffix(name: str | None, given: str | None, expected: str) -> None:
    assert format_of(None if name is None else Path(name), given) == expected


@pytest.mark.parametrize(("name", "given"), [("a.xlsx", None), ("a", None), ("a.csv", "xlsx")])
def test_an_unknown_format_is_refused_with_those_that_are_known(name: str, given: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        format_of(Path(name), given)
    assert "jsonl" in caught.value.hint


@pytest.mark.parametrize("form", ["parquet", "csv", "tsv", "jsonl"])
def test_a_table_reads_back(tmp_path: Path, form: str) -> None:
    target = tmp_path / f"out.{form}"
    export(TABLE, target, form)
    readers: dict[str, Any] = {
        "parquet": pd.read_parquet,
        "csv": pd.read_csv,
        "tsv": lambda path: pd.read_csv(path, sep="\t"),
        "jsonl": lambda path: pd.read_json(path, lines=True),
    }
    found = readers[form](target)
    assert found["n"].tolist() == [1, 2]
    assert found["s"].tolist()[0] == "a"
    assert pd.isna(found["s"][1])
    assert names_in(tmp_path) == [target.name]


def test_parquet_keeps_the_schema_and_its_metadata(tmp_path: Path) -> None:
    table = TABLE.replace_schema_metadata({"k": "v"})
    export(table, tmp_path / "out.parquet", "parquet")
    assert pq.read_table(tmp_path / "out.parquet").equals(table, check_metadata=True)


@given(st.lists(st.tuples(st.none() | st.text(st.characters(codec="utf-8")), st.none() | st.floats()), min_size=1))
def test_texts_and_floats_are_exact_in_csv_and_jsonl(rows: list[tuple[str | None, float | None]]) -> None:
    table = pa.table({"s": pa.array([row[0] for row in rows], pa.string()), "f": [row[1] for row in rows]})
    text = printed(table, "csv")
    cells = list(csv.reader(io.StringIO(text, newline="")))[1:]
    assert [cell[0] for cell in cells] == [row[0] or "" for row in rows]
    assert [cell[1] for cell in cells] == ["" if row[1] is None else repr(row[1]) for row in rows]
    lines = [json.loads(line) for line in printed(table, "jsonl").split("\n")[:-1]]
    assert [line["s"] for line in lines] == [row[0] for row in rows]
    finite = [row[1] if row[1] is None or math.isfinite(row[1]) else ... for row in rows]
    assert [line["f"] if wanted is not ... else ... for line, wanted in zip(lines, finite, strict=True)] == finite


def printed(table: pa.Table, form: str) -> str:
    class Stdout:
        buffer = io.BytesIO()

    original, sys.stdout = sys.stdout, Stdout()
    try:
        Stdout.buffer = io.BytesIO()
        export(table, None, form)
        return Stdout.buffer.getvalue().decode()
    finally:
        sys.stdout = original


def test_csv_tells_an_empty_text_from_a_missing_one() -> None:
    table = pa.table({"s": ["", None, 'say "hi"', "a,b", "two\nlines"], "n": [1, 2, 3, 4, 5]})
    assert printed(table, "csv") == 's,n\n"",1\n,2\n"say ""hi""",3\n"a,b",4\n"two\nlines",5\n'
    assert printed(pa.table({"s": ["a", None]}), "csv") == 's\na\n""\n'


def test_other_types_are_iso_or_json() -> None:
    row: dict[str, Any] = {
        "day": date(2026, 1, 2),
        "at": datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
        "span": timedelta(seconds=1.5),
        "flag": True,
        "list": [1, None],
        "dict": {"k": "é"},
        "raw": b"\xff",
    }
    table = pa.Table.from_pylist([row])
    assert printed(table, "csv").split("\n")[1] == (
        '2026-01-02,2026-01-02T03:04:05.000006Z,1.5,true,"[1, null]","{""k"": ""é""}",/w=='
    )
    assert json.loads(printed(table, "jsonl")) == {
        "day": "2026-01-02",
        "at": "2026-01-02T03:04:05.000006Z",
        "span": 1.5,
        "flag": True,
        "list": [1, None],
        "dict": {"k": "é"},
        "raw": "/w==",
    }


def test_nanoseconds_are_kept() -> None:
    table = pa.table({"t": pa.array([1], pa.timestamp("ns"))})
    assert "1970-01-01T00:00:00.000000001" in printed(table, "csv")


def test_json_text_is_values_in_jsonl_and_plain_text_in_csv() -> None:
    field = pa.field("v", pa.string(), metadata={"jobpool.encoding": "json"})
    table = pa.table([pa.array(["1", '"a, b"', '{"k": [1]}', None, '"\\ud800"'])], schema=pa.schema([field]))
    assert printed(table, "jsonl").splitlines() == [
        '{"v": 1}',
        '{"v": "a, b"}',
        '{"v": {"k": [1]}}',
        '{"v": null}',
        '{"v": "\\ud800"}',
    ]
    assert printed(table, "csv") == 'v\n1\n"a, b"\n"{""k"": [1]}"\n""\n\\ud800\n'


def test_maps_are_objects_unless_their_keys_are_one_in_json() -> None:
    column = pa.array([[(1, "a")], [(1.0, "a"), (2.5, "b")], None], pa.map_(pa.float64(), pa.string()))
    assert printed(pa.table({"m": column}), "jsonl").splitlines() == [
        '{"m": {"1.0": "a"}}',
        '{"m": {"1.0": "a", "2.5": "b"}}',
        '{"m": null}',
    ]


def breaking(table: pa.Table, sink: Any, form: str, **_: object) -> None:
    del table, form
    sink.write(b"half")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.csv"
    target.write_text("old")
    monkeypatch.setattr("jobpool_cli.store.outcomes.export._write", breaking)
    with pytest.raises(MachineError, match="No space left on device") as caught:
        export(TABLE, target, "csv")
    assert "free some space" in caught.value.hint
    assert target.read_text() == "old"
    assert names_in(tmp_path) == ["out.csv"]


def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    target = tmp_path / "out.csv"
    target.write_text("old")
    monkeypatch.setattr("jobpool_cli.store.outcomes.export._write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(TABLE, target, "csv")
    assert target.read_text() == "old"
    assert names_in(tmp_path) == ["out.csv"]


def test_a_kill_midway_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_text("old")
    code = (
        "import os, pathlib, pyarrow as pa\n"
        "from jobpool_cli.store.outcomes import export\n"
        "def die(table, sink, form, **_):\n"
        "    sink.write(b'half'); sink.flush(); os.kill(os.getpid(), 9)\n"
        "export._write = die\n"
        f"export.export(pa.table({{'n': [1]}}), pathlib.Path({str(target)!r}), 'csv')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False)
    assert done.returncode == -signal.SIGKILL
    assert target.read_text() == "old"
    # What is left behind is hidden from globs.
    assert all(name.startswith(".tmp-") for name in names_in(tmp_path) if name != "out.csv")


def test_a_symbolic_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "data.csv"
    real.write_text("old")
    link = tmp_path / "link.csv"
    link.symlink_to(real)
    export(TABLE, link, "csv")
    assert link.is_symlink()
    assert real.read_text().startswith("n,s\n")


def test_a_new_file_has_the_mode_of_the_umask_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        export(TABLE, tmp_path / "new.csv", "csv")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new.csv").stat().st_mode) == 0o640
    (tmp_path / "new.csv").chmod(0o600)
    export(TABLE, tmp_path / "new.csv", "csv")
    assert stat.S_IMODE((tmp_path / "new.csv").stat().st_mode) == 0o600


def test_a_device_is_written_to_and_its_errors_are_explained() -> None:
    export(TABLE, Path("/dev/null"), "csv")
    assert not Path("/dev/null").is_file()
    with pytest.raises(MachineError, match="No space left"):
        export(TABLE, Path("/dev/full"), "csv")


def test_a_missing_folder_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(MachineError) as caught:
        export(TABLE, tmp_path / "no" / "out.csv", "csv")
    assert "mkdir -p" in caught.value.hint
    with pytest.raises(UsageError, match="is a directory"):
        export(TABLE, tmp_path, "csv")


def test_a_name_as_long_as_the_file_system_allows_works(tmp_path: Path) -> None:
    target = tmp_path / ("é" * 125 + ".csv")
    export(TABLE, target, "csv")
    assert target.exists()


def test_a_broken_pipe_is_left_to_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w", buffering=-1) as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        with pytest.raises(BrokenPipeError):
            export(TABLE, None, "csv")
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), gone.fileno())
