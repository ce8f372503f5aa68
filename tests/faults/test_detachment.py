"""A pool holds on to nothing of whoever started it: no pipe, no locale, no file, no folder."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from jobpool_cli.model import TaskState
from tests.faults.harness import Faults
from tests.faults.ledger import scaled
from tests.helpers import marked, supervisors

HELD = "def f(x: int) -> int:\n    _audit()\n    _wait_for('go')\n    return x * x\n"


def line(faults: Faults, *words: str | Path) -> str:
    """Return a jobpool command as a shell reads it."""
    return shlex.join(faults.command(*words))


def mapping(faults: Faults, body: str = HELD, n: int = 6) -> str:
    """Return a `map` command of two workers as a shell reads it."""
    return line(faults, "map", faults.write(body), faults.rows(n), "--name", "pool", "-j", "2")


def shell(faults: Faults, script: str, seconds: float = 20) -> subprocess.CompletedProcess[str]:
    """Run a script of bash to its end, and to the end of all that it writes to."""
    env = faults.env | {"JOBPOOL_HOME": str(faults.home)}
    try:
        return subprocess.run(
            ["bash", "-c", script], env=env, cwd=faults.folder, capture_output=True, text=True, timeout=seconds,
            check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise faults.hang(f"this did not return within {seconds:g} s: {script}") from error


# --- 22

SCRIPTS = [
    'x=$(timeout 5 {map}); code=$?; echo "$x"; exit $code',
    "{map} | cat",
    "{map} 2>&1 | grep -v watch",
    'coproc {{ {map}; }}; read -r name <&"${{COPROC[0]}}"; echo "$name"; wait',
    "exec 7> >(cat >&2); {map}; exec 7>&-; wait",
    "mkfifo silent; exec 8<>silent; {map} <&8",
]


@pytest.mark.scenario(22)
@pytest.mark.parametrize("script", scaled([SCRIPTS[0], SCRIPTS[2], SCRIPTS[3]], SCRIPTS))
def test_map_in_a_pipeline_returns_at_once_while_the_pool_runs_on(faults: Faults, script: str) -> None:
    """Scenario 22: nobody who reads what map writes waits for the pool."""
    faults.injected()
    done = shell(faults, script.format(map=mapping(faults)))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "pool\n"
    pool = faults.open()
    faults.until(lambda: pool.snapshot().counts[TaskState.RUNNING] == 2)
    faults.release("go")
    faults.check(pool)


@pytest.mark.scenario(22)
@pytest.mark.parametrize("closed", scaled(["<&- >&- 2>&-"], ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"]))
def test_map_with_closed_standard_streams_starts_a_pool_whose_own_are_whole(faults: Faults, closed: str) -> None:
    """Scenario 22: stdin, stdout and stderr closed, as some daemons leave them: map works, and so do its processes."""
    faults.injected()
    body = "def f(x: int) -> int:\n    _audit()\n    print('says', x)\n    _wait_for('go')\n    return x * x\n"
    done = shell(faults, f"{mapping(faults, body)} {closed}")
    assert done.returncode == 0, done.stderr
    pool = faults.open()
    faults.until(lambda: pool.snapshot().counts[TaskState.RUNNING] == 2)
    for pid in [*supervisors(pool.paths.root), *marked(pool)]:
        targets = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in range(3)]
        assert targets[0] == "/dev/null"
        assert all(str(pool.paths.root) in each for each in targets[1:])
    faults.release("go")
    faults.check(pool)
    told = shell(faults, f"{line(faults, 'logs', 'pool', '3')}")
    assert told.stdout == "says 3\n"
    assert pool.paths.supervisor_log.read_text() == ""


# --- 24

NAMES = """
def f(name: str, x: int) -> str:
    _audit()
    print("dies ist", name, sys.stdout.encoding)
    print("auch", name, file=sys.stderr)
    subprocess.run(["echo", name])
    with open(os.path.join(FOLDER, "datei"), "a") as file:
        file.write(name + "\\n")
    if x == 2:
        raise ValueError(f"nichts für {name}")
    return name + "!"
"""
WORDS = ["größe", "日本語", "🙂 naïve"]


@pytest.mark.scenario(24)
@pytest.mark.parametrize("lang", scaled(["C"], ["C", "POSIX", None]))
def test_everything_works_in_the_world_of_cron(faults: Faults, lang: str | None) -> None:
    """Scenario 24: an empty environment, no stdin, no terminal: commands work, without ANSI, and UTF-8 is intact."""
    udf = faults.folder / "aufträge.py"
    shutil.copy(faults.write(NAMES), udf)
    table = faults.folder / "wörter.csv"
    table.write_text("name,x\n" + "".join(f"{word},{x}\n" for x, word in enumerate(WORDS)), encoding="utf-8")
    home = os.environ.get("HOME", "/root")
    world = ["PATH=/usr/bin:/bin", f"HOME={home}", f"PYTHONPATH={faults.env['PYTHONPATH']}"]
    world += [f"JOBPOOL_HOME={faults.home}", *([f"LANG={lang}", f"LC_ALL={lang}"] if lang else [])]
    faults.injected()

    def cron(*words: str | Path, code: int = 0) -> str:
        # As cron's mail has it: both streams in one pipe.
        with subprocess.Popen(
            ["setsid", "--wait", "env", "-i", *world, *faults.command(*words)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=faults.folder,
        ) as process:  # fmt: skip
            said = process.communicate(timeout=60)[0]
        assert process.returncode == code, said
        assert b"\x1b" not in said
        return said.decode("utf-8")

    assert cron("map", udf, table, "--name", "pool", "-j", "1").startswith("pool\n")
    assert "1 of 3 tasks of pool failed" in cron("wait", "pool", code=1)
    assert "error" in cron("tail", "pool", code=1)
    assert "aufträge.py:f" in cron("status", "pool")
    assert f"nichts für {WORDS[2]}" in cron("errors", "pool")
    assert f"nichts für {WORDS[2]}" in cron("errors", "pool", "--task", "2")
    assert WORDS[1] in cron("args", "pool")
    assert cron("logs", "pool", "1").splitlines()[0] == f"dies ist {WORDS[1]} utf-8"
    log = cron("logs", "pool", "0")
    assert log == f"dies ist {WORDS[0]} utf-8\nauch {WORDS[0]}\n{WORDS[0]}\n"
    assert WORDS[0] + "!" in cron("results", "pool")
    results = [json.loads(each) for each in cron("results", "pool", "--json").splitlines()]
    assert [each["result"] for each in results] == [f"{word}!" for word in WORDS[:2]]
    assert f"{WORDS[1]}!" in cron("collect", "pool", "--ignore-exceptions", "--format", "csv")
    cron("collect", "pool", "--ignore-exceptions", "-o", faults.folder / "öl.csv")
    assert f"{WORDS[1]}!" in (faults.folder / "öl.csv").read_text(encoding="utf-8")
    assert (faults.folder / "datei").read_text(encoding="utf-8").splitlines() == WORDS
    assert "wo_ist_größe.py" in cron("map", "wo_ist_größe.py", table, code=2)
    faults.check(faults.open(), lambda task: f"{WORDS[task]}!")


# --- 25


@pytest.mark.scenario(25)
@pytest.mark.parametrize("killed", scaled([True], [False, True]))
def test_a_pool_needs_neither_code_nor_table_nor_folder_after_map(faults: Faults, killed: bool) -> None:  # noqa: FBT001
    """Scenario 25: udf, its sibling, csv and working folder are removed after map: unaffected, and retry works."""
    work = faults.folder / "work"
    work.mkdir()
    (work / "sibling.py").write_text("def square(x):\n    return x * x\n")
    udf = faults.write(
        "def f(x: int) -> int:\n    _audit()\n    _wait_for('go')\n    import sibling, later\n"
        "    if x == 3 and not os.path.exists(os.path.join(FOLDER, 'mended')):\n        raise ValueError(x)\n"
        "    return sibling.square(x) + later.NOTHING\n",
        "work/job.py",
    )
    (work / "later.py").write_text("NOTHING = 0\n")
    table = faults.rows(6, "work/args.csv")
    faults.jobpool("map", udf.name, table.name, "--name", "pool", "-j", "2", cwd=work)
    pool = faults.open()
    faults.until(lambda: pool.snapshot().counts[TaskState.RUNNING] == 2)
    faults.injected()
    shutil.rmtree(work)
    if killed:
        faults.kill_supervisor(pool)
    faults.release("go")
    if killed:
        faults.jobpool("resume", "pool")
    faults.ended(pool)
    (failure,) = pool.failures()
    assert (failure.task, failure.type) == (3, "ValueError")
    assert "raise ValueError(x)" in faults.jobpool("errors", "pool", "--task", "3").stdout
    faults.release("mended")
    faults.jobpool("retry", "pool")
    faults.finish(pool)
    assert pool.snapshot().counts[TaskState.SUCCESS] == 6
    faults.check(pool)


@pytest.mark.scenario(25)
def test_commands_work_from_a_folder_that_is_gone(faults: Faults) -> None:
    """Scenario 25: the caller's own working folder has been removed: everything but map works."""
    pool = faults.map(HELD, 4)
    faults.until(lambda: pool.snapshot().counts[TaskState.RUNNING] == 2)
    faults.injected()
    gone = "mkdir gone; cd gone; rmdir ../gone; "
    assert shell(faults, gone + line(faults, "status", "pool")).returncode == 0
    faults.kill_supervisor(pool)
    faults.release("go")
    done = shell(faults, gone + line(faults, "resume", "pool"))
    assert done.returncode == 0, done.stderr
    assert shell(faults, gone + line(faults, "wait", "pool")).returncode == 0
    refused = shell(faults, gone + line(faults, "map", faults.write(HELD), faults.rows(2)))
    assert refused.returncode == 6
    assert "current folder has been deleted" in refused.stderr
    faults.check(pool)
