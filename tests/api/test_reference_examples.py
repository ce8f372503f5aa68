"""The examples of the class that is re-created run as they stand, with another import, and give what it says."""

from __future__ import annotations

import ast
import asyncio
import inspect
import sys
import types
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from jobpool_cli import JobPool

HEAD = """
import jobpool_cli as fused
"""
SQUARE = """
@fused.udf
def my_udf(x: int):
    return x ** 2
"""


def run(source: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run a source as a notebook would: as ``__main__``, with ``await`` wherever one likes; return its names."""
    path = folder / "example.py"
    path.write_text(HEAD + source)
    module = types.ModuleType("__main__")
    module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, "__main__", module)
    code = compile(path.read_text(), str(path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    found = types.FunctionType(code, vars(module))()
    if inspect.iscoroutine(found):
        asyncio.run(found)
    return vars(module)


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda source: run(source, tmp_path, monkeypatch)


def test_basic_usage(example: Any) -> None:
    found = example(
        SQUARE
        + """
# Create a pool of jobs
pool = my_udf.map([1, 2, 3, 4, 5])

# Wait and collect results as DataFrame
df = pool.collect()

# Or get raw results as list
pool.wait()
results = pool.results()  # [1, 4, 9, 16, 25]
"""
    )
    assert found["results"] == [1, 4, 9, 16, 25]
    expected = pd.DataFrame({"result": [1, 4, 9, 16, 25]}, index=pd.Index([1, 2, 3, 4, 5], name="x"))
    pd.testing.assert_frame_equal(found["df"], expected)
    assert found["my_udf"](7) == 49


def test_monitoring_progress(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = example(
        SQUARE
        + """
pool = my_udf.map(range(100))

# Show live progress
pool.tail()

# Check status
status = pool.status()  # Series of status counts
all_succeeded = pool.all_succeeded()  # True if all jobs succeeded
any_failed = pool.any_failed()  # True if any job failed
"""
    )
    assert "100 succeeded" in capsys.readouterr().out
    assert isinstance(found["status"], pd.Series)
    assert found["status"].to_dict() == {
        "pending": 0, "running": 0, "success": 100, "error": 0, "timeout": 0, "cancelled": 0,
    }  # fmt: skip
    assert found["all_succeeded"] is True
    assert found["any_failed"] is False


def test_parallel_processing_within_workers(example: Any) -> None:
    found = example(
        SQUARE
        + """
# Process 4 items in parallel within each UDF instance
pool = my_udf.map(range(1000), n_processes_per_worker=4)
df = pool.collect()
"""
    )
    assert found["df"]["result"].tolist() == [x**2 for x in range(1000)]
    assert found["pool"].manifest.options.processes_per_worker == 4


def test_local_engine_execution_leaves_no_process_after_collect(example: Any, until: Any) -> None:
    found = example(
        SQUARE
        + """
pool = my_udf.map([1, 2, 3], engine="local")
df = pool.collect()  # Pool automatically shuts down after collecting
"""
    )
    assert found["df"]["result"].tolist() == [1, 4, 9]
    until(lambda: not found["pool"].is_live())


def test_async_methods(example: Any, capsys: pytest.CaptureFixture[str]) -> None:
    found = example(
        SQUARE
        + """
pool = await my_udf.map_async([1, 2, 3])

await pool.wait_async()
results = await pool.results_async()
results_now = await pool.results_now_async()
errors = await pool.errors_async()
first_error = await pool.first_error_async()
logs = await pool.logs_async()
first_log = await pool.first_log_async()
logs_df = await pool.logs_df_async()
success = await pool.success_async()
await pool.tail_async()
await pool.cancel_async()
"""
    )
    assert found["results"] == [1, 4, 9]
    assert found["results_now"] == found["success"] == {0: 1, 1: 4, 2: 9}
    assert found["errors"] == {}
    assert found["first_error"] is None
    assert found["first_log"] is None
    assert found["logs"] == ["", "", ""]
    assert found["logs_df"].columns.tolist() == ["x", "status", "result", "time", "logs"]
    assert found["logs_df"]["result"].tolist() == [1, 4, 9]
    assert "3 succeeded" in capsys.readouterr().out


# Names, and the arguments that they take with their defaults, as the page has them.
REFERENCE: dict[str, dict[str, object]] = {
    "all_succeeded": {},
    "any_failed": {},
    "any_succeeded": {},
    "arg_df": {},
    "cancel": {"wait": False},
    "cancelled": {},
    "collect": {"ignore_exceptions": False, "flatten": True, "drop_index": False},
    "df": {"ignore_exceptions": False, "flatten": True, "drop_index": False},
    "done": {},
    "errors": {},
    "first_error": {},
    "first_log": {},
    "logs": {},
    "logs_df": {
        "status_column": "status",
        "result_column": "result",
        "time_column": "time",
        "logs_column": "logs",
        "exception_column": None,
        "include_exceptions": True,
    },
    "pending": {},
    "results": {"return_exceptions": False},
    "results_now": {"return_exceptions": False},
    "retry": {},
    "running": {},
    "shutdown": {"wait": True},
    "status": {},
    "success": {},
    "tail": {"stop_on_exception": False},
    "times": {},
    "total_time": {"since_retry": False},
    "wait": {},
}


@pytest.mark.parametrize("name", REFERENCE)
def test_arguments_come_in_the_order_of_the_page_and_have_its_defaults(name: str) -> None:
    parameters = list(inspect.signature(getattr(JobPool, name)).parameters.values())[1:]
    theirs = REFERENCE[name]
    assert {each.name: each.default for each in parameters[: len(theirs)]} == theirs
    assert all(each.default is not inspect.Parameter.empty for each in parameters)
    assert all(each.kind is each.POSITIONAL_OR_KEYWORD for each in parameters[: len(theirs)])


def test_the_number_of_jobs_is_an_attribute() -> None:
    assert isinstance(JobPool.n_jobs, property)
