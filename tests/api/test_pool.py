from __future__ import annotations

import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from jobpool_cli import JobPool, options, udf
from jobpool_cli.errors import ConflictError, NoSuchPoolError, UsageError, WaitTimeoutError
from jobpool_cli.model import TaskState
from tests.conftest import ROOT


def reciprocal(x: int) -> float:
    """Fail for 0."""
    print(f"1/{x}")  # noqa: T201
    return 1 / x


@pytest.fixture
def pool() -> JobPool[float]:
    made = udf(reciprocal).map([2, 0, 4], name="reciprocals")
    made.wait()
    return made


def test_a_task_has_its_result_exception_logs_status_time_attempts_and_arguments(pool: JobPool[float]) -> None:
    task = pool[0]
    assert (task.index, task.status, task.attempts, task.result, task.exception) == (0, "success", 1, 0.5, None)
    assert task.logs == "1/2\n"
    assert task.arguments == {"x": 2}
    assert task.time is not None
    assert 0 <= task.time.total_seconds() < 1
    failed = pool[1]
    assert failed.status is TaskState.ERROR
    assert isinstance(failed.exception, ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        _ = failed.result
    assert failed.logs is not None
    assert failed.logs.startswith("1/0\nTraceback")


def test_tasks_are_counted_from_either_end_sliced_and_iterated(pool: JobPool[float]) -> None:
    assert len(pool) == pool.n_jobs == 3
    assert pool[-1].result == 0.25
    assert [task.index for task in pool[::-1]] == [2, 1, 0]
    assert [task.status for task in pool] == ["success", "error", "success"]
    assert [task.result for task in pool if task.status == "success"] == [0.5, 0.25]
    for index in (3, -4):
        with pytest.raises(IndexError, match="3 tasks"):
            _ = pool[index]


def test_a_task_that_has_not_ended_says_so(
    wait_at_gate: Callable[[int], int], gate: Path, until: Callable[..., None]
) -> None:
    made = udf(wait_at_gate).map(range(4), max_workers=1)
    until(made.running)
    with pytest.raises(ConflictError, match=r"task 3 of .* is pending"):
        _ = made[3].result
    assert made[3].logs is None
    assert made[3].time is None
    assert made[3].attempts == 0
    assert made.running() == {0: 0}
    assert made.pending() == {1: 1, 2: 2, 3: 3}
    assert made.times() == [None] * 4
    assert made.logs() == [None] * 4
    frame = made.logs_df()
    assert frame["status"].tolist() == ["running", "pending", "pending", "pending"]
    assert frame["result"].tolist() == [None] * 4
    seen = iter(made)
    assert next(seen).status == "running"
    gate.touch()
    made.wait()
    assert next(seen).index == 1


def test_results_are_read_as_one_stream_when_one_iterates(monkeypatch: pytest.MonkeyPatch) -> None:
    made = udf(lambda x: x).map(range(20_000), wait=True)
    calls = []
    original = JobPool.iter_results

    def counted(self: JobPool[int], *rest: Any) -> Any:
        calls.append(rest)
        return original(self, *rest)

    monkeypatch.setattr(JobPool, "iter_results", counted)
    assert [task.result for task in made] == list(range(20_000))
    assert len(calls) == 1


def test_results_now_raises_the_first_failure_or_returns_it(pool: JobPool[float]) -> None:
    with pytest.raises(ZeroDivisionError):
        pool.results_now()
    found = pool.results_now(return_exceptions=True)
    assert list(found) == [0, 1, 2]
    assert isinstance(found[1], ZeroDivisionError)
    assert pool.success() == {0: 0.5, 2: 0.25}
    assert isinstance(pool.first_error(), ZeroDivisionError)
    assert (pool.any_failed(), pool.any_succeeded(), pool.all_succeeded(), pool.done()) == (True, True, False, True)


def test_a_pool_tells_its_name_and_state_and_shows_a_bar_in_a_notebook(pool: JobPool[float]) -> None:
    assert repr(pool) == "<JobPool reciprocals: done, 3 tasks: 2 success, 1 error>"
    page = pool._repr_html_() or ""
    assert "reciprocals" in page
    assert "<script" not in page
    (pool.paths.state_db).unlink()
    assert "unreadable" in repr(pool)
    assert pool._repr_html_() is None


def test_a_pool_pickles_by_name(pool: JobPool[float], tmp_path: Path) -> None:
    data = pickle.dumps(pool)
    assert len(data) < 500
    again = pickle.loads(data)
    assert again == pool
    assert hash(again) == hash(pool)
    assert again != udf(reciprocal).map([1])
    (tmp_path / "data").write_bytes(data)
    code = f"import pickle; print(pickle.load(open({str(tmp_path / 'data')!r}, 'rb')).n_jobs)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "3\n"
    pool.remove()
    with pytest.raises(NoSuchPoolError):
        pickle.loads(data)


def test_a_block_waits_at_its_end_and_after_an_error_leaves_the_rest_pending(
    wait_at_gate: Callable[[int], int], gate: Path, until: Callable[..., None]
) -> None:
    def begin(pool: JobPool[int]) -> None:
        until(pool.running)
        gate.touch()
        raise KeyError("something else")

    with pytest.raises(KeyError), udf(wait_at_gate).map(range(50), max_workers=1) as failed:
        begin(failed)
    assert not failed.is_live()
    with udf(wait_at_gate).map(range(3)) as finished:
        pass
    assert finished.all_succeeded()
    if not failed.done():
        failed.resume()
    assert failed.results() == list(range(50))


def test_debug_runs_one_task_here_and_changes_nothing(
    pool: JobPool[float], capsys: pytest.CaptureFixture[str], until: Callable[..., None]
) -> None:
    def files() -> dict[Path, int]:
        # Whoever reads an SQLite database in WAL mode touches the two files beside it.
        there = [path for path in pool.paths.root.rglob("*") if not path.name.startswith("state.db-")]
        return {path: path.stat().st_mtime_ns for path in there if path.is_file()}

    until(lambda: not pool.is_live())
    before = files()
    assert pool.debug(0) == 0.5
    assert capsys.readouterr().out == "1/2\n"
    with pytest.raises(ZeroDivisionError):
        pool.debug(1)
    assert files() == before


def test_a_pool_can_be_removed_as_soon_as_it_is_done() -> None:
    for number in range(5):
        made = udf(reciprocal).map([1], name=f"short-{number}")
        made.results()
        made.remove()
    assert JobPool.list() == []


READING = [
    "status", "results", "results_now", "success", "errors", "first_error", "logs", "first_log", "logs_df", "arg_df",
    "pending", "times", "done", "tail", "collect", "cancel", "retry", "resume", "remove",
]  # fmt: skip


@pytest.mark.parametrize("name", READING)
def test_of_a_pool_that_is_gone_every_method_says_so(pool: JobPool[float], name: str) -> None:
    pool.paths.root.rename(pool.paths.root.with_name("elsewhere"))
    with pytest.raises(NoSuchPoolError, match="reciprocals is gone"):
        getattr(pool, name)()
    assert "gone" in repr(pool)
    JobPool.open("elsewhere").remove()


def test_an_object_does_not_mistake_another_pool_of_the_same_name_for_its_own(pool: JobPool[float]) -> None:
    JobPool.open("reciprocals").remove()
    other = udf(reciprocal).map([5], name="reciprocals")
    for name in READING:
        with pytest.raises(NoSuchPoolError, match="another one has its name"):
            getattr(pool, name)()
    assert other.results() == [0.2]
    assert JobPool.open("reciprocals") == other


def test_a_pool_whose_description_was_written_anew_is_still_the_same(pool: JobPool[float]) -> None:
    content = pool.paths.pool_json.read_bytes()
    pool.paths.pool_json.unlink()
    assert pool.done()
    pool.paths.pool_json.write_bytes(content)
    assert pool.success() == {0: 0.5, 2: 0.25}


def test_a_wait_takes_a_length_of_time_in_any_form(wait_at_gate: Callable[[int], int], gate: Path) -> None:
    made = udf(wait_at_gate).map([1])
    for limit in (0.02, timedelta(milliseconds=20), "20ms"):
        with pytest.raises(WaitTimeoutError, match=r"within 0\.02 s"):
            made.wait(limit)
    for wrong in ("soon", float("nan"), [1]):
        with pytest.raises(UsageError):
            made.wait(wrong)  # type: ignore[arg-type]  # a mistake
    gate.touch()
    made.wait("1m")


@pytest.mark.parametrize("name", [None, 5])
def test_a_name_that_is_no_text_is_refused(name: Any) -> None:
    with pytest.raises(UsageError, match="pool's name"):
        JobPool.open(name)


def test_a_misspelt_option_is_no_silent_no() -> None:
    with pytest.raises(AttributeError, match="enable_tqdm"):
        options.show.enable_tdqm = False  # type: ignore[attr-defined]


def test_no_bar_and_no_word_where_nobody_watches(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(options.show, "enable_tqdm", True)
    udf(time.sleep).map([0.01] * 10).wait()
    assert capfd.readouterr() == ("", "")


def test_a_wait_that_took_too_long_is_a_timeout_like_any_other(wait_at_gate: Callable[[int], int], gate: Path) -> None:
    made = udf(wait_at_gate).map([1])
    with pytest.raises(TimeoutError, match="was not done within") as caught:
        made.wait(0.05)
    assert str(caught.value).count("was not done") == 1
    gate.touch()
    made.wait("1m")
