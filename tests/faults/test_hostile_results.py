"""Whatever a function returns comes back exactly, or is a typed error of its task alone."""

from __future__ import annotations

import math
from typing import Any

import pytest

from jobpool_cli.model import TaskState
from tests.faults.harness import Faults
from tests.helpers import results_of

# Run in the worker and here: what each expression gives here is what must come back.
TOP = """
import collections, datetime, decimal, enum, fractions, math, os, pathlib, threading, types, uuid, zoneinfo
import numpy as np
import pandas as pd

class Colour(enum.Enum):
    RED = 1
class Point(collections.namedtuple("Point", "x y")):
    pass
class Text(str):
    pass
class Plain:
    def __init__(self, value): self.value = value
    def __repr__(self): return f"Plain({self.value!r})"
class NeverEqual(Plain):
    def __eq__(self, other): raise RuntimeError("do not compare me")
    __hash__ = None
class ReduceRaises:
    def __reduce__(self): raise RuntimeError("no pickle of me")
class ReduceExits:
    def __reduce__(self): raise SystemExit(3)
class ReduceInterrupts:
    def __reduce__(self): raise KeyboardInterrupt
class LoadRaises:
    def __reduce__(self): return _refuse, ()
class ReprRaises:
    def __repr__(self): raise RuntimeError("no repr of me")
    def __reduce__(self): raise ValueError(self)
def _refuse(): raise RuntimeError("not loaded again")
def _nested(depth):
    found = []
    for _ in range(depth): found = [found]
    return found
Berlin = zoneinfo.ZoneInfo("Europe/Berlin")
"""
VALUES = [
    "None", "float('nan')", "float('inf')", "-0.0", "5e-324", "True", "0", "-2**63", "2**63 - 1", "2**63", "2**64",
    "10**60", "-10**60", "''", "'\\0'", "'\\ud800'", "'ü\\u202e'", "b''", "b'\\0\\xff'", "bytearray(b'x')",
    "datetime.datetime(2024, 1, 1)", "datetime.datetime(2024, 10, 27, 2, 30, fold=1, tzinfo=Berlin)",
    "datetime.datetime(1, 1, 1)", "datetime.datetime.max",
    "datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)",
    "datetime.date(2024, 2, 29)", "datetime.time(1, 2, 3, 4)", "datetime.timedelta(days=-1, microseconds=1)",
    "pd.Timestamp('2024-03-31 03:00', tz='Europe/Berlin')", "pd.NaT", "pd.NA", "pd.Timedelta(1, 'ns')",
    "decimal.Decimal('1.10')", "decimal.Decimal('NaN')", "decimal.Decimal('1e-400')", "fractions.Fraction(1, 3)", "1j",
    "np.int64(-2**63)", "np.uint64(2**64 - 1)", "np.float32('nan')", "np.bool_(True)", "np.datetime64('NaT')",
    "np.arange(3)", "np.array([None, 1], dtype=object)", "uuid.UUID(int=7)", "pathlib.PurePosixPath('/x')",
    "Colour.RED",
    "(1, 'a', None)", "[]", "[1, 'a', 2.5, None, [2**70]]", "{1: 'a', 'b': {2.5: None}}", "{}", "{1, 2}", "range(3)",
    "Point(1, math.nan)", "Text('x')", "Plain([1, Plain(None)])", "NeverEqual(4)", "Ellipsis", "slice(1, None)", "int",
    "pd.DataFrame({'a': [1, 2], 'b': ['x', None]})", "pd.Series([1.5, math.nan], name='s')", "pd.DataFrame()",
]  # fmt: skip
UNSTORABLE = [
    "(each for each in ())", "threading.Lock()", "ReduceRaises()", "ReduceExits()", "ReduceInterrupts()",
    "ReprRaises()", "_nested(100_000)", "[1, ReduceRaises()]",
    "{'a': threading.Lock()}", "Plain(ReduceExits())",
]  # fmt: skip


def case(expressions: list[str]) -> str:
    """Return a UDF of which each task returns one of the expressions' values, all others the square."""
    shown = "".join(f"    if x == {number}: return {each}\n" for number, each in enumerate(expressions))
    return f"{TOP}\ndef f(x: int) -> object:\n    _audit()\n{shown}    return x * x\n"


@pytest.mark.scenario(39)
def test_every_value_comes_back_as_it_was_or_fails_its_task_with_the_reason(faults: Faults) -> None:
    """Scenario 39: mixed results, NaN, None, int64 extremes, huge ints, tz timestamps, an unpicklable value."""
    expressions = VALUES + UNSTORABLE
    pool = faults.map(case(expressions), 100)
    faults.injected(len(expressions))
    faults.ended(pool)
    failed = {each.task: each for each in pool.failures()}
    assert {expressions[task] for task in failed} == set(UNSTORABLE)
    assert {each.type for each in failed.values()} == {"ResultNotStorable"}
    assert all("return plain data" in each.message for each in failed.values())
    assert pool.snapshot().counts[TaskState.SUCCESS] == 100 - len(UNSTORABLE)
    assert set(faults.audit().values()) == {1}
    expected: dict[str, Any] = {}
    exec(TOP, expected)  # noqa: S102 - the same lines as in the worker
    results = results_of(pool)
    wrong = {}
    for task in set(results) - set(failed):
        value = eval(expressions[task], expected) if task < len(expressions) else task * task  # noqa: S307
        if shown(results[task]) != shown(value):
            wrong[expressions[task]] = (shown(results[task]), shown(value))
    assert not wrong
    faults.check(pool, None)


@pytest.mark.scenario(39)
def test_a_value_that_pickles_and_does_not_load_is_a_typed_error_where_it_is_read(faults: Faults) -> None:
    """Scenario 39: a pickle that raises where it is loaded: the others are read, and the error names the task."""
    pool = faults.map(case(["LoadRaises()"]), 3)
    faults.injected()
    faults.ended(pool)
    told = faults.jobpool("results", pool.name, code=5)
    assert told.stdout.splitlines() == ["1\t1", "2\t4"]
    assert "the result of task 0 cannot be unpickled: RuntimeError: not loaded again" in told.stderr
    assert len(pool.gather(ignore_exceptions=True).to_pandas()) == 2


def shown(value: object) -> tuple[str, str]:
    """Return a value's type and all of its content as text: NaN differs from itself, -0.0 equals 0."""
    if isinstance(value, float) and math.isnan(value):
        return type(value).__qualname__, "nan"
    return type(value).__qualname__, f"{value!r}"


ERRORS_TOP = """
class StrRaises(Exception):
    def __str__(self): raise RuntimeError("no text of me")
class StrExits(Exception):
    def __str__(self): raise SystemExit(3)
class StrInterrupts(Exception):
    def __str__(self): raise KeyboardInterrupt
class StrIsNone(Exception):
    def __str__(self): return None
class ReprRaises(Exception):
    def __repr__(self): raise RuntimeError("no repr of me")
class ReduceRaises(Exception):
    def __reduce__(self): raise RuntimeError("no pickle of me")
class ReduceExits(Exception):
    def __reduce__(self): raise SystemExit(3)
class LoadExits(Exception):
    def __reduce__(self): return sys.exit, (3,)
class NotesRaise(Exception):
    @property
    def __notes__(self): raise RuntimeError("no notes of me")
class TwoArguments(Exception):
    def __init__(self, a, b): super().__init__(f"{a} and {b}")
class Holds(Exception):
    def __init__(self): self.lock = open(os.devnull)
class OddName(Exception): pass
OddName.__qualname__ = "\\udcff"
class AttributesExit(Exception):
    def __getattribute__(self, name):
        if name.startswith("__notes"): raise SystemExit(3)
        return super().__getattribute__(name)
def _cycle():
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    return first
def _chain():
    error = ValueError(0)
    for each in range(5000):
        following = ValueError(each); following.__context__ = error; error = following
    return error
def _deep(n): return _deep(n + 1)
"""
ERRORS = {
    "raise StrRaises": ("StrRaises", "RuntimeError"),
    "raise StrExits": ("StrExits", "SystemExit"),
    "raise StrInterrupts": ("StrInterrupts", "KeyboardInterrupt"),
    "raise StrIsNone": ("StrIsNone", "TypeError"),
    "raise ReprRaises('x')": ("ReprRaises", "x"),
    "raise ReduceRaises('x')": ("ReduceRaises", "x"),
    "raise ReduceExits('x')": ("ReduceExits", "x"),
    "raise LoadExits('x')": ("LoadExits", "x"),
    "raise NotesRaise('x')": ("NotesRaise", "x"),
    "raise TwoArguments(1, 2)": ("TwoArguments", "1 and 2"),
    "raise Holds": ("Holds", ""),
    "raise AttributesExit('x')": ("AttributesExit", "x"),
    "raise ValueError('\\ud800\\0')": ("ValueError", "\\ud800\0"),
    "raise ValueError('x' * 10_000_000)": ("ValueError", "xxxx"),
    "raise _cycle()": ("ValueError", "first"),
    "raise _chain()": ("ValueError", "4999"),
    "_deep(0)": ("RecursionError", "maximum recursion depth"),
    "raise ValueError(StrRaises())": ("ValueError", "RuntimeError"),
    "raise type('Made', (Exception,), {'__module__': None})('x')": ("Made", "x"),
    "raise OddName('\\udcff\\0')": ("\\udcff", "\\udcff"),
    "exec(compile('1/0', '\\udcff.py', 'exec'))": ("ZeroDivisionError", "division by zero"),
    "raise ExceptionGroup('many', [StrRaises(), ReduceExits()])": ("ExceptionGroup", "many"),
}


@pytest.mark.scenario(39)
def test_every_exception_is_recorded_with_its_type_whatever_its_methods_do(faults: Faults) -> None:
    """Scenario 39: an exception whose ``__str__`` raises, exits, is no text; one that cannot be pickled or shown."""
    deeds = "".join(f"    if x == {number}: {each}\n" for number, each in enumerate(ERRORS))
    pool = faults.map(f"{ERRORS_TOP}def f(x: int) -> int:\n    _audit()\n{deeds}    return x * x\n", 100)
    faults.injected(len(ERRORS))
    faults.ended(pool)
    failed = {each.task: each for each in pool.failures()}
    wrong = {}
    for task, (deed, (kind, message)) in enumerate(ERRORS.items()):
        told = failed.get(task)
        if told is None or told.type.rpartition(".")[2] != kind or message not in told.message or told.attempt != 1:
            wrong[deed] = (told and told.type, str(told)[:300])
    assert not wrong
    assert set(failed) == set(range(len(ERRORS)))
    assert set(faults.audit().values()) == {1}
    assert "StrRaises" in faults.jobpool("errors", pool.name, "--list").stdout
    assert "Most" not in faults.jobpool("errors", pool.name, *(f"--task={task}" for task in failed)).stderr
    faults.check(pool)
