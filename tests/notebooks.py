"""A notebook with a kernel of its own, run cell by cell, in one event loop: a kernel's sockets know no other."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from nbclient import NotebookClient
from nbformat import NotebookNode

from tests.conftest import PATIENCE_SECONDS

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Notebook:
    """A notebook; each cell sees what those before it have made."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        """Start a kernel in a folder."""
        self._page = NotebookNode(cells=[], metadata={}, nbformat=4, nbformat_minor=5)  # type: ignore[no-untyped-call]
        self._client = NotebookClient(
            self._page, timeout=int(PATIENCE_SECONDS), allow_errors=True, resources={"metadata": {"path": str(folder)}}
        )
        self._loop = asyncio.Runner()
        self._kernel = AsyncExitStack()
        own = environment | {"IPYTHONDIR": str(folder / ".ipython")}
        self._loop.run(self._kernel.enter_async_context(self._client.async_setup_kernel(env=own)))
        self._running: asyncio.Task[Any] | None = None

    def begin(self, source: str) -> NotebookNode:
        """Run a cell while the test goes on; its outputs come in during ``until`` and ``end``."""
        cells = self._page.cells
        cell = NotebookNode(  # type: ignore[no-untyped-call]
            cell_type="code", id=f"cell-{len(cells)}", metadata={}, source=source, outputs=[]
        )
        cells.append(cell)
        run = self._client.async_execute_cell(cell, len(cells) - 1)
        self._running = self._loop.get_loop().create_task(run)
        return cell

    def until(self, condition: Callable[[], object]) -> None:
        """Take in what the kernel sends until the condition holds."""

        async def look() -> None:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not condition():  # noqa: ASYNC110 - what comes from the kernel sets no event
                    await asyncio.sleep(0.01)

        self._loop.run(look())

    def end(self) -> None:
        """Take in what the kernel sends until the cell that was begun is at its end."""
        running = self._running
        assert running is not None
        self.until(running.done)
        running.result()

    def run(self, source: str) -> NotebookNode:
        """Run a cell to its end."""
        cell = self.begin(source)
        self.end()
        return cell

    def close(self) -> None:
        """End the kernel."""
        self._loop.run(self._kernel.aclose())
        self._loop.close()


def text_of(cell: NotebookNode) -> str:
    """What a cell shows as text: what it printed, the last value, or the traceback; no bars."""
    return "".join(map(_text, cell.outputs))


def _text(output: NotebookNode) -> str:
    if output.output_type == "stream":
        return str(output.text)
    if output.output_type == "error":
        return _COLOUR.sub("", "\n".join(output.traceback)) + "\n"
    return f"{output.data['text/plain']}\n" if output.output_type == "execute_result" else ""
