from __future__ import annotations

import math
import tempfile
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Optional
from uuid import UUID

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from jobpool_cli.errors import InputError
from jobpool_cli.store.arguments.binding import Signature, bind
from jobpool_cli.store.arguments.inputs import read_arguments
from jobpool_cli.store.arguments.raw import RawArguments
from jobpool_cli.store.arguments.rows import TaskArguments
from jobpool_cli.store.arguments.signature import Parameter
from jobpool_cli.store.arguments.typedcells import MARKERS
from tests.store.bound import (
    UNANNOTATED,
    Color,
    Level,
    Model,
    Pair,
    Shape,
    UserId,
    back,
    csv_input,
    from_json,
    from_text,
    refusal,
    takes,
)


def normal(values: list[Any]) -> list[Any]:
    """Zones by their offset: pydantic's own class of zones and Python's are equal, and show differently."""
    return [
        (value.replace(tzinfo=None), value.utcoffset()) if isinstance(value, datetime) else value for value in values
    ]


@pytest.mark.parametrize(
    ("annotation", "cells", "expected"),
    [
        (int, ["5", "-3", "+7", " 8 ", "1_000", "5.0", "007", str(2**62)], [5, -3, 7, 8, 1000, 5, 7, 2**62]),
        (int, ["1", str(2**70)], [1, 2**70]),
        (float, ["1", "-2.5e3", ".5", "5.", "inf", " 1 "], [1.0, -2500.0, 0.5, 5.0, math.inf, 1.0]),
        (bool, ["true", "False", "1", "no", "Y", "off"], [True, False, True, False, True, False]),
        (str, ["5", " x", "NA", "é"], ["5", " x", "NA", "é"]),
        (date, ["2024-02-29", "2023-01-01"], [date(2024, 2, 29), date(2023, 1, 1)]),
        (
            datetime,
            ["2024-01-31 10:20:30", "2024-01-31T10:20:30.5"],
            [datetime(2024, 1, 31, 10, 20, 30), datetime(2024, 1, 31, 10, 20, 30, 500000)],  # noqa: DTZ001
        ),
        (datetime, ["2024-01-31T10:20:30Z"], [datetime(2024, 1, 31, 10, 20, 30, tzinfo=UTC)]),
        (
            datetime,
            ["2024-01-31T10:20:30+02:00", "2024-01-31"],
            [
                datetime(2024, 1, 31, 10, 20, 30, tzinfo=timezone(timedelta(hours=2))),
                datetime(2024, 1, 31),  # noqa: DTZ001
            ],
        ),
        (timedelta, ["PT1H", "2 days"], [timedelta(hours=1), timedelta(days=2)]),
        (Decimal, ["1.10", "2"], [Decimal("1.10"), Decimal(2)]),
        (UUID, ["12345678123456781234567812345678"], [UUID("12345678123456781234567812345678")]),
        (bytes, ["ab"], [b"ab"]),
        (Path, ["/tmp/x", "a/../b"], [Path("/tmp/x"), Path("a/../b")]),  # noqa: S108
        (Color, ["r", "BLUE"], [Color.RED, Color.BLUE]),
        (Level, ["1", "HIGH"], [Level.LOW, Level.HIGH]),
        (Shape, ["POINT", "LINE"], [Shape.POINT, Shape.LINE]),
        (Color | None, ["r"], [Color.RED]),
        (Literal["a", 1, True], ["a", "1", "true"], ["a", 1, True]),
        (Literal[Color.RED], ["RED"], [Color.RED]),
        (int | str, ["5", "x", "5.5"], [5, "x", "5.5"]),
        (str | int, ["5", "x"], ["5", "x"]),
        (date | int | str, ["2024-01-31", "7x", "12"], [date(2024, 1, 31), "7x", 12]),
        (float | None, ["1.5", "nan"], [1.5, math.nan]),
        (list[int], ["[1, 2]", "[]", '["3"]'], [[1, 2], [], [3]]),
        (list, ['[1, "a"]'], [[1, "a"]]),
        (dict[str, int], ['{"a": 1}'], [{"a": 1}]),
        (tuple[int, str], ['[1, "a"]'], [(1, "a")]),
        (set[int], ["[1, 1]"], [{1}]),
        (list[float], ["[1.5, NaN]"], [[1.5, math.nan]]),
        (int | list[int], ["5", "[5]"], [5, [5]]),
        (Model, ['{"x": 1}', '{"x": "2", "y": 1.5}'], [Model(x=1), Model(x=2, y=1.5)]),
        (Model | Pair, ['{"x": 1}', '{"a": 1, "b": "c"}'], [Model(x=1), Pair(1, "c")]),
        (Pair, ['{"a": 1, "b": "c"}'], [Pair(1, "c")]),
        (Annotated[int, Field(gt=3)], ["5"], [5]),
        (Annotated[list[int], Field(min_length=1)], ["[5]"], [[5]]),
        (Annotated[list[str], BeforeValidator(lambda text: text.split(";"))], ["a;b"], [["a", "b"]]),
        (UserId, ["5"], [5]),
        (Optional[int], ["5"], [5]),  # noqa: UP045
    ],
)
def test_text_becomes_what_the_annotation_says_and_a_worker_gets_it(
    annotation: Any, cells: list[str], expected: list[object], tmp_path: Path
) -> None:
    found = from_text(annotation, cells, tmp_path)
    assert repr(normal(found)) == repr(normal(expected))
    assert [type(value) for value in found] == [type(value) for value in expected]


@pytest.mark.parametrize(
    ("annotation", "cells", "expected"),
    [
        (int, [1, "2", 3.0, 2**70], [1, 2, 3, 2**70]),
        (int, [1, 2], [1, 2]),
        (float, [1, 2.5], [1.0, 2.5]),
        (float, [2**60 + 1, None], [float(2**60 + 1), math.nan]),
        (str, [1, "a", 2.5], ["1", "a", "2.5"]),
        (str | None, ["a", None], ["a", None]),
        (str, [1, 2], ["1", "2"]),
        (int | None, [1, None], [1, None]),
        (int | None, [None, None], [None, None]),
        (bool, [True, "no", 1], [True, False, True]),
        (date, ["2024-01-31"], [date(2024, 1, 31)]),
        (Color, ["r", "BLUE"], [Color.RED, Color.BLUE]),
        (Path, ["a"], [Path("a")]),
        (list[int], [[1, "2"], []], [[1, 2], []]),
        (list[list[int]], [[[1]], []], [[[1]], []]),
        (dict[str, Any], [{"a": {"b": None}}, {}], [{"a": {"b": None}}, {}]),
        (Model, [{"x": 1}], [Model(x=1)]),
        (tuple[int, ...], [[1, 2]], [(1, 2)]),
        (Any, [1, "a", None, {"x": 1.0}], [1, "a", None, {"x": 1.0}]),
    ],
)
def test_json_becomes_what_the_annotation_says_and_a_worker_gets_it(
    annotation: Any, cells: list[Any], expected: list[object], tmp_path: Path
) -> None:
    found = from_json(annotation, cells, tmp_path)
    assert repr(found) == repr(expected)
    assert [type(value) for value in found] == [type(value) for value in expected]


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [(float, math.nan), (str, ""), (int | None, None), (str | None, None), (int | str, ""), (float | int, math.nan)],
)
def test_an_empty_cell_is_what_the_annotation_has_for_nothing(
    annotation: Any, expected: object, tmp_path: Path
) -> None:
    signature = Signature("f", (Parameter("x", annotation), Parameter("y")))
    found = back(bind(signature, csv_input("x,y\n1,1\n,2\n"), {}), signature, tmp_path / "args.parquet")
    assert repr(found[0][1]) == repr(expected)


def test_text_for_paths_is_stored_as_it_is_and_every_text_is_a_path(tmp_path: Path) -> None:
    signature = takes(Path | None)
    cells = [None, "NA", "a//b/", "/x", "/x"]
    raw = RawArguments(pa.table({"x": pa.array(cells, pa.string())}), textual=True, source="x.csv")
    bound = bind(signature, raw, {})
    assert bound.table["x"].to_pylist() == cells
    assert back(bound, signature, tmp_path / "args.parquet")[0] == [None, *map(Path, ("NA", "a/b", "/x", "/x"))]


def test_an_empty_cell_without_annotation_is_none(tmp_path: Path) -> None:
    signature = Signature("f", (Parameter("a"), Parameter("b")))
    found = back(bind(signature, csv_input("a,b\n1,\n,x\n"), {}), signature, tmp_path / "args.parquet")
    assert found == [[1, None], [None, "x"]]


def test_a_marker_counts_as_missing_only_where_it_is_no_value() -> None:
    def f(a: int | None, b: float, c: str, d: date | None) -> None: ...

    bound = bind(Signature.of(f), csv_input("a,b,c,d\nNA,N/A,NA,null\n1,2,x,2024-01-01\n"), {})
    first = bound.table.slice(0, 1).to_pylist()[0]
    assert math.isnan(first.pop("b"))
    assert first == {"a": None, "c": "NA", "d": None}


def test_a_default_of_none_makes_a_parameter_optional() -> None:
    def f(a: int = None, b: int = 1) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

    assert bind(Signature.of(f), csv_input("a,b\n,1\n"), {}).table["a"].to_pylist() == [None]
    assert "line 2, column b" in refusal(f, csv_input("a,b\n1,\n")).message


def test_unannotated_text_is_inferred_for_the_whole_column() -> None:
    def f(a, b, c, d, e, g): ...  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202

    text = "a,b,c,d,e,g\n1,1.5,true,007,99999999999999999999,x\n-2,3,False,8,1,\n"
    table = bind(Signature.of(f), csv_input(text), {}).table
    assert table.to_pylist() == [
        {"a": 1, "b": 1.5, "c": True, "d": "007", "e": "99999999999999999999", "g": "x"},
        {"a": -2, "b": 3.0, "c": False, "d": "8", "e": "1", "g": None},
    ]


numbers = st.from_regex(r"[ +-]?[0-9_]{1,22}(\.[0-9]{0,20})?([eE][+-]?[0-9]{1,4})? ?", fullmatch=True)
moments = st.datetimes(min_value=datetime(1, 1, 1)).map(str)  # noqa: DTZ001
marred = st.from_regex(
    r"[012][0-9]{3}-[0-3][0-9]-[0-3][0-9]([T ][0-2][0-9]:[0-6][0-9](:[0-6][0-9](\.[0-9]{0,8})?)?(Z|\+01:00)?)?"
)
# NA and its like are missing values to jobpool and errors to pydantic; a test of their own has them.
texts = st.text(st.characters(codec="utf-8"), max_size=4).filter(lambda text: text not in MARKERS - {"nan", "NaN"})
cell_texts = (
    numbers
    | st.integers().map(str)
    | st.floats().map(str)
    | moments
    | marred
    | texts
    | st.sampled_from(
        [
            "true",
            "False",
            "on",
            "0x1F",
            "1e5",
            "inf",
            "-Infinity",
            "nan",
            "\u0661",
            "0x",
            "-",
            "1.",
            ".5",
            "-0",
            "24:00",
            "Z",
        ]
    )
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], max_examples=300)
@given(st.sampled_from([int, float, bool, str, date, datetime]), st.lists(cell_texts, min_size=1, max_size=8))
def test_conversion_by_column_gives_what_pydantic_gives_value_by_value(kind: type, cells: list[str]) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(kind, config=ConfigDict(coerce_numbers_to_str=True))
    raw = RawArguments(pa.table({"x": pa.array(cells, pa.string())}), textual=True, source="x.csv")
    signature = Signature("f", (Parameter("x", kind),))
    try:
        expected = [adapter.validate_python(cell) for cell in cells]
    except ValidationError:
        with pytest.raises(InputError):
            bind(signature, raw, {})
        return
    bound = bind(signature, raw, {})
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file:
        pa.parquet.write_table(bound.table, file.name)
        arguments = TaskArguments(Path(file.name), lambda: None, signature)
        (found,) = arguments.rows([(0, len(cells))])
    assert repr(normal(found)) == repr(normal(expected))
    assert [type(value) for value in found] == [type(value) for value in expected]


MOMENT = datetime(2024, 1, 31, 10, 20, 30, 123456, tzinfo=UTC)
MILLIS = MOMENT.replace(tzinfo=None, microsecond=123000)
MIDNIGHT = datetime(2024, 1, 31)  # noqa: DTZ001


@pytest.mark.parametrize(
    ("array", "annotation", "expected"),
    [
        (pa.array([1, None], pa.uint8()), UNANNOTATED, [1, None]),
        (pa.array([1, 2], pa.uint64()), int, [1, 2]),
        (pa.array([2**64 - 1], pa.uint64()), int, [2**64 - 1]),
        (pa.array([1.5, None], pa.float32()), float, [1.5, math.nan]),
        (pa.array([1.0, 2.0]), int, [1, 2]),
        (pa.array([True, None]), bool | None, [True, None]),
        (pa.array([True]), int, [1]),
        (pa.array(["a", "a", None]).dictionary_encode(), UNANNOTATED, ["a", "a", None]),
        (pa.array(["a", "b"]).dictionary_encode(), str, ["a", "b"]),
        (pa.array(["a"], pa.large_string()), str, ["a"]),
        (pa.array(["5"]), int, [5]),
        (pa.array([MOMENT], pa.timestamp("ns", tz="UTC")), UNANNOTATED, [MOMENT]),
        (pa.array([MOMENT], pa.timestamp("us", tz="UTC")), datetime, [MOMENT]),
        (pa.array([MILLIS, None], pa.timestamp("ms")), datetime | None, [MILLIS, None]),
        (pa.array([date(2024, 1, 1)], pa.date64()), date, [date(2024, 1, 1)]),
        (pa.array([MIDNIGHT]), date, [MIDNIGHT.date()]),
        (pa.array([Decimal("1.10")]), UNANNOTATED, [Decimal("1.10")]),
        (pa.array([Decimal("1.10")]), Decimal, [Decimal("1.10")]),
        (pa.array([MOMENT.time()]), UNANNOTATED, [MOMENT.time()]),
        (pa.array([[1, None]]), list[int | None], [[1, None]]),
        (pa.array([{"x": 1, "y": 2.0}]), Model, [Model(x=1, y=2.0)]),
        (pa.array([{"x": 1}]), UNANNOTATED, [{"x": 1}]),
        (pa.array([b"x"]), bytes, [b"x"]),
        (pa.nulls(2), UNANNOTATED, [None, None]),
        (pa.nulls(2), int | None, [None, None]),
        (pa.array(["r"]), Color, [Color.RED]),
    ],
)
def test_parquet_types_reach_the_function_as_python_values(
    array: pa.Array, annotation: Any, expected: list[object], tmp_path: Path
) -> None:
    pa.parquet.write_table(pa.table({"x": array}), tmp_path / "x.parquet")
    signature = takes(annotation)
    raw = read_arguments(str(tmp_path / "x.parquet"))
    found = back(bind(signature, raw, {}), signature, tmp_path / "args.parquet")[0]
    assert repr(found) == repr(expected)


@pytest.mark.parametrize(
    "table",
    [pa.table({"x": pa.array(["a", None])}), pa.table({"x": pa.array(["a", None]).dictionary_encode()})],
    ids=["text", "dictionary"],
)
def test_a_missing_text_that_is_told_from_an_empty_one_is_no_empty_text(table: pa.Table) -> None:
    raw = RawArguments(table, textual=False, source="a.parquet")
    signature = Signature("f", (Parameter("x", str),))
    with pytest.raises(InputError, match="row 2, column x: the value is missing, and a str is needed"):
        bind(signature, raw, {})
