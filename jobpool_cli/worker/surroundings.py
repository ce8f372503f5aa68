"""What a task may change in its process, and the next one finds as it was.

That is: the working directory, the umask, the locale, signal handlers and the signals that are blocked, timers,
``sys.path``, and functions that trace or profile. Python's own ways to change them are noticed at once, so that the
look after every task costs next to nothing; what C code changes is found by a look that costs some microseconds and is
taken every few milliseconds.

Everything else is the process's, and so its tasks' together: modules and what they hold, the environment, random
states, decimal contexts, resource limits, niceness, warning filters.
"""

from __future__ import annotations

import contextlib
import functools
import locale
import os
import signal
import sys

# What those of the modules `locale` and `signal` wrap: asked for every signal, and in a tenth of the time.
from _locale import setlocale as _setlocale
from _signal import getitimer, getsignal, pthread_sigmask, setitimer  # type: ignore[import-not-found]
from collections.abc import Callable
from types import ModuleType
from typing import Any

SIGNALS = tuple(
    int(number)
    for number in (
        signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE, signal.SIGCHLD,
        signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM, signal.SIGVTALRM, signal.SIGPROF,
    )
)  # fmt: skip
TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)

# Events of these names say that something is changed; for the rest, Python has none.
_AUDITED = frozenset({"os.chdir", "os.fchdir", "sys.settrace", "sys.setprofile"})
_CHANGERS: tuple[tuple[ModuleType, str], ...] = (
    (os, "umask"),
    (locale, "setlocale"),
    (signal, "signal"),
    (signal, "pthread_sigmask"),
    (signal, "setitimer"),
    (signal, "alarm"),
)
# Functions that take a descriptor at this place: they matter where it is, or comes before, that of the log.
_CHANGERS_OF_DESCRIPTORS = ((os, "close", 0), (os, "closerange", 0), (os, "dup2", 1))
STDERR = 2


class Surroundings:
    """What every task is to find.

    Attributes:
        changed: whether something of it, or a descriptor of the log, may have been changed since the last look; a
            task's end is the time to look.
        path: ``sys.path`` as it was.
    """

    def __init__(self) -> None:
        """Begin to notice changes; what is to be found is what there is at the next ``remember``."""
        self.changed = False
        self._umask = os.umask
        self._signal = signal.signal
        for module, name in _CHANGERS:
            setattr(module, name, self._noticed(module, name))
        for module, name, place in _CHANGERS_OF_DESCRIPTORS:
            setattr(module, name, self._noticed(module, name, place))
        sys.addaudithook(self._audit)
        self.remember()

    def remember(self) -> None:
        """Take the present state as the one that every task finds; call once the UDF is loaded."""
        self._handlers = [(number, getsignal(number)) for number in SIGNALS]
        self._blocked = pthread_sigmask(signal.SIG_BLOCK, ())
        self._timers = [timer for timer in TIMERS if getitimer(timer)[0] == 0]
        self.path = list(sys.path)
        self._folder = os.getcwd()
        self._mask = self._umask(0o077)
        self._umask(self._mask)
        self._locale = _setlocale(locale.LC_ALL, None)
        self._trace, self._profile = sys.gettrace(), sys.getprofile()
        self.changed = False

    def restore(self) -> None:
        """Undo what a task has changed."""
        self._mend_folder()
        if self._umask(self._mask) != self._mask:
            self._umask(self._mask)
        self._mend_signals()
        if getattr(sys, "path", None) != self.path:
            sys.path = list(self.path)
        if _setlocale(locale.LC_ALL, None) != self._locale:
            with contextlib.suppress(locale.Error):
                _setlocale(locale.LC_ALL, self._locale)
        if sys.gettrace() is not self._trace:
            sys.settrace(self._trace)
        if sys.getprofile() is not self._profile:
            sys.setprofile(self._profile)
        self.changed = False

    def _mend_signals(self) -> None:
        for number, handler in self._handlers:
            if getsignal(number) is not handler and handler is not None:
                self._signal(number, handler)
        if self.changed:
            # Rarely touched, and a system call each: only where Python's ways to them were used.
            for timer in self._timers:
                # An alarm that outlives its task would hit another one.
                if getitimer(timer)[0]:
                    setitimer(timer, 0)
            if pthread_sigmask(signal.SIG_BLOCK, ()) != self._blocked:
                pthread_sigmask(signal.SIG_SETMASK, self._blocked)

    def _audit(self, event: str, _arguments: tuple[object, ...]) -> None:
        if event in _AUDITED:
            self.changed = True

    def _noticed(self, module: ModuleType, name: str, place: int | None = None) -> Callable[..., Any]:
        """Return a function of a module that notes that it was called, or called with a descriptor that matters."""
        original = getattr(module, name)

        @functools.wraps(original)
        def noticed(*args: Any, **kwargs: Any) -> Any:
            if place is None or len(args) <= place or not isinstance(args[place], int) or args[place] <= STDERR:
                self.changed = True
            return original(*args, **kwargs)

        # Where a pickle that refers to it by its name finds it.
        noticed.__module__ = module.__name__
        return noticed

    def _mend_folder(self) -> None:
        try:
            if os.getcwd() == self._folder:
                return
        except FileNotFoundError:
            pass
        with contextlib.suppress(OSError):
            os.chdir(self._folder)
