from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobpool_cli.errors import DamagedPoolError
from jobpool_cli.store.outcomes import results, segments
from jobpool_cli.store.outcomes.collect import assemble
from jobpool_cli.store.outcomes.results import read_results
from jobpool_cli.store.outcomes.segments import read_outcomes
from jobpool_cli.store.values import codec as values
from tests.helpers import imports_undone


def read(books: Any, tasks: list[int] | None = None) -> list[tuple[int, object]]:
    with books.reader() as reader:
        return [each for batch in read_results(books.paths, reader, tasks) for each in batch.items()]


def test_results_come_ascending_from_segments_and_inbox_of_all_kinds(books: Any) -> None:
    books.succeed([5, 6, 0], [50, 60, 0])
    books.succeed([3, 9], ["c", None])
    books.seal()
    books.succeed([4, 1], [{"deep": (1, 2)}, object])
    books.succeed([8, 2], [80, 20])
    assert read(books) == [
        (0, 0), (1, object), (2, 20), (3, "c"), (4, {"deep": (1, 2)}), (5, 50), (6, 60), (8, 80), (9, None)
    ]  # fmt: skip


def test_only_the_wanted_results_come_and_what_has_none_is_left_out(books: Any) -> None:
    books.succeed(range(0, 20, 2), range(10))
    books.seal()
    books.succeed([1], ["one"])
    assert read(books, [18, 1, 7, 2]) == [(1, "one"), (2, 1), (18, 9)]
    assert read(books, []) == []
    assert read(books, [7]) == []


def test_segments_of_other_tasks_are_not_opened(books: Any) -> None:
    books.succeed([0, 1], [0, 1])
    books.seal()
    books.succeed([5, 6], [5, 6])
    books.seal()
    books.paths.segment(1).unlink()
    assert read(books, [6]) == [(6, 6)]
    with pytest.raises(DamagedPoolError, match=r"segment-000001.parquet cannot be read.*results of tasks 0 to 1"):
        read(books)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    order=st.permutations(range(40)),
    cuts=st.lists(st.integers(1, 39), max_size=6),
    sealed=st.lists(st.booleans(), min_size=8, max_size=8),
    group=st.sampled_from([2, 3, 7, 1000]),
    at_once=st.sampled_from([1, 3, 1000]),
)
def test_batches_that_overlap_in_any_way_come_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    books: Any,
    order: list[int],
    cuts: list[int],
    sealed: list[bool],
    group: int,
    at_once: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segments, "ROW_GROUP_ROWS", group)
        patch.setattr(results, "ROWS_AT_ONCE", at_once)
        fresh = type(books)(tmp_path_factory.mktemp("books") / "pool")
        bounds = sorted({0, 40, *cuts})
        for low, high, seal in zip(bounds, bounds[1:], sealed, strict=False):
            fresh.succeed(order[low:high], [task * task for task in order[low:high]])
            if seal:
                fresh.seal()
        fresh.writer.close()
        assert read(fresh) == [(task, task * task) for task in range(40)]
        assert read(fresh, [39, 7, 20]) == [(7, 49), (20, 400), (39, 1521)]


def test_few_values_exist_at_a_time(books: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "ROWS_AT_ONCE", 10)
    lengths: list[int] = []
    decode: Callable[..., list[object]] = values.decode

    def counted(*arguments: Any, **named: Any) -> list[object]:
        decoded = decode(*arguments, **named)
        lengths.append(len(decoded))
        return decoded

    monkeypatch.setattr(results, "decode", counted)
    books.succeed(range(95), range(95))
    books.seal()
    assert len(read(books)) == 95
    assert lengths == [10] * 9 + [5]


MANY = 500


@pytest.mark.parametrize("sealed", [False, True])
def test_results_of_classes_that_the_reader_lacks_share_copies_of_these(
    books: Any, tmp_path: Path, *, sealed: bool
) -> None:
    lines = "\n".join(f"    def method_{number}(self): return {number}" for number in range(20))
    (tmp_path / "job_of_results.py").write_text(f"class A:\n{lines}\nclass B:\n{lines}\n")
    with imports_undone():
        sys.path.insert(0, str(tmp_path))
        job: Any = __import__("job_of_results")
        books.succeed(range(MANY), [job.A() for _ in range(MANY)])
        books.succeed([MANY, MANY + 1], [job.B(), 3])
        books.succeed([MANY + 2], [None])
        if sealed:
            books.seal()
        with books.reader() as reader:
            size = sum(table["result_pickle"].nbytes for table in read_outcomes(books.paths, reader))
        assert size < 1000 * MANY
    (tmp_path / "job_of_results.py").unlink()
    found: list[Any] = [value for _, value in read(books)]
    assert [type(value).__name__ for value in found] == ["A"] * MANY + ["B", "int", "NoneType"]
    assert found[0].method_7() == 7
    assert type(found[0]) is type(found[1])
    with books.reader() as reader:
        collected = assemble([*read_outcomes(books.paths, reader)], pa.table({}), drop_index=True).to_pandas()
    assert [type(value).__name__ for value in collected["result"][:MANY]] == ["A"] * MANY


class Unreadable:
    def __reduce__(self) -> Any:  # noqa: D105
        return int, ("no number",)


def test_a_value_that_cannot_be_unpickled_names_its_task(books: Any) -> None:
    books.succeed([3, 4], [1, Unreadable()])
    with pytest.raises(DamagedPoolError, match="the result of task 4 cannot be unpickled"):
        read(books)
    assert read(books, [3]) == [(3, 1)]


def test_values_that_cannot_be_unpickled_do_not_hide_the_others(books: Any) -> None:
    books.succeed([3, 4, 5, 6], [1, Unreadable(), Unreadable(), 2])
    found: dict[int, object] = {}

    def read_all() -> None:
        with books.reader() as reader:
            for batch in read_results(books.paths, reader):
                found.update(batch)

    with pytest.raises(DamagedPoolError, match=r"task 4 .*and those of 1 more"):
        read_all()
    assert found == {3: 1, 6: 2}


def test_reading_plain_results_does_not_import_pandas(books: Any) -> None:
    books.succeed([0, 1], [0, 1])
    books.seal()
    books.succeed([2], ["x"])
    code = (
        "import sys; from pathlib import Path; from jobpool_cli.layout import PoolPaths;"
        "from jobpool_cli.store.state.reader import StateReader;"
        "from jobpool_cli.store.outcomes.results import read_results;"
        "from jobpool_cli.store.tasks import task_table; from jobpool_cli.store.logs import find_logs;"
        "paths = PoolPaths(Path(sys.argv[1])); reader = StateReader(paths.state_db);"
        "assert sum(map(len, read_results(paths, reader))) == 3;"
        "assert list(read_results(paths, reader, [1])) == [{1: 1}];"
        "task_table(paths, reader, 5, ()); task_table(paths, reader, 5, (), [1]); list(find_logs(paths, reader, ()));"
        "sys.exit('pandas' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(books.paths.root)], check=True, timeout=60)
