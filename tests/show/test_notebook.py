from __future__ import annotations

import contextlib
import io
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from jobpool_cli.model import PoolState
from jobpool_cli.show.notebook import NotebookBar
from jobpool_cli.show.progress import PlainProgress, in_notebook, progress_here
from tests.terminals import status_of


class Page:
    """The output of a notebook's cell: pictures that were put there, each replaced by the one that follows."""

    def __init__(self) -> None:
        """Begin without a picture."""
        self.shell: Any = SimpleNamespace(kernel=object())
        self.pictures: list[list[dict[str, str]]] = []

    def display(self, content: dict[str, str], *, raw: bool, display_id: bool) -> SimpleNamespace:
        assert raw
        assert display_id
        picture = [content]
        self.pictures.append(picture)
        return SimpleNamespace(update=lambda content, *, raw: picture.append(content) if raw else None)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    """A notebook, as far as a bar can see it."""
    found = Page()
    ipython, display = ModuleType("IPython"), ModuleType("IPython.display")
    ipython.get_ipython = lambda: found.shell  # type: ignore[attr-defined]
    display.display = found.display  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return found


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, to be set by the test."""
    now = [100.0]
    monkeypatch.setattr("jobpool_cli.show.notebook.time.monotonic", lambda: now[0])
    return now


def test_only_the_kernel_of_a_notebook_is_a_notebook(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    assert in_notebook()
    assert isinstance(progress_here(enabled=True), NotebookBar)
    assert isinstance(progress_here(io.StringIO(), enabled=False), PlainProgress)
    page.shell = SimpleNamespace()  # IPython on a terminal
    assert not in_notebook()
    page.shell = None  # IPython was only imported
    assert not in_notebook()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_notebook()


def test_a_bar_is_redrawn_at_a_pace_that_one_can_see_and_its_last_state_stays(page: Page, clock: list[float]) -> None:
    with progress_here(io.StringIO(), enabled=True) as shown:
        for now, finished in ((100.0, 0), (100.1, 1), (100.2, 2), (100.3, 3), (100.4, 4)):
            clock[0] = now
            shown.update(status_of(success=finished, pending=5 - finished))
        shown.update(status_of(PoolState.DONE, success=5))
    [pictures] = page.pictures
    texts = [content["text/plain"] for content in pictures]
    assert texts == [f"p: {many} of 5 tasks finished" for many in (0, 3, 5)]
    assert "took 2.0 s" in pictures[-1]["text/html"]


def test_a_bar_whose_watcher_has_gone_says_so(page: Page) -> None:
    with contextlib.suppress(KeyboardInterrupt), progress_here(enabled=True) as shown:
        shown.update(status_of(running=3))
        raise KeyboardInterrupt
    assert "stopped watching" in page.pictures[0][-1]["text/html"]


def test_a_pool_that_is_done_already_needs_no_bar(page: Page) -> None:
    with progress_here(enabled=True) as shown:
        shown.update(status_of(PoolState.DONE, success=3))
    assert page.pictures == []


def test_lines_go_below_the_bar(page: Page) -> None:
    stream = io.StringIO()
    with progress_here(stream, enabled=True) as shown:
        shown.update(status_of(running=3))
        shown.line("a line")
    assert stream.getvalue() == "a line\n"
    assert len(page.pictures) == 1
