from __future__ import annotations

import json

import pandas as pd
import pytest

from jobpool_cli import udf


def test_frames_are_collected_under_their_arguments() -> None:
    def rows(x: int, letter: str) -> pd.DataFrame:
        return pd.DataFrame({"value": [x, x * 10]}, index=pd.Index([letter, "z"], name="key"))

    given = [{"x": 1, "letter": "a"}, {"x": 2, "letter": "b"}]
    pool = udf(rows).map(given)
    expected = pd.concat({(1, "a"): rows(1, "a"), (2, "b"): rows(2, "b")}, names=["x", "letter", "key"])
    pd.testing.assert_frame_equal(pool.collect(), expected)
    pd.testing.assert_frame_equal(pool.df(), expected)
    by_position = pool.collect(drop_index=True)
    assert by_position.index.names == ["task", "key"]
    whole = pool.collect(flatten=False)
    pd.testing.assert_frame_equal(whole["result"].iloc[1], rows(2, "b"))


def test_positions_are_those_of_the_tasks_also_where_failures_are_left_out() -> None:
    pool = udf(lambda x: 10 / x).map([1, 0, 2])
    with pytest.raises(ZeroDivisionError):
        pool.collect()
    frame = pool.collect(ignore_exceptions=True, drop_index=True)
    assert frame.index.tolist() == [0, 2]
    assert frame["result"].tolist() == [10.0, 5.0]


def test_mixed_results_are_one_column_with_a_warning_that_says_why() -> None:
    pool = udf(lambda x: pd.DataFrame({"a": [x]}) if x else x).map([1, 0])
    with pytest.warns(UserWarning, match="task 1"):
        frame = pool.collect()
    assert frame.columns.tolist() == ["result"]
    assert frame["result"].iloc[1] == 0


def test_the_arguments_come_back_as_the_frame_that_was_given() -> None:
    days = pd.to_datetime(["2026-01-01", "2026-01-02"])
    given = pd.DataFrame({"x": [1, 2], "name": ["a", None], "at": days, "part": [0.5, float("nan")]})
    pool = udf(lambda **row: len(row)).map(given)
    pool.wait()
    pd.testing.assert_frame_equal(pool.arg_df(), given, check_dtype=False)
    assert udf(lambda x: x).map(range(3)).arg_df()["x"].tolist() == [0, 1, 2]


def test_the_first_log_is_that_of_the_first_task_that_printed() -> None:
    def loud(x: int) -> None:
        if x:
            print(json.dumps({"x": x}))  # noqa: T201

    pool = udf(loud).map([0, 1, 2])
    pool.wait()
    assert pool.first_log() == '{"x": 1}\n'
    assert pool.logs() == ["", '{"x": 1}\n', '{"x": 2}\n']


def test_the_table_of_logs_can_leave_columns_out_and_give_exceptions_one_of_their_own() -> None:
    pool = udf(lambda x: 1 / x).map([1, 0])
    pool.wait()
    frame = pool.logs_df(
        status_column="state", time_column=None, logs_column=None, exception_column="error", include_exceptions=False
    )
    assert frame.columns.tolist() == ["x", "state", "result", "error"]
    assert frame["state"].tolist() == ["success", "error"]
    assert frame["result"].tolist() == [1.0, None]
    assert isinstance(frame["error"][1], ZeroDivisionError)
    assert isinstance(pool.logs_df()["result"][1], ZeroDivisionError)
    assert str(pool.logs_df()["time"].dtype).startswith("timedelta")
