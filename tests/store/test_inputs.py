from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobpool_cli.errors import InputError, UsageError
from jobpool_cli.store.arguments.decoding import decode_column
from jobpool_cli.store.arguments.inputs import read_arguments
from jobpool_cli.store.arguments.raw import RawArguments


def read(data: bytes, format: str | None = None) -> RawArguments:  # noqa: A002
    return read_arguments("-", format=format, stdin=io.BytesIO(data))


def refusal(data: bytes, format: str | None = None) -> InputError:  # noqa: A002
    with pytest.raises(InputError) as caught:
        read(data, format)
    return caught.value


def rows(raw: RawArguments) -> list[dict[str, object]]:
    columns = {field.name: decode_column(raw.table[field.name], field) for field in raw.table.schema}
    return [{name: columns[name][row] for name in columns} for row in range(raw.table.num_rows)]


def test_cells_of_csv_stay_text_and_only_empty_cells_without_quotes_are_null() -> None:
    raw = read(b'a,b\n007,\n1.50,""\n" x",NA\n')
    assert raw.textual
    assert rows(raw) == [{"a": "007", "b": None}, {"a": "1.50", "b": ""}, {"a": " x", "b": "NA"}]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_every_kind_of_line_ending_is_read(newline: str) -> None:
    assert rows(read(newline.join(["a,b", "1,2", "3,4", ""]).encode())) == [{"a": "1", "b": "2"}, {"a": "3", "b": "4"}]


def test_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    assert read(b"\xef\xbb\xbfa\n1\n").table.column_names == ["a"]
    assert rows(read(b'\xef\xbb\xbf{"a": 1}\n')) == [{"a": 1}]


def test_a_header_alone_is_a_table_without_rows() -> None:
    for data in (b"a,b", b"a,b\n", b"\n\na,b\r\n\r\n"):
        raw = read(data)
        assert (raw.table.num_rows, raw.table.column_names) == (0, ["a", "b"])
        assert raw.table.schema.types == [pa.string()] * 2


def test_a_header_may_span_lines_and_blank_lines_are_no_rows() -> None:
    raw = read(b'\n"a\nx",b\n\n1,2\n\n\n3,"4\n4"\n5,6\n')
    assert rows(raw) == [{"a\nx": "1", "b": "2"}, {"a\nx": "3", "b": "4\n4"}, {"a\nx": "5", "b": "6"}]
    assert raw.lines_of([2, 0, 1]) == [10, 5, 8]


def test_a_line_is_found_again_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n1,"x\ny"\n2,z\n')
    raw = read_arguments(str(path))
    assert raw.source == str(path)
    assert [raw.line_of(0), raw.line_of(1)] == [2, 4]


def test_cells_larger_than_a_block_are_read() -> None:
    huge = "x" * (9 << 20)
    assert rows(read(f'a,b\n1,"{huge}\n"\n2,y\n'.encode())) == [{"a": "1", "b": huge + "\n"}, {"a": "2", "b": "y"}]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "<stdin> is empty"),
        (b"\n\r\n\n", "only blank lines"),
        (b"a,b\n1,2\n3\n", "line 3: 1 cell where the header names 2 columns; none for b"),
        (b'a,b\n1,"x\ny"\n3,4,5\n', "line 4: 3 cells where the header names 2 columns; one too many is '5'"),
        (b"a,b,a\n1,2,3\n", "line 1: 2 columns are named a (columns 1, 3)"),
        (b",a\n0,1\n", "line 1: column 1 has no name"),
        (b"a;b\n1;2\n", "separated by semicolons"),
        (b"a,b\n1,\0\n", "line 2: a NUL byte"),
        (b"a,b\n1,2\n3,caf\xe9\n", "line 3: byte 0xe9 is not UTF-8"),
        (b'a,b\n1,2\n3,"4\n5,6\n', 'line 3: a quote (") opens a cell and is never closed'),
        ("a,b\n1,2\n".encode("utf-16"), "UTF-16"),
        (b"\x1f\x8b\x08\x00", "compressed"),
        (b'{"a": 1}\n{"a": }\n', "line 2, column 7: not JSON"),
        (b'{"a": 1}\n\n[1]\n', "line 3: an array where an object was expected"),
        (b'[\n{"a": 1}\n]\n', "line 1, column 2: not JSON"),
        (b'{"a": 1}\nnull\n', "line 2: null where"),
        (b'{"a": 1} {"a": 2}\n', "line 1, column 10: not JSON"),
        (b"PAR1 and then nothing", "not a readable Parquet file"),
        (b'{"": 1}\n', "a key is empty"),
    ],
)
def test_what_is_wrong_is_named_by_line_and_column(data: bytes, message: str) -> None:
    assert message in refusal(data).message


def test_a_damaged_quote_is_found_also_when_the_number_of_quotes_is_even() -> None:
    assert "line 3" in refusal(b'a,b\n"x","y"\n"z"z",1\n3,"4\n').message


def test_a_quote_inside_a_cell_without_quotes_is_text() -> None:
    assert rows(read(b'a,b\n5" pipe,1\n')) == [{"a": '5" pipe', "b": "1"}]


def test_json_values_keep_their_types_and_missing_keys_are_null() -> None:
    data = b"""{"a": 1, "b": 1, "c": [1, 2], "d": {"x": null}, "e": true}
{"a": 1.0, "b": 2, "c": [], "f": "x"}

{"a": "1", "b": 9007199254740993, "e": false}
"""
    raw = read(data)
    assert not raw.textual
    found = rows(raw)
    assert found == [
        {"a": 1, "b": 1, "c": [1, 2], "d": {"x": None}, "e": True, "f": None},
        {"a": 1.0, "b": 2, "c": [], "d": None, "e": None, "f": "x"},
        {"a": "1", "b": 9007199254740993, "c": None, "d": None, "e": False, "f": None},
    ]
    assert [type(row["a"]) for row in found] == [int, float, str]
    assert raw.table.schema.field("b").type == pa.int64()
    assert raw.lines_of([2, 1]) == [4, 2]


def test_json_keeps_huge_integers_and_lone_surrogates() -> None:
    data = b'{"a": 123456789012345678901234567890, "b": "\\ud800"}\n'
    assert rows(read(data)) == [{"a": 123456789012345678901234567890, "b": "\ud800"}]


def test_objects_without_keys_are_rows() -> None:
    assert read(b"{}\n{}\n").table.num_rows == 2


def test_the_suffix_decides_and_content_where_there_is_none(tmp_path: Path) -> None:
    table = pa.table({"a": [1]})
    contents = {
        "x.csv": b"a\n1\n",
        "x.tsv": b"a\tb\n1\t2\n",
        "x.jsonl": b'{"a": 1}\n',
        "x.NDJSON": b'{"a": 1}\n',
        "plain": b"a\n1\n",
        "tabs.txt": b"a\tb\n1\t2\n",
        "lines": b'  {"a": 1}\n',
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        assert read_arguments(str(tmp_path / name)).table.column_names[0] == "a"
    pq.write_table(table, tmp_path / "x.parquet")
    pq.write_table(table, tmp_path / "parquet")
    assert read_arguments(str(tmp_path / "x.parquet")).table.equals(table)
    assert read_arguments(str(tmp_path / "parquet")).line_of(0) is None
    assert rows(read(b"a,b\n1,2\n", "csv")) == [{"a": "1", "b": "2"}]
    with pytest.raises(UsageError, match="xlsx"):
        read(b"a", "xlsx")


def test_a_parquet_file_of_pandas_brings_no_unnamed_index(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1, 2]}, index=[5, 7]).to_parquet(tmp_path / "x.parquet")
    raw = read_arguments(str(tmp_path / "x.parquet"))
    assert raw.table.column_names == ["a"]
    assert raw.table.schema.metadata is None


def test_a_file_that_cannot_be_read_is_refused_with_a_way_on(tmp_path: Path) -> None:
    (tmp_path / "flights.csv").write_text("a\n1\n")
    with pytest.raises(InputError, match="there is no file") as caught:
        read_arguments(str(tmp_path / "fligths.csv"))
    assert "flights.csv" in caught.value.hint
    with pytest.raises(InputError, match="is a folder"):
        read_arguments(str(tmp_path))
    with pytest.raises(InputError, match="there is no file"):
        read_arguments(str(tmp_path / "none" / "x.csv"))
    if os.geteuid():
        (tmp_path / "flights.csv").chmod(0)
        with pytest.raises(InputError, match="permission denied"):
            read_arguments(str(tmp_path / "flights.csv"))


# The first text that hypothesis draws costs seconds on a busy machine.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5) | st.sampled_from(
    ['"', '""', ",", "\n", "\r", "\r\n", " ", "NA", "\ufeff", "\x1c", "\u2028", "'"]
)


@unhurried
@given(st.lists(st.tuples(cells, cells), max_size=6), st.sampled_from(["\n", "\r\n"]))
def test_csv_reads_as_python_reads_it_and_lines_are_found(data: list[tuple[str, str]], newline: str) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator=newline, quoting=csv.QUOTE_ALL)
    lines = []
    for row in [("a", "b"), *data]:
        before = text.getvalue()
        lines.append(1 + len(list(io.StringIO(before, newline=""))))
        writer.writerow(row)
    raw = read(text.getvalue().encode(), "csv")
    assert rows(raw) == [{"a": a, "b": b} for a, b in data]
    assert raw.lines_of(range(len(data))) == lines[1:]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@unhurried
@given(st.lists(st.dictionaries(st.sampled_from("abc"), json_values), min_size=1, max_size=5))
def test_json_lines_come_back_value_by_value(data: list[dict[str, object]]) -> None:
    raw = read("".join(json.dumps(row) + "\n" for row in data).encode(), "jsonl")
    names = raw.table.column_names
    assert set(names) == {key for row in data for key in row}
    expected = [{name: row.get(name) for name in names} for row in data]
    assert repr(rows(raw)) == repr(expected)
