from __future__ import annotations

import functools
import json
import math
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jobpool_cli.decorator import udf
from jobpool_cli.errors import InputError
from jobpool_cli.store.arguments.signature import Signature
from jobpool_cli.store.snapshot import MANIFEST, Kind, read_snapshot, snapshot_files, verify_snapshot
from jobpool_cli.worker.loading import load_snapshot
from jobpool_cli.worker.travelling import python_udf
from tests.helpers import imports_undone


@pytest.fixture(autouse=True)
def _imports_undone() -> Iterator[None]:
    with imports_undone():
        yield


LOCK = threading.Lock()
CONFIG = SimpleNamespace(session=SimpleNamespace(lock=LOCK))


def locking(x: int) -> int:
    with CONFIG.session.lock:
        return x


def test_a_function_of_an_importable_module_travels_as_source(tmp_path: Path) -> None:
    given = python_udf(udf(locking))
    taken = given.take(tmp_path / "v1", 1)
    assert (taken.kind, taken.module, taken.function) == (Kind.MODULE, __name__, "locking")
    assert given.entry == f"{__file__}:locking"
    assert "tests/worker/test_travelling.py" in snapshot_files(tmp_path / "v1")
    assert read_snapshot(tmp_path / "v1") == taken
    verify_snapshot(tmp_path / "v1")


@pytest.mark.parametrize(("function", "expected"), [(math.sqrt, 2.0), (math.log2, 2.0), (np.sqrt, 2.0), (abs, 4)])
def test_what_is_installed_travels_by_its_name_and_takes_one_value(
    tmp_path: Path, function: Callable[..., Any], expected: float
) -> None:
    given = python_udf(function)
    taken = given.take(tmp_path / "v1", 1)
    assert set(snapshot_files(tmp_path / "v1")) == {"function.pickle"}
    loaded = load_snapshot(tmp_path / "v1", taken)
    assert loaded(4) == expected
    assert Signature.of(loaded).parameters[0].required


def test_a_built_in_that_does_not_tell_its_parameters_takes_one_value() -> None:
    given = python_udf(math.log)
    assert given.function(math.e) == 1.0
    assert [each.name for each in Signature.of(given.function).parameters] == ["value"]


def test_a_pickle_of_another_python_is_refused_in_words(tmp_path: Path) -> None:
    python_udf(lambda x: x).take(tmp_path / "v1", 1)
    manifest = tmp_path / "v1" / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"python": "3.2"}))
    with pytest.raises(InputError, match=r"pickled by Python 3\.2, and this is Python 3\."):
        load_snapshot(tmp_path / "v1", read_snapshot(tmp_path / "v1"))


def default_lock(x: int, lock: object = LOCK) -> object:
    return (x, lock)


def connecting() -> Callable[..., Any]:
    connection = sqlite3.connect(":memory:")
    return lambda x: connection.execute("select ?", (x,))


def nesting() -> Callable[..., Any]:
    settings = {"locks": [1, LOCK]}

    def inner(x: int) -> object:
        return settings, x

    return lambda x: inner(x + 1)


def copied(function: Any) -> Callable[..., Any]:
    """Return the same function as no module has it."""
    return FunctionType(
        function.__code__, function.__globals__, "<locals>.f", function.__defaults__, function.__closure__
    )


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (copied(locking), "uses `CONFIG.session.lock`, a _thread.lock, which"),
        (copied(default_lock), "uses the default of `lock`, a _thread.lock"),
        (connecting(), "uses `connection`, a sqlite3.Connection"),
        (nesting(), "uses `settings['locks'][1]` (by way of `inner`), a _thread.lock"),
        (functools.partial(max, LOCK), "uses the partial's `args[0]`, a _thread.lock"),
        (SimpleNamespace(a=[LOCK]).a.append, "cannot be sent"),
    ],
)
def test_what_cannot_be_sent_is_named_with_the_way_to_it(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        python_udf(function)
    assert message in caught.value.message
    assert "cannot pickle" in caught.value.message
    assert caught.value.hint


class Called:
    def __call__(self) -> Iterator[int]:
        yield 1


async def later(x: int) -> int:
    return x


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (later, "later is an async function"),
        (functools.partial(later, 1), "is an async function"),
        (Called(), "Called is a generator"),
        (int, "int is a class"),
    ],
)
def test_what_calling_would_not_compute_is_refused(function: Callable[..., Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        python_udf(function)
