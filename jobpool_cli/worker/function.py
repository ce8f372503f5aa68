"""Finding the user's function in the user's file, at `map`; ``loading`` does the same from a pool's snapshot.

Both run the file under one module name that both sides derive alike, so that what is pickled on one side (a class of
the user's, an exception) is found on the other. That name is never ``__main__``.
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from jobpool_cli import errors
from jobpool_cli.errors import InputError, JobPoolError
from jobpool_cli.store.reentry import importing_now
from jobpool_cli.store.snapshot import Snapshot, take_snapshot
from jobpool_cli.worker.importing import guarded_import

# Set on a module that was run from a UDF's file, so that a second UDF of the same file name may take its place.
MODULE_MARK = "__jobpool_module__"
_PACKAGE = os.path.dirname(errors.__file__) + os.sep


@dataclass(frozen=True)
class LocatedUdf:
    """The user's function, found in the user's file."""

    path: Path
    name: str
    function: Callable[..., Any]

    @property
    def entry(self) -> str:
        """The entry point for people: ``file.py:function``."""
        return f"{self.path}:{self.name}"

    def take(self, folder: Path, version: int) -> Snapshot:
        """Snapshot the code; see ``take_snapshot``."""
        return take_snapshot(self.path, self.name, folder, version)


def locate_udf(spec: str) -> LocatedUdf:
    """Import ``file.py`` or ``file.py:name`` and pick the function to run.

    Without a name: the function decorated with ``@udf``, else the only public function that the file defines.

    Raises:
        InputError: there is no such file, it does not import, or the function is not clear.
    """
    path, name = _split(spec)
    _check_file(path)
    with guarded_import(), _first_on_path(path.parent):
        module = run_file(path, compile_source(path, _read_source(path)))
    if name is None:
        name = _choose(module, path)
    return LocatedUdf(path=path, name=name, function=pick(module, path, name))


def module_name(path: Path) -> str:
    """The name under which a UDF's file is imported: its own, where that is possible and safe."""
    stem = path.stem
    if stem.isidentifier() and stem not in sys.stdlib_module_names and not stem.startswith("__"):
        present = sys.modules.get(stem)
        if present is None or hasattr(present, MODULE_MARK):
            return stem
    return "udf_" + re.sub(r"\W", "_", stem)


def _split(spec: str) -> tuple[Path, str | None]:
    """``file.py:name`` in its two parts; a colon that belongs to the file's name is left there."""
    if ":" in spec and not Path(spec).exists():
        file, _, name = spec.rpartition(":")
        if not name.isidentifier():
            raise InputError(
                f"{spec!r} names no function: {name!r} is not a Python name", "write FILE.py or FILE.py:NAME"
            )
        return Path(file).expanduser().absolute(), name
    return Path(spec).expanduser().absolute(), None


def _check_file(path: Path) -> None:
    """Refuse what cannot be a Python file, before Python does so less clearly."""
    if path.is_dir():
        raise InputError(f"{path} is a folder, not a Python file", "name the file that holds the function")
    if not path.exists():
        try:
            names = [each.name for each in path.parent.iterdir() if each.suffix == ".py"]
        except OSError:
            names = []
        close = difflib.get_close_matches(path.name, names, n=1)
        hint = f"did you mean {path.with_name(close[0])}?" if close else "check the path of the Python file"
        raise InputError(f"there is no file {path}", hint)
    if path.suffix != ".py":
        raise InputError(f"{path} is not a Python file: its name does not end in .py", "write FILE.py or FILE.py:NAME")


def _read_source(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from error


def compile_source(path: Path, content: bytes) -> CodeType:
    """Compile the source under the path that the user knows."""
    try:
        return compile(content, str(path), "exec", dont_inherit=True)
    except SyntaxError as error:
        line = f"\n    {error.text.strip()}" if error.text else ""
        raise InputError(
            f"{path}:{error.lineno or 1}: {error.msg}{line}", "correct the syntax, then map again"
        ) from error
    except ValueError as error:
        raise InputError(f"{path} is not Python source: {error}") from error


@contextlib.contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    """Find modules in a folder first, as a script finds those beside it."""
    entry = str(folder)
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(entry)


def run_file(path: Path, code: CodeType) -> ModuleType:
    """Run a file's code as a module of its own, which pickles and dataclasses find in ``sys.modules``."""
    name = module_name(path)
    module = ModuleType(name)
    module.__file__ = str(path)
    setattr(module, MODULE_MARK, True)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        with importing_now(str(path)):
            exec(code, module.__dict__)  # noqa: S102 - running the user's code is what this program is for
    except BaseException as error:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        if isinstance(error, KeyboardInterrupt):
            raise
        raise import_failure(path, error) from error
    return module


def import_failure(path: Path, error: BaseException) -> InputError:
    """Tell why the file does not import, with the traceback from the user's code on."""
    if isinstance(error, SystemExit):
        return InputError(
            f"{path} ends the process while it is imported (exit code {error.code!r})",
            'put what runs a script under `if __name__ == "__main__":`',
        )
    if isinstance(error, JobPoolError):
        return InputError(f"{path} cannot be imported: {error.message}", error.hint)
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename != str(path):
        trace = trace.tb_next
    shown = traceback.TracebackException(type(error), error, trace)
    # Where time ran out, the last frame is that of our clock.
    shown.stack[:] = [frame for frame in shown.stack if not frame.filename.startswith(_PACKAGE)]
    text = "".join(shown.format()).rstrip()
    hint = 'the file must import without errors; what only a script does belongs under `if __name__ == "__main__":`'
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        hint = f"install {package} for {sys.executable}, or run jobpool from the environment that has it"
    return InputError(f"{path} cannot be imported: {type(error).__name__}: {error}\n{text}", hint)


def _choose(module: ModuleType, path: Path) -> str:
    """The name of the function to run, where the user gave none."""
    decorated = [name for name, value in vars(module).items() if _is_udf(value) and _at_home(value, module)]
    decorated = decorated or [name for name, value in vars(module).items() if _is_udf(value)]
    candidates = _distinct(module, decorated)
    kind = "functions decorated with @udf"
    if not candidates:
        kind = "public functions"
        candidates = _distinct(
            module,
            [
                name
                for name, value in vars(module).items()
                if not name.startswith("_") and _is_function(value) and _at_home(value, module)
            ],
        )
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        raise InputError(f"{path} defines no public function", "define one, or decorate the one to run with @udf")
    listed = ", ".join(f"{path.name}:{name}" for name in candidates)
    raise InputError(f"{path} has {len(candidates)} {kind}: {', '.join(candidates)}", f"name the one to run: {listed}")


def _distinct(module: ModuleType, names: list[str]) -> list[str]:
    """Leave out second names of one object (``run = process``)."""
    seen: dict[int, str] = {}
    for name in names:
        seen.setdefault(id(vars(module)[name]), name)
    return list(seen.values())


def _is_udf(value: object) -> bool:
    # `is True`: an object that answers to every attribute (a mock, a lazy proxy) is no UDF.
    return not isinstance(value, type) and inspect.getattr_static(value, "__jobpool_udf__", None) is True


def _is_function(value: object) -> bool:
    """A function, or what a decorator such as functools.cache made of one."""
    return inspect.isfunction(value) or (
        callable(value) and not isinstance(value, type) and inspect.isfunction(getattr(value, "__wrapped__", None))
    )


def _at_home(value: object, module: ModuleType) -> bool:
    """Whether the module defines the function, rather than imports it."""
    if _is_udf(value):
        value = getattr(value, "__wrapped__", value)
    return getattr(value, "__module__", None) == module.__name__


def pick(module: ModuleType, path: Path, name: str) -> Callable[..., Any]:
    """The named object, if it is something that can be run as a UDF."""
    try:
        found = getattr(module, name)
    except AttributeError:
        functions = [each for each, value in vars(module).items() if _is_function(value) and not each.startswith("__")]
        close = difflib.get_close_matches(name, functions, n=1) or functions[:5]
        hint = "did you mean " + " or ".join(f"{path.name}:{each}" for each in close) + "?" if close else ""
        raise InputError(f"{path} has no function {name}", hint) from None
    found = unwrapped(found)
    check_runnable(found, f"{path.name}:{name}", name)
    result: Callable[..., Any] = found
    return result


def unwrapped(found: object) -> Any:
    """Return the function that ``@udf`` wrapped, or what was given.

    The wrapper only lends the function its methods; calling through it would cost every task.
    """
    return getattr(found, "__wrapped__", found) if _is_udf(found) else found


def innermost(function: Any) -> Any:
    """Return the function with code inside partial objects, bound methods, decorators and objects that are called."""
    seen: set[int] = set()
    while id(function) not in seen:
        seen.add(id(function))
        if isinstance(function, functools.partial):
            function = function.func
        elif inspect.ismethod(function):
            function = function.__func__
        elif inspect.isfunction(function) or hasattr(function, "__wrapped__"):
            function = getattr(function, "__wrapped__", function)
    return function


def code_holder(function: Any) -> Any:
    """Return the function with code: the innermost, or the method that an object is called by."""
    inner = innermost(function)
    if not hasattr(inner, "__code__") and not inspect.isbuiltin(inner) and not isinstance(inner, type):
        inner = innermost(type(inner).__call__)
    return inner


def check_runnable(found: object, label: str, name: str) -> None:
    """Make sure that something can be run as a UDF.

    Args:
        found: what should be a function.
        label: what to call it.
        name: how the user's code would call it.

    Raises:
        InputError: it cannot, and how to get there.
    """
    if isinstance(found, type):
        raise InputError(f"{label} is a class, not a function", f"define a function that calls {name}(...)")
    if not callable(found):
        raise InputError(f"{label} is a {type(found).__name__}, not a function")
    bodies = (found, type(found).__call__)
    if any(inspect.iscoroutinefunction(body) or inspect.isasyncgenfunction(body) for body in bodies):
        raise InputError(
            f"{label} is an async function, which jobpool does not run yet",
            f"wrap it in a plain one: def run(...): return asyncio.run({name}(...))",
        )
    if any(map(inspect.isgeneratorfunction, bodies)):
        raise InputError(f"{label} is a generator: calling it computes nothing", "return a list instead of yielding")
