from __future__ import annotations

import asyncio
import base64
import threading
import traceback
from typing import Any

import pytest

from jobpool_cli import errors
from jobpool_cli.errors import RemoteError, RemoteTraceback
from jobpool_cli.model import Failure, TaskState
from jobpool_cli.store.outcomes.exceptions import restore
from jobpool_cli.worker.failure import describe


class Composed(Exception):  # noqa: N818
    def __init__(self, code: int, *, why: str) -> None:  # noqa: D107
        super().__init__(f"{code}: {why}")
        self.code = code
        self.why = why


class Silent(Exception):  # noqa: N818
    def __init__(self, text: str = "changed") -> None:  # noqa: D107
        super().__init__(f"<{text}>")


class Slotted(Exception):  # noqa: N818
    __slots__ = ("place",)

    def __init__(self, place: str) -> None:  # noqa: D107
        super().__init__("at " + place)
        self.place = place


class Holding(Exception):  # noqa: N818
    def __init__(self, text: str) -> None:  # noqa: D107
        super().__init__(text, threading.Lock())
        self.lock = threading.Lock()
        self.kept = [1]


class Unspeakable(Exception):  # noqa: N818
    def __str__(self) -> str:  # noqa: D105
        raise RuntimeError("no text")


class Rebellious(Exception):  # noqa: N818
    def __reduce__(self) -> Any:  # noqa: D105
        raise RuntimeError("no")

    def __setattr__(self, name: str, value: object) -> None:  # noqa: D105
        raise AttributeError(name)


class Disk(OSError):  # noqa: N818
    def __init__(self, code: int, text: str, size: int) -> None:  # noqa: D107
        super().__init__(code, text)
        self.size = size


class Telling(Exception):  # noqa: N818
    task = "the user's own"


def failure_of(error: BaseException) -> tuple[Failure, bytes | None]:
    try:
        raise error  # noqa: TRY301 - a traceback is what it is for
    except BaseException as raised:  # noqa: BLE001
        told = describe(raised)
    failure = Failure(
        task=17, attempt=1, state=TaskState.ERROR, type=told["type"], message=told["message"], where=None,
        traceback=f"{told['frames']}{told['type']}: {told['message']}", started=None, duration=None, worker=1, log=None,
        udf=1,
    )  # fmt: skip
    return failure, base64.b64decode(told["exception"]) if told["exception"] is not None else None


def came_back(error: BaseException) -> Any:
    failure, pickle = failure_of(error)
    return restore(failure, pickle, pool="square-1", arguments={"x": 3, "y": "a"})


@pytest.mark.parametrize(
    "error",
    [
        ValueError("a", 1),
        KeyError("k"),
        Composed(3, why="because"),
        Silent(),
        Slotted("here"),
        FileNotFoundError(2, "no such file", "/f"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        StopIteration(5),
        Disk(28, "no room", 5),
        Telling("x"),
        ExceptionGroup("group", [Composed(1, why="a"), ValueError("b")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_exceptions_come_back_with_type_text_args_and_attributes(error: Exception) -> None:
    found = came_back(error)
    assert type(found) is type(error)
    assert str(found) == str(error)
    assert repr(found.args) == repr(error.args)
    kept = {"__notes__", "task", "arguments", "remote_traceback"}
    assert {name: value for name, value in vars(found).items() if name not in kept} == vars(error)
    if isinstance(error, Slotted | Disk):
        attribute = "place" if isinstance(error, Slotted) else "size"
        assert getattr(found, attribute) == getattr(error, attribute)
    if isinstance(error, OSError):
        assert found.errno == error.errno  # type: ignore[attr-defined]
    if isinstance(found, ExceptionGroup):
        assert vars(found.exceptions[0]) == {"code": 1, "why": "a"}


def test_they_tell_which_task_it_was_and_show_the_remote_traceback_first() -> None:
    found = came_back(ValueError("bad"))
    assert (found.task, found.arguments) == (17, {"x": 3, "y": "a"})
    assert found.__notes__ == ["task 17 of square-1: x=3, y='a'"]
    assert found.remote_traceback.endswith("ValueError: bad")
    assert isinstance(found.__cause__, RemoteTraceback)
    text = "".join(traceback.format_exception(found))
    remote, own = text.split("The above exception was the direct cause of the following exception:")
    assert "in failure_of" in remote
    assert "raise error" in remote
    assert own.strip() == "ValueError: bad\ntask 17 of square-1: x=3, y='a'"


def test_notes_of_the_user_s_come_before_ours_and_stand_in_the_remote_traceback() -> None:
    error = ValueError("bad")
    error.add_note("mine")
    found = came_back(error)
    assert found.__notes__[0] == "mine"
    assert len(found.__notes__) == 2
    assert found.remote_traceback.endswith("ValueError: bad\nmine")
    assert str(found) == "bad"


def test_a_syntax_error_s_place_stands_in_the_remote_traceback() -> None:
    try:
        compile("a b", "<text>", "exec")
    except SyntaxError as error:
        found = came_back(error)
    assert "    a b\n" in found.remote_traceback
    assert (found.lineno, found.text) == (1, "a b\n")


def test_parts_that_cannot_be_sent_stay_behind_and_the_type_comes_back() -> None:
    found = came_back(Holding("text"))
    assert type(found) is Holding
    assert found.args[0] == "text"
    assert "lock" in found.args[1]
    assert found.kept == [1]
    assert not hasattr(found, "lock")


@pytest.mark.parametrize("error", [Unspeakable("x"), Rebellious("x")], ids=lambda error: type(error).__name__)
def test_exceptions_whose_own_methods_raise_keep_their_type(error: Exception) -> None:
    found = came_back(error)
    assert type(found) is type(error)
    assert found.args == ("x",)
    assert isinstance(found.__cause__, RemoteTraceback)


def test_huge_exceptions_come_back_shorter() -> None:
    found = came_back(ValueError("start " + "y" * 5_000_000))
    assert type(found) is ValueError
    assert str(found).startswith("start yyy")
    assert "5000006 characters in all" in str(found)


@pytest.mark.parametrize(
    "error", [SystemExit(3), KeyboardInterrupt("stop"), asyncio.CancelledError("c"), GeneratorExit()]
)
def test_what_would_end_the_reader_comes_as_an_error_that_names_it(error: BaseException) -> None:
    found = came_back(error)
    assert type(found) is RemoteError
    assert found.type.endswith(type(error).__name__)
    assert str(found).startswith(found.type)
    assert vars(found)["task"] == 17


def test_classes_that_only_the_worker_had_come_by_value_or_as_an_error_that_names_them() -> None:
    class Local(Exception):  # noqa: N818
        pass

    assert type(came_back(Local("x"))) is Local
    failure, _ = failure_of(Local("x"))
    for pickle in (None, b"broken"):
        found = restore(failure, pickle, pool="p", arguments={})
        assert isinstance(found, RemoteError)
        assert found.message == "x"
        assert found.type.endswith("Local")


@pytest.mark.parametrize(
    ("name", "builtin"),
    [("WorkerCrashed", Exception), ("TaskTimeout", TimeoutError), ("MemoryLimitExceeded", MemoryError)],
)
def test_failures_that_no_exception_stands_for_have_types_of_their_own(name: str, builtin: type[Exception]) -> None:
    failure, _ = failure_of(ValueError())
    failure = failure._replace(type=name, message="what happened", traceback="")
    found = restore(failure, None, pool="p", arguments={})
    assert type(found) is getattr(errors, name)
    assert isinstance(found, builtin)
    assert str(found) == "what happened"
    assert found.__cause__ is None


def test_long_arguments_do_not_make_long_notes() -> None:
    failure, pickle = failure_of(ValueError())
    found = restore(failure, pickle, pool="p", arguments={f"a{n}": "x" * 10_000 for n in range(100)})
    (note,) = found.__notes__
    assert len(note) < 500
    assert "\n" not in note
