"""The decorator that marks a file's function as the one to run."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Generic, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class Udf(Generic[Parameters, Result]):
    """A function that pools run; calling it calls the function."""

    __jobpool_udf__ = True

    def __init__(self, function: Callable[Parameters, Result]) -> None:
        """Wrap a function, which stays reachable as ``__wrapped__``."""
        self.__wrapped__ = function
        functools.update_wrapper(self, function)

    def __call__(self, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        """Call the function itself, in this process."""
        return self.__wrapped__(*args, **kwargs)

    def __repr__(self) -> str:
        """Name the function."""
        return f"<udf {getattr(self.__wrapped__, '__qualname__', self.__wrapped__)!s}>"


def udf(function: Callable[Parameters, Result] | None = None) -> Any:
    """Mark a function as the UDF of its file, with or without parentheses.

    Needed only in a file with more than one public function::

        @udf
        def area(width: float, height: float) -> float:
            return width * height
    """
    return Udf if function is None else Udf(function)
