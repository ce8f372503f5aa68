"""Everything that a terminal is sent, by every verb, from a pool whose every text is hostile."""

from __future__ import annotations

import json
import os
import pty
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobpool_cli.cli.render_tables import LogWriter
from jobpool_cli.model import TaskState
from jobpool_cli.show.text import escape
from tests.faults.harness import Faults
from tests.faults.hostile import TEXT, unharmed
from tests.faults.ledger import scaled
from tests.terminals import Screen

HOSTILE = """
class Own(Exception):
    pass

def f(x: int, text: str, extra: dict = {}) -> object:
    _audit()
    os.write(1, text.encode() + b"\\x9b31m\\n")
    if x == 1:
        raise Own(text + "\\n" + text)
    if x == 2:
        os.kill(os.getpid(), 9)
    return [text, {text: text}] if x == 3 else text
"""
VERBS = (
    ("status",),
    ("list",),
    ("tail",),
    ("tasks", "--args"),
    ("logs",),
    ("errors",),
    ("errors", "--list"),
    ("errors", "--task", "1", "--task", "2"),
    ("results",),
    ("collect", "--ignore-exceptions"),
    ("args",),
    ("wait",),
    ("status", "--json"),
    ("tasks", "--json", "--args"),
    ("logs", "--json"),
    ("errors", "--json"),
    ("results", "--json"),
    ("collect", "--ignore-exceptions", "--json"),
    ("args", "--json"),
    ("retry", "--at", TEXT.replace("\0", "")),
    ("status", "--home", TEXT),
    ("map", TEXT, TEXT),
    (TEXT,),
    ("tasks", "--columns", TEXT),
)


@pytest.mark.scenario(47)
def test_no_verb_sends_a_terminal_what_it_would_obey(faults: Faults) -> None:
    """Scenario 47: arguments, results, errors, logs, file names, reasons, messages: escaped on a terminal."""
    folder = faults.folder / TEXT.replace("/", "|").encode()[:200].decode(errors="ignore")
    folder.mkdir()
    table = folder / "args.jsonl"
    rows = [{"x": x, "text": TEXT, "extra": {TEXT: TEXT}} for x in range(4)]
    table.write_text("".join(json.dumps(row) + "\n" for row in rows))
    udf = faults.write(HOSTILE, folder.name + "/job.py")
    faults.jobpool("map", udf, table, "--name", "pool", "-j", "1", "--max-crashes", "1", "--wait", code=1, cwd=folder)
    pool = faults.open()
    faults.ended(pool)
    faults.injected()
    env = faults.env | {"JOBPOOL_HOME": str(faults.home)}
    some = VERBS[::3] if scaled(quick=True, long=False) else VERBS
    for verb, *more in some:
        named = [] if verb in {"list", "map", TEXT} else ["pool"]
        for colour in scaled([{"FORCE_COLOR": "1"}], [{}, {"FORCE_COLOR": "1"}, {"NO_COLOR": "1"}]):
            screen = Screen(faults.command(verb, *named, *more), env | colour)
            try:
                assert screen.end() != -6
                text = unharmed(screen.text, bar=verb in {"tail", "wait"})
            finally:
                screen.close()
            assert text.strip()
            assert "fault in jobpool" not in text
            assert "Traceback" not in text or verb in {"logs", "errors"}
    status = pool.snapshot()
    assert (status.counts[TaskState.SUCCESS], status.counts[TaskState.ERROR]) == (2, 2)
    faults.check(pool, oracle=None)


@pytest.fixture(scope="module")
def watched() -> Iterator[Watched]:
    """Standard output as a terminal of this process."""
    made = Watched()
    yield made
    made.close()


class Watched:
    """A terminal whose other end is read."""

    def __init__(self) -> None:
        """Open it."""
        self._outer, self._inner = pty.openpty()
        self.stream = open(self._inner, "w", encoding="utf-8", newline="\n", closefd=False)  # noqa: SIM115

    def close(self) -> None:
        """Close both its ends."""
        self.stream.close()
        os.close(self._inner)
        os.close(self._outer)

    def take(self) -> bytes:
        """Return what has arrived since the last time, up to the mark that is sent now."""
        self.stream.write("\n<end>\n")
        self.stream.flush()
        found = b""
        while not found.endswith(b"<end>\r\n"):
            found += os.read(self._outer, 65536)
        return found.replace(b"\r\n", b"\n").removesuffix(b"\n<end>\n")


@pytest.mark.scenario(47)
@settings(
    deadline=None,
    max_examples=scaled(100, 2000),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.binary(max_size=200), max_size=4))
def test_a_log_of_any_bytes_reaches_a_terminal_without_control_characters(
    watched: Watched, monkeypatch: pytest.MonkeyPatch, pieces: list[bytes]
) -> None:
    """Scenario 47: any bytes, cut anywhere: only newlines, tabs and what can be seen is sent."""
    monkeypatch.setattr(sys, "stdout", watched.stream)
    writer = LogWriter(headers=False)
    for piece in pieces:
        writer.write(piece)
        assert len(piece) < 1000  # one terminal's buffer holds what is written before it is read
    writer.end()
    unharmed(watched.take().decode())


@pytest.mark.scenario(47)
def test_of_all_of_unicode_nothing_is_left_that_acts_on_a_terminal() -> None:
    """Scenario 47: what moves, hides, reorders or ends a line is shown as an escape; so are line ends and tabs."""
    text = escape("".join(chr(each) for each in range(0x110000) if not 0xD800 <= each < 0xE000))
    unharmed(text)
    assert not {"\n", "\t"} & {*text}


def test_a_plain_text_is_left_alone() -> None:
    for text in ("naïve café", "日本語", "مرحبا", "क्\u200dष", "👩\u200d🔬", "a\\b"):
        assert escape(text) == text


def test_the_sample_holds_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "x").write_text(TEXT)
    with pytest.raises(AssertionError):
        unharmed(TEXT)
