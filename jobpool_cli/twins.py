"""Every method twice, written once: the plain one for scripts and notebooks, its twin for those who ``await``.

What waits is written as a generator that yields the seconds to sleep and returns the answer. The plain method sleeps
them in its thread; the twin gives them back to the event loop, and runs what lies between them in a thread, so that the
loop never stands still. A coroutine that is cancelled stops looking; the pool on the disk goes on.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Concatenate, ParamSpec, TypeVar

from jobpool_cli.errors import JobPoolError, RemoteTraceback

Owner = TypeVar("Owner")
Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")

# Seconds to sleep, again and again, and in the end the answer.
Steps = Generator[float, None, Answer]


def run(steps: Steps[Answer]) -> Answer:
    """Take the steps in this thread, to the answer."""
    __tracebackhide__ = True  # what notebooks look at
    try:
        while True:
            time.sleep(next(steps))
    except StopIteration as stop:
        answer: Answer = stop.value
        return answer
    except Exception as caught:
        error: BaseException = caught
        if isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration):
            error = error.__cause__  # what a task raised, and no generator lets through
        if isinstance(error, JobPoolError) or isinstance(error.__cause__, RemoteTraceback):
            # They say themselves what is wrong; the way to them through our code is of no use to whoever reads them.
            raise error.with_traceback(None) from error.__cause__
        raise
    finally:
        steps.close()


async def drive(steps: Steps[Answer]) -> Answer:
    """Take the steps without ever holding up the event loop, to the answer."""
    import asyncio  # noqa: PLC0415 - only for those who have an event loop

    given_up = False

    def step() -> tuple[float | None, Answer | None]:
        try:
            return next(steps), None
        except StopIteration as stop:
            return None, stop.value
        finally:
            if given_up:
                steps.close()

    try:
        while True:
            pause, answer = await in_thread(step)
            if pause is None:
                return answer  # type: ignore[return-value]  # there is one where there is no pause
            await asyncio.sleep(pause)
    finally:
        # A step that is under way in its thread ends by itself, and then closes what it has opened: a bar, say.
        given_up = True
        with contextlib.suppress(ValueError):
            steps.close()


def both(
    method: Callable[Concatenate[Owner, Parameters], Steps[Answer]],
) -> tuple[
    Callable[Concatenate[Owner, Parameters], Answer],
    Callable[Concatenate[Owner, Parameters], Coroutine[Any, Any, Answer]],
]:
    """Turn a method that is written in steps into the plain method and its twin.

    ``wait, wait_async = both(_wait)``
    """

    def plain(self: Owner, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Answer:
        __tracebackhide__ = True
        return run(method(self, *args, **kwargs))

    async def twin(self: Owner, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Answer:
        return await drive(method(self, *args, **kwargs))

    name = method.__name__.removeprefix("_")
    return _presented(plain, method, name), _presented(twin, method, f"{name}_async")


def twin(
    method: Callable[Concatenate[Owner, Parameters], Answer],
) -> Callable[Concatenate[Owner, Parameters], Coroutine[Any, Any, Answer]]:
    """Return the twin of a method that never waits, but may compute for long.

    ``status_async = twin(status)``
    """

    async def twin(self: Owner, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Answer:
        return await in_thread(method, self, *args, **kwargs)

    return _presented(twin, method, f"{method.__name__}_async")


async def in_thread(
    function: Callable[Parameters, Answer], /, *args: Parameters.args, **kwargs: Parameters.kwargs
) -> Answer:
    """Call a function without holding up the event loop.

    Raises:
        Exception: what the function raises, the very object; StopIteration, which no coroutine can raise, as the cause
            of a RuntimeError.
    """
    import asyncio  # noqa: PLC0415 - only for those who have an event loop

    def call() -> tuple[Answer | None, Exception | None]:
        # A future would never end with StopIteration, take concurrent.futures.CancelledError for a cancellation of the
        # awaiting task, and make a new TimeoutError, without cause and notes.
        try:
            return function(*args, **kwargs), None
        except Exception as error:  # noqa: BLE001 - raised where it is awaited
            return None, error

    answer, error = await asyncio.to_thread(call)
    try:
        if error is not None:
            raise error
        return answer  # type: ignore[return-value]  # there is one where there is no error
    finally:
        # Its traceback holds this frame.
        del error


_Face = TypeVar("_Face", bound=Callable[..., Any])


def _presented(face: _Face, method: Callable[..., Any], name: str) -> _Face:
    """Give a face the name, the signature and the documentation of the method behind it."""
    functools.update_wrapper(face, method)
    face.__name__ = name
    face.__qualname__ = f"{method.__qualname__.rpartition('.')[0]}.{name}"
    return face
