"""The terminal on which a pool was started, or is watched, hangs up or sends Ctrl-C."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jobpool_cli.model import PoolState, TaskState
from tests.faults import injection
from tests.faults.harness import Faults
from tests.faults.ledger import scaled
from tests.helpers import marked, supervisors
from tests.terminals import Screen

Open = Callable[[list[str]], Screen]

# Makes the terminal the one that controls the session, so that Ctrl-C is a signal and a hang-up, too: also where the
# tests run under nohup.
TAKE = """import fcntl, os, signal, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
os.execvp(sys.argv[1], sys.argv[1:])"""
HELD = "def f(x: int) -> int:\n    _audit()\n    _wait_for('go')\n    return x * x\n"


def mapping(faults: Faults) -> list[str]:
    """Return a `map` command of two workers."""
    return faults.command("map", faults.write(HELD), faults.rows(6), "--name", "pool", "-j", "2")


@pytest.fixture
def screen(faults: Faults) -> Iterator[Open]:
    """Start commands on terminals of their own; ended when the test is."""
    opened: list[Screen] = []

    def start(words: list[str]) -> Screen:
        env = faults.env | {"JOBPOOL_HOME": str(faults.home), "NO_COLOR": "1"}
        opened.append(Screen([sys.executable, "-c", TAKE, *words], env))
        return opened[-1]

    yield start
    for each in opened:
        each.process.kill()
        each.process.wait()


@pytest.mark.scenario(23)
def test_a_pool_outlives_the_terminal_on_which_it_was_started(faults: Faults, screen: Open) -> None:
    """Scenario 23: the terminal hangs up right after map; supervisor and workers are in sessions of their own."""
    terminal = screen(["bash", "-c", f"{shlex.join(mapping(faults))}; exec sleep 600"])
    faults.until(lambda: "watch: jobpool tail pool" in terminal.text)
    pool = faults.open()
    faults.until(lambda: pool.snapshot().counts[TaskState.RUNNING] == 2)
    ours = [*supervisors(pool.paths.root), *marked(pool)]
    for pid in ours:
        session, tty = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[3:5]
        assert (int(session), int(tty)) == (pid, 0)
    faults.injected()
    os.close(terminal._fd)
    faults.until(lambda: terminal.process.poll() is not None, 10, "the hang-up ends what is on the terminal")
    assert all(map(injection.alive, ours))
    faults.release("go")
    faults.check(pool)


@pytest.mark.scenario(23)
@pytest.mark.parametrize("words", [("tail", "pool"), ("wait", "pool"), ("logs", "pool", "--follow")])
def test_ctrl_c_in_what_watches_ends_the_watching_with_130_and_not_the_pool(
    faults: Faults, screen: Open, words: tuple[str, ...]
) -> None:
    """Scenario 23: Ctrl-C on the terminal of tail, wait or logs --follow: a clean end; the pool runs on."""
    body = "def f(x: int) -> int:\n    _audit()\n    print('here', x, flush=True)\n"
    pool = faults.map(f"{body}    _wait_for('go') if x else None\n    return x * x\n", 5)
    terminal = screen(faults.command(*words))
    shown = {"tail": "task 0", "wait": "1/5", "logs": "here 1"}[words[0]]
    faults.until(lambda: shown in terminal.text, 20, f"{words[0]} shows something")
    faults.injected()
    terminal.type("\x03")
    assert terminal.end() == 130
    assert "Traceback" not in terminal.text
    if words[0] != "logs":
        assert terminal.text.endswith("jobpool: stopped watching; pool goes on (jobpool cancel pool would stop it)\n")
    assert pool.snapshot().state is PoolState.RUNNING
    faults.release("go")
    faults.check(pool)


@pytest.mark.scenario(23)
def test_ctrl_c_in_map_wait_ends_the_wait_and_not_the_pool(faults: Faults, screen: Open) -> None:
    """Scenario 23: Ctrl-C in `map --wait`, after the name is printed: exit 130, and the pool runs on."""
    terminal = screen([*mapping(faults), "--wait"])
    faults.until(lambda: "0/6" in terminal.text, 20, "the bar is drawn")
    faults.injected()
    terminal.type("\x03")
    assert terminal.end() == 130
    assert terminal.text.endswith("stopped watching; pool goes on (jobpool cancel pool would stop it)\n")
    pool = faults.open()
    assert pool.snapshot().state is PoolState.RUNNING
    faults.release("go")
    faults.check(pool)


@pytest.mark.scenario(23)
@pytest.mark.parametrize("where", ["map", "worker"])
def test_ctrl_c_while_map_starts_leaves_no_pool_and_no_process(faults: Faults, screen: Open, where: str) -> None:
    """Scenario 23: Ctrl-C before map has printed a name, while it or the first worker imports the function."""
    here = "'map' in sys.argv" if where == "map" else "'map' not in sys.argv"
    slow = f"import os, sys, time\nif {here}:\n    open({str(faults.folder / 'importing')!r}, 'w').close()\n"
    udf = faults.folder / "slow.py"
    udf.write_text(f"{slow}    time.sleep(600)\ndef f(x: int) -> int:\n    return x\n")
    terminal = screen(faults.command("map", udf, faults.rows(3), "--name", "pool"))
    faults.until((faults.folder / "importing").exists)
    faults.injected()
    terminal.type("\x03")
    assert terminal.end() == 130
    assert "Traceback" not in terminal.text
    assert "pool\n" not in terminal.text.replace("no pool\n", "")
    pools = faults.home / "pools"
    faults.until(lambda: not pools.exists() or not os.listdir(pools), 5, "no pool is left")
    faults.until(lambda: not _processes_of(faults.home), 5, "no process is left")


@pytest.mark.scenario(23)
def test_ctrl_c_at_any_moment_of_map_leaves_a_pool_that_was_named_or_none(faults: Faults) -> None:
    """Scenario 23: Ctrl-C after so many milliseconds of map, to its whole process group as a terminal sends it."""
    pools = faults.home / "pools"
    kept = 0
    moments = scaled(5, 80)
    for moment in range(moments):
        name = f"pool{moment}"
        words = faults.command("map", faults.write(HELD), faults.rows(2), "--name", name, "-j", "1")
        env = faults.env | {"JOBPOOL_HOME": str(faults.home)}
        with subprocess.Popen(
            words, env=env, cwd=faults.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            process_group=0,
        ) as process:  # fmt: skip
            # Up to its first child there is only Python that starts, and answers Ctrl-C in its own way.
            begun = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            faults.until(lambda begun=begun: begun.read_text())  # type: ignore[misc]
            try:
                process.wait(1.2 * moment / moments)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGINT)
                faults.injected()
            out, err = process.communicate(timeout=30)
        assert "Traceback" not in err, err
        assert process.returncode in {0, 130}, err
        assert (out == f"{name}\n") == (pools / name).exists(), (out, err)
        kept += (pools / name).exists()
        assert not pools.exists() or {path.name for path in pools.iterdir()} <= {
            f"pool{each}" for each in range(moments)
        }
    faults.until(lambda: len(_processes_of(faults.home)) == 2 * kept, 10, "none but pools' processes are left")
    faults.release("go")
    for root in sorted(pools.iterdir()) if pools.exists() else ():
        faults.check(faults.open(root.name))


def _processes_of(home: Path) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and injection.alive(int(entry.name)):
            try:
                environment = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"JOBPOOL_HOME={home}".encode() in environment:
                found.append(int(entry.name))
    return found
