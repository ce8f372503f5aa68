from __future__ import annotations

import functools
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobpool_cli.errors import DamagedPoolError, InputError
from jobpool_cli.store.arguments.binding import Signature, bind, write_arguments
from jobpool_cli.store.arguments.columns import pickle_array
from jobpool_cli.store.arguments.decoding import ENCODING, JSON, PICKLE, decode_column
from jobpool_cli.store.arguments.objects import store_objects
from jobpool_cli.store.arguments.raw import RawArguments
from jobpool_cli.store.arguments.rows import TaskArguments
from jobpool_cli.store.arguments.stored import read_table


def stored(path: Path, function: Callable[..., Any], table: pa.Table, **constants: object) -> TaskArguments:
    bound = bind(Signature.of(function), RawArguments(table, textual=False, source="t"), constants)
    write_arguments(bound, path / "args.parquet")
    return TaskArguments(path / "args.parquet", function)


def called(arguments: TaskArguments, low: int = 0, high: int = 1) -> list[Any]:
    call = arguments.call()
    return [call(*row) for row in zip(*arguments.rows([(low, high)]), strict=True)]


def test_rows_of_scattered_ranges_come_in_the_order_asked_for(tmp_path: Path) -> None:
    def f(x: int) -> int:
        return x

    n = 200_000
    arguments = stored(tmp_path, f, pa.table({"x": range(n)}))
    ranges = [(65_530, 65_540), (0, 2), (131_070, 131_074), (n - 1, n), (5, 5)]
    assert arguments.rows(ranges) == [[row for low, high in ranges for row in range(low, high)]]
    assert arguments.rows([(0, n)]) == [list(range(n))]
    assert len(arguments._stored._groups) == 2


def test_columns_in_another_order_than_the_parameters_are_put_in_theirs(tmp_path: Path) -> None:
    def f(a: int, b: int, c: int = 7) -> tuple[int, int, int]:
        return a, b, c

    arguments = stored(tmp_path, f, pa.table({"b": [2], "a": [1]}))
    assert arguments.columns == ["a", "b"]
    assert arguments.positional
    assert arguments.call() is f
    assert called(arguments) == [(1, 2, 7)]


def test_constants_are_in_place_before_the_call(tmp_path: Path) -> None:
    def f(a: int, b: int, c: int = 7) -> tuple[int, int, int]:
        return a, b, c

    arguments = stored(tmp_path, f, pa.table({"a": [1]}), b=5)
    assert isinstance(arguments.call(), functools.partial)
    assert called(arguments) == [(1, 5, 7)]


def test_parameters_that_lead_and_have_no_column_make_it_a_call_by_keyword(tmp_path: Path) -> None:
    def f(a: int = 1, b: int = 2, *, c: int) -> tuple[int, int, int]:
        return a, b, c

    arguments = stored(tmp_path, f, pa.table({"c": [3], "b": [5]}))
    assert not arguments.positional
    assert called(arguments) == [(1, 5, 3)]


def test_a_constant_may_go_to_the_first_parameter(tmp_path: Path) -> None:
    def f(a: int, b: int) -> tuple[int, int]:
        return a, b

    assert called(stored(tmp_path, f, pa.table({"b": [2]}), a=1)) == [(1, 2)]


def test_parameters_before_a_slash_are_given_by_position(tmp_path: Path) -> None:
    def f(a: int, b: int = 5, /, c: int = 6) -> tuple[int, int, int]:
        return a, b, c

    assert called(stored(tmp_path, f, pa.table({"c": [2]}), a=1)) == [(1, 5, 2)]


def test_a_function_without_arguments_runs_once_per_row(tmp_path: Path) -> None:
    table = pa.table({"x": [1, 2, 3]}).select([])
    arguments = stored(tmp_path, lambda: 1, table)
    assert (arguments.n_rows, arguments.columns, arguments.rows([(0, 3)])) == (3, [], [])
    assert arguments.call()() == 1


def test_values_that_were_not_stored_are_a_damage(tmp_path: Path) -> None:
    def f(x: int) -> int:
        return x

    arguments = stored(tmp_path, f, pa.table({"x": [1]}))
    with pytest.raises(DamagedPoolError, match="holds 1 rows"):
        arguments.rows([(0, 2)])
    (tmp_path / "args.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DamagedPoolError, match="cannot be read"):
        TaskArguments(tmp_path / "args.parquet", f)
    with pytest.raises(DamagedPoolError, match="cannot be read"):
        read_table(tmp_path / "none.parquet")


def test_an_unknown_encoding_is_refused_and_not_guessed_at() -> None:
    with pytest.raises(DamagedPoolError, match="does not know"):
        decode_column(pa.array(["x"]), pa.field("x", pa.string(), metadata={ENCODING: b"later"}))


def test_people_see_plain_values_and_only_the_rows_they_ask_for(tmp_path: Path) -> None:
    fields = [pa.field("x", pa.int64()), pa.field("j", pa.string(), metadata={ENCODING: JSON})]
    fields.append(pa.field("p", pa.binary(), metadata={ENCODING: PICKLE}))
    columns = [pa.array([0, 1, 2]), pa.array(['{"a":1}', None, "3"]), pa.array([pickle.dumps(1j), None, None])]
    pq.write_table(pa.Table.from_arrays(columns, schema=pa.schema(fields)), tmp_path / "a.parquet", row_group_size=2)
    expected = [{"x": 0, "j": '{"a":1}', "p": "1j"}, {"x": 1, "j": None, "p": None}, {"x": 2, "j": "3", "p": None}]
    assert read_table(tmp_path / "a.parquet").to_pylist() == expected
    some = read_table(tmp_path / "a.parquet", [2, 0, 2])
    assert some.to_pylist() == [expected[2], expected[0], expected[2]]
    assert all(not field.metadata for field in some.schema)
    assert read_table(tmp_path / "a.parquet", []).num_rows == 0


def iter_once() -> Iterator[int]:
    yield 1


def test_a_value_that_cannot_be_stored_is_named() -> None:
    with pytest.raises(InputError, match="a value of x cannot be stored"):
        pickle_array("x", [iter_once()])


def test_a_worker_loads_neither_pydantic_nor_pandas_for_plain_columns(tmp_path: Path) -> None:
    def f(x: int, day: datetime) -> None: ...

    stored(tmp_path, f, pa.table({"x": [1], "day": [datetime(2024, 1, 1, tzinfo=UTC)]}))
    code = (
        "import sys; from pathlib import Path; from jobpool_cli.store.arguments.rows import TaskArguments\n"
        "def f(x: int, day: str): ...\n"
        f"print(TaskArguments(Path({str(tmp_path / 'args.parquet')!r}), f).rows([(0, 1)]))\n"
        "print([name for name in ('pydantic', 'pandas') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == [
        "[[1], [datetime.datetime(2024, 1, 1, 0, 0, tzinfo=datetime.timezone.utc)]]",
        "[]",
    ]


zones = st.sampled_from([None, UTC, timezone(timedelta(hours=2)), ZoneInfo("Europe/Berlin")])
plain = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=5)
    | st.binary(max_size=3)
    | st.dates()
    | st.datetimes(timezones=zones, allow_imaginary=True)
    | st.timedeltas()
    | st.complex_numbers()
)
values = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.text(max_size=2) | st.integers(), inner)
    ),
    max_leaves=4,
)
columns = st.lists(values, max_size=4) | st.one_of(
    [
        st.lists(st.none() | kind, max_size=4)
        for kind in (st.integers(), st.floats(), st.text(st.characters()), st.dates())
    ]
    + [st.lists(st.none() | st.datetimes(timezones=zones), max_size=4), st.lists(st.timedeltas(), max_size=3)]
    + [st.lists(st.lists(st.none() | kind), max_size=4) for kind in (st.integers(), st.booleans(), st.floats())]
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=300)
@given(columns)
def test_any_python_values_come_back_exactly(column: list[Any]) -> None:
    field, array = store_objects("x", column)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays([array], schema=pa.schema([field])), sink)
    table = pq.read_table(pa.BufferReader(sink.getvalue()))
    found = decode_column(table["x"], table.schema.field("x"))
    assert repr(found) == repr(column)
    assert [type(value) for value in found] == [type(value) for value in column]
    assert [value.fold for value in found if isinstance(value, datetime)] == [
        value.fold for value in column if isinstance(value, datetime)
    ]


def test_dates_at_both_ends_of_the_calendar_come_back() -> None:
    for column in (
        [date.min, date.max, None],
        [datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, 999999, UTC), None],
        [timedelta.min, timedelta.max],
    ):
        field, array = store_objects("x", column)
        assert decode_column(array, field) == column
