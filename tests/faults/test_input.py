"""Tables as they should not be: every one is refused with its line, and nothing is left of the attempt."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from jobpool_cli.errors import InputError
from jobpool_cli.store.arguments import sources
from jobpool_cli.store.arguments.inputs import read_arguments
from tests.faults.harness import SQUARE, Faults
from tests.faults.ledger import scaled

TWO = "def f(x: int, y: str = '') -> int:\n    _audit()\n    return x * x\n"

# content, and what the message must say
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is empty"),
    "only blank lines": (b"\n\n\n", "only blank lines"),
    "a row too short": (b"x,y\n1,a\n2\n3,c\n", "line 3: 1 cell where the header names 2 columns"),
    "a row too long": (b"x,y\n1,a\n2,b,c\n", "line 3: 3 cells where the header names 2 columns"),
    "two headers alike": (b"x,x\n1,2\n", "line 1: 2 columns are named x"),
    "a header without a name": (b"x,\n1,2\n", "line 1: column 2 has no name"),
    "a NUL": (b"x,y\n1,a\n2,b\0c\n", "line 3: a NUL byte"),
    "a NUL in the header": (b"x\0,y\n1,a\n", "line 1: a NUL byte"),
    "no UTF-8": (b"x,y\n1,a\n2,caf\xe9\n", "line 3: byte 0xe9 is not UTF-8"),
    "half a character at the end": ("x,y\n1,ä".encode()[:-1], "line 2: byte 0xc3 is not UTF-8"),
    "UTF-16": ("x,y\n1,a\n".encode("utf-16"), "is UTF-16"),
    "a quote that is never closed": (b'x,y\n1,a\n2,"b\n3,c\n', "line 3: a quote"),
    "no number": (b"x,y\n1,a\nten,b\n", "line 3, column x"),
    "a huge cell that is no number": (b"x,y\n1,a\n" + b"9" * (5 << 20) + b",b\n", "line 3, column x"),
    "a column that no parameter takes": (b"x,z\n1,2\n", "z"),
    "no column for a parameter": (b"y\na\n", "x"),
}


def _refused(faults: Faults, udf: Path, source: str | Path, **how: object) -> str:
    """Run map, which must refuse; return what it said."""
    said = faults.jobpool("map", udf, source, "--name", "bad", code=2, **how)  # type: ignore[arg-type]
    faults.injected()
    assert said.stdout == ""
    assert not list(faults.home.glob("pools/*"))
    return said.stderr


@pytest.mark.scenario(44)
def test_a_bad_table_is_refused_with_its_line(faults: Faults) -> None:
    """Scenario 44: CSV with whatever can be wrong in it: exit 2 with the line, and no pool."""
    udf = faults.write(TWO)
    through_the_command_line = scaled({"a row too short", "no UTF-8"}, set(BAD))
    for case, (content, message) in BAD.items():
        table = faults.folder / "bad.csv"
        table.write_bytes(content)
        if case in through_the_command_line:
            said = _refused(faults, udf, table)
        else:  # the same code, without the start of a process
            with pytest.raises(InputError) as caught:
                _check(udf, table)
            faults.injected()
            said = str(caught.value)
        assert message in said, f"{case}: {said}"
        assert len(said) < 2000, f"{case}: the message holds the whole cell"


def _check(udf: Path, table: Path) -> None:
    from jobpool_cli.model import PoolOptions  # noqa: PLC0415
    from jobpool_cli.submit import check  # noqa: PLC0415
    from tests.helpers import imports_undone  # noqa: PLC0415

    with imports_undone():
        check(str(udf), str(table), constants={}, options=PoolOptions(workers=1))


@pytest.mark.scenario(44)
def test_a_byte_order_mark_is_no_part_of_the_first_name(faults: Faults) -> None:
    """Scenario 44: a BOM, as Excel writes one, is accepted."""
    table = faults.folder / "bom.csv"
    table.write_bytes(b"\xef\xbb\xbfx\r\n3\r\n4\r\n")
    faults.jobpool("map", faults.write(SQUARE), table, "--name", "bom", "--wait")
    faults.injected()
    pool = faults.open("bom")
    assert pool.results() == [9, 16]
    faults.check(pool, lambda task: (task + 3) ** 2)


@pytest.mark.scenario(44)
def test_a_header_alone_is_a_pool_without_tasks(faults: Faults) -> None:
    """Scenario 44: a table with a header only: an empty pool, exit 0, which is done."""
    table = faults.folder / "header.csv"
    table.write_text("x\n")
    faults.jobpool("map", faults.write(SQUARE), table, "--name", "none", "--wait")
    faults.injected()
    assert faults.jobpool("collect", "none").stdout.count("\n") == 1
    faults.check(faults.open("none"))


@pytest.mark.scenario(44)
def test_a_huge_cell_of_text_arrives_whole(faults: Faults) -> None:
    """Scenario 44: a field of megabytes, with line ends and quotes in it, is what the function gets."""
    table = faults.folder / "huge.csv"
    text = 'a"b\n' * (1 << 20)
    table.write_text('x,y\n1,"' + text.replace('"', '""') + '"\n2,b\n')
    body = "def f(x: int, y: str) -> int:\n    _audit()\n    return len(y)\n"
    faults.jobpool("map", faults.write(body), table, "--name", "huge", "--wait")
    faults.injected()
    faults.check(faults.open("huge"), [len(text), 1].__getitem__)


# --- what is no file


@pytest.mark.scenario(44)
@pytest.mark.parametrize(
    ("source", "message"), [(".", "is a folder"), ("/dev/zero", "is a device"), ("/dev/null", "is empty")]
)
def test_what_is_no_table_is_refused_at_once(faults: Faults, source: str, message: str) -> None:
    """Scenario 44: a folder, a device that never ends."""
    assert message in _refused(faults, faults.write(SQUARE), source, seconds=20)


@pytest.mark.scenario(44)
def test_a_pipe_to_which_nobody_writes_is_refused_in_seconds(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenario 44: a FIFO without a writer: said, and not waited for."""
    fifo = faults.folder / "pipe.csv"
    os.mkfifo(fifo)
    monkeypatch.setattr(sources, "WRITER_SECONDS", 0.2)
    threads = threading.active_count()
    with pytest.raises(InputError, match="nobody writes to it"):
        read_arguments(str(fifo))
    faults.injected()
    faults.until(lambda: threading.active_count() <= threads, what="the thread that waited for a writer is gone")


@pytest.mark.scenario(44)
def test_a_pipe_is_read_like_a_file(faults: Faults) -> None:
    """Scenario 44: a FIFO, and what a shell makes of ``<(...)``, with writers that take their time."""
    udf = faults.write(SQUARE)
    fifo = faults.folder / "pipe.csv"
    os.mkfifo(fifo)
    writer = subprocess.Popen(["sh", "-c", f"exec > {fifo}; sleep 0.5; printf 'x\\n0\\n'; sleep 0.2; printf '1\\n'"])
    try:
        faults.jobpool("map", udf, fifo, "--name", "fifo", "--wait")
    finally:
        writer.kill()
        writer.wait()
    faults.injected()
    faults.check(faults.open("fifo"))
    words = " ".join(faults.command("map", udf, "<(sleep 0.5; printf 'x\\n0\\n1\\n')", "--name", "subst", "--wait"))
    env = faults.env | {"JOBPOOL_HOME": str(faults.home)}
    subprocess.run(["bash", "-c", words], env=env, check=True, timeout=60, capture_output=True)
    faults.injected()
    faults.check(faults.open("subst"), audit=None)


@pytest.mark.scenario(44)
@pytest.mark.parametrize("write", [lambda _: None, lambda fd: os.write(fd, b"x\n3\n")], ids=["nothing", "a table"])
def test_a_writer_that_has_come_and_gone_has_been_seen(tmp_path: Path, write: Callable[[int], object]) -> None:
    """Scenario 44: what a writer left in a FIFO is read; one that wrote nothing left an empty table."""
    fifo = tmp_path / "pipe.csv"
    os.mkfifo(fifo)

    def come_and_go() -> None:
        fd = os.open(fifo, os.O_WRONLY)
        write(fd)
        os.close(fd)

    writer = threading.Thread(target=come_and_go)
    writer.start()
    try:
        found = read_arguments(str(fifo)).table.to_pylist()
    except InputError as error:
        found = [error.message.rpartition("is ")[2]]
    writer.join()
    assert found in (["empty"], [{"x": "3"}])
