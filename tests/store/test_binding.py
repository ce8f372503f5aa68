from __future__ import annotations

import math
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest

from jobpool_cli.errors import InputError, MachineError
from jobpool_cli.store.arguments.binding import Signature, bind, write_arguments
from jobpool_cli.store.arguments.raw import RawArguments
from jobpool_cli.store.arguments.recheck import check_stored
from jobpool_cli.store.arguments.rows import TaskArguments
from jobpool_cli.store.arguments.signature import Parameter
from tests.store.bound import (
    UNANNOTATED,
    Color,
    Model,
    Pair,
    csv_input,
    from_text,
    json_input,
    refusal,
    takes,
)


def test_bad_cells_are_named_by_line_column_and_value_and_the_rest_counted() -> None:
    def f(dep_delay: int, day: date) -> None: ...

    rows = "".join(f"x{n},2024-01-01\n" for n in range(10))
    error = refusal(f, csv_input(f'dep_delay,day\n1,2024-01-01\n"2\n",2024-13-01\n,2024-01-01\n{rows}'))
    lines = error.message.splitlines()
    assert lines[0].startswith("<stdin> line 3, column day: '2024-13-01' is not a date: ")
    assert lines[1] == "<stdin> line 5, column dep_delay: the value is missing, and an int is needed"
    assert lines[2] == "<stdin> line 6, column dep_delay: 'x0' is not an int"
    assert lines[-1] == "and 7 more"
    assert len(lines) == 6


def test_the_hint_for_a_missing_value_says_what_to_write() -> None:
    def f(n: int) -> None: ...

    assert "n: int | None" in refusal(f, csv_input("n\nNA\n")).hint


def test_json_and_parquet_values_that_do_not_fit_are_named() -> None:
    def f(x: int) -> None: ...

    assert refusal(f, json_input({"x": 1}, {"x": "abc"})).message == "<stdin> line 2, column x: 'abc' is not an int"
    assert "line 2, column x: 1.5 is not an int: " in refusal(f, json_input({"x": 1}, {"x": 1.5})).message
    assert "line 2, column x: the value is missing" in refusal(f, json_input({"x": 1}, {})).message
    raw = RawArguments(pa.table({"x": [1, None]}), textual=False, source="a.parquet")
    assert refusal(f, raw).message == "a.parquet row 2, column x: the value is missing, and an int is needed"
    many = RawArguments(pa.table({"x": ["a"] * 25_000}), textual=False, source="a.parquet")
    assert refusal(f, many).message.endswith("and 24,995 more")


def test_a_number_that_pandas_lost_is_missing() -> None:
    def f(x: int | None) -> None: ...

    raw = RawArguments(pa.table({"x": [1.0, math.nan]}), textual=False, source="a.parquet")
    assert bind(Signature.of(f), raw, {}).table["x"].to_pylist() == [1, None]


def test_names_must_fit() -> None:
    def f(flight: int, delay: int, extra: int = 0) -> None: ...

    error = refusal(f, csv_input("flight,dellay\n1,2\n"))
    assert error.message == "<stdin> has no column delay, which f(flight, delay, extra=...) needs"
    assert error.hint == "rename the column 'dellay' to delay"
    error = refusal(f, csv_input("flight\n1\n"))
    assert "--set delay=VALUE" in error.hint
    error = refusal(f, csv_input("flight,delay,extr\n1,2,3\n"))
    assert error.message == "<stdin> has a column that f(flight, delay, extra=...) does not take: extr"
    assert error.hint.startswith("did you mean extra?")
    assert "**kwargs" in error.hint
    assert "both a column" in refusal(f, csv_input("flight,delay\n1,2\n"), delay="3").message
    assert "no parameter dleay" in refusal(f, csv_input("flight,delay\n1,2\n"), dleay="3").message
    assert "'x' is not an int" in refusal(f, csv_input("flight,delay\n1,2\n"), extra="x").message


def test_extra_columns_go_to_keyword_arguments(tmp_path: Path) -> None:
    def f(a: int, **rest: float) -> tuple[int, dict[str, float]]:
        return a, rest

    bound = bind(Signature.of(f), csv_input("b,a\n1,2\n"), {"c": "3"})
    assert bound.table.column_names == ["b", "a"]
    write_arguments(bound, tmp_path / "args.parquet")
    arguments = TaskArguments(tmp_path / "args.parquet", f)
    (row,) = zip(*arguments.rows([(0, 1)]), strict=True)
    assert arguments.call()(*row) == (2, {"b": 1.0, "c": 3.0})


@pytest.mark.parametrize(
    ("annotation", "text", "expected"),
    [
        (UNANNOTATED, "5", 5),
        (UNANNOTATED, "x", "x"),
        (date, "2024-01-31", date(2024, 1, 31)),
        (Color, "RED", Color.RED),
        (float, "nan", math.nan),
        (float | None, "", None),
        (list[int], "[1]", [1]),
        (Model, '{"x": 1}', Model(x=1)),
        (Path, "a", Path("a")),
    ],
)
def test_a_constant_reaches_the_function_as_the_annotation_says(
    annotation: Any, text: str, expected: object, tmp_path: Path
) -> None:
    signature = Signature("f", (Parameter("y"), Parameter("x", annotation)))
    bound = bind(signature, csv_input("y\n1\n"), {"x": text})
    write_arguments(bound, tmp_path / "args.parquet")
    call = TaskArguments(tmp_path / "args.parquet", lambda y, x: (y, x), signature).call()
    assert repr(call(1)) == repr((1, expected))


def test_a_constant_from_python_stays_what_it_is() -> None:
    bound = bind(
        Signature("f", (Parameter("x"), Parameter("y"))), csv_input("y\n1\n"), {"x": "5"}, textual_constants=False
    )
    assert bound.constants == {"x": "5"}


def test_an_empty_table_binds(tmp_path: Path) -> None:
    for annotation in (int, str, list[int], Model, datetime, UNANNOTATED):
        assert from_text(annotation, [], tmp_path) == []


def test_the_file_is_private_and_an_old_one_is_not_overwritten(tmp_path: Path) -> None:
    bound = bind(takes(int), csv_input("x\n1\n"), {})
    write_arguments(bound, tmp_path / "args.parquet")
    assert (tmp_path / "args.parquet").stat().st_mode & 0o777 == 0o600
    with pytest.raises(MachineError):
        write_arguments(bound, tmp_path / "args.parquet")


def test_signatures_that_columns_cannot_fill_are_refused() -> None:
    def many(*args: int) -> None: ...

    def unresolved(x: Missing, y: int) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(InputError, match="takes \\*args") as caught:
        Signature.of(many)
    assert "def many(args: list)" in caught.value.hint
    with pytest.raises(InputError, match="parameter x cannot be resolved: 'Missing'"):
        Signature.of(unresolved)
    with pytest.raises(InputError, match="the parameters of type cannot be read"):
        Signature.of(type)


def test_only_the_annotations_of_parameters_need_to_resolve() -> None:
    def f(x: int) -> Missing: ...  # type: ignore[name-defined]  # noqa: F821

    assert Signature.of(f).parameters == (Parameter("x", int),)


def test_a_type_that_pydantic_does_not_know_takes_its_own_instances_only() -> None:
    class Thing: ...

    with pytest.raises(InputError, match="'a' is not a Thing"):
        bind(takes(Thing), csv_input("x\na\n"), {})


def test_stored_arguments_are_checked_against_other_code(tmp_path: Path) -> None:
    def f(x: int, m: Model, c: float) -> None: ...
    def renamed(y: int, m: Model, c: float) -> None: ...
    def stricter(x: int, m: Pair, c: float) -> None: ...
    def no_constant(x: int, m: Model) -> None: ...

    path = tmp_path / "args.parquet"
    write_arguments(bind(Signature.of(f), csv_input('x,m\n1,"{""x"": 1}"\n2,"{""x"": 2}"\n'), {"c": "1"}), path)
    for tasks in (None, [1], []):
        check_stored(path, Signature.of(f), tasks)
    for function, message in (
        (renamed, "the pool has no column y"),
        (stricter, "do not fit"),
        (no_constant, "parameter c"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            check_stored(path, Signature.of(function))
        assert "map anew" in caught.value.hint
