from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from jobpool_cli.pool import JobPool
from tests.conftest import Run
from tests.helpers import until

CommandLine = tuple[list[str], dict[str, str]]
SQUARE = "def square(x: int) -> int:\n    return x * x\n"
# True in the process of `map`, which imports the file to check it, and not in a worker.
IN_MAP = "'map' in sys.argv"
CHILDREN = "[int(pid) for pid in open(f'/proc/self/task/{os.getpid()}/children').read().split()]"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "args.csv"
    path.write_text("x\n1\n2\n3\n")
    return path


def write(folder: Path, text: str) -> Path:
    path = folder / "udf.py"
    path.write_text(text)
    return path


def processes_of(home: Path) -> list[int]:
    """Return whatever runs with this home in its environment."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if f"JOBPOOL_HOME={home}".encode() in Path(entry.path, "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found


def test_a_supervisor_and_a_worker_start_while_map_still_imports_the_function(
    command_line: CommandLine, home: Path, tmp_path: Path, table: Path
) -> None:
    wait = f"if {IN_MAP}:\n    while not os.path.exists({str(tmp_path / 'go')!r}): time.sleep(0.01)\n"
    udf = write(tmp_path, f"import os, sys, time\n{wait}{SQUARE}")
    words, env = command_line
    with subprocess.Popen([*words, "map", udf, table, "--wait"], env=env, stdout=subprocess.DEVNULL) as command:
        try:
            until(lambda: len(processes_of(home)) >= 3, what="map, supervisor and worker")
            assert not (home / "pools").exists() or not os.listdir(home / "pools")
            early = set(processes_of(home)) - {command.pid}
            (tmp_path / "go").touch()
            assert command.wait(60) == 0
        finally:
            command.kill()
    pool = JobPool.open("last", home=str(home))
    assert list(pool.results_now().values()) == [1, 4, 9]
    until(lambda: not early & set(processes_of(home)), what="those that stood by are the pool's and end with it")


def test_what_stood_by_is_gone_when_the_arguments_are_refused(
    run: Run, home: Path, tmp_path: Path, table: Path
) -> None:
    table.write_text("x\none\n")
    refused = run("map", write(tmp_path, SQUARE), table, code=2)
    assert "'one' is not an int" in refused.stderr
    until(lambda: not processes_of(home))
    assert not (home / "pools").exists() or not os.listdir(home / "pools")


def test_what_stood_by_is_gone_when_map_is_killed(
    command_line: CommandLine, home: Path, tmp_path: Path, table: Path
) -> None:
    udf = write(tmp_path, f"import sys, time\nif {IN_MAP}: time.sleep(100)\n{SQUARE}")
    words, env = command_line
    with subprocess.Popen([*words, "map", udf, table], env=env) as command:
        until(lambda: len(processes_of(home)) >= 3, what="map, supervisor and worker")
        command.kill()
    until(lambda: not processes_of(home))


def test_a_dry_run_starts_nothing(run: Run, home: Path, tmp_path: Path, table: Path) -> None:
    udf = write(tmp_path, f"import os, sys\nprint('children', {CHILDREN}, file=sys.stderr)\n{SQUARE}")
    assert "children []" in run("map", udf, table, "--dry-run", code=0).stderr
    until(lambda: not processes_of(home))


def test_a_pool_runs_though_what_stood_by_was_killed(run: Run, home: Path, tmp_path: Path, table: Path) -> None:
    kill = f"if {IN_MAP}:\n    for pid in {CHILDREN}: os.kill(pid, {signal.SIGKILL:d})\n"
    udf = write(tmp_path, f"import os, sys\n{kill}{SQUARE}")
    run("map", udf, table, "--wait", code=0)
    assert JobPool.open("last", home=str(home)).results() == [1, 4, 9]
    until(lambda: not processes_of(home))


def test_workers_inherit_what_the_import_in_map_changed(run: Run, home: Path, tmp_path: Path, table: Path) -> None:
    body = "def told(x: int):\n    return [os.environ.get('TOLD'), os.getcwd()]\n"
    (tmp_path / "elsewhere").mkdir()
    change = f"if {IN_MAP}:\n    os.environ['TOLD'] = 'by map'\n    os.chdir('elsewhere')\n"
    run("map", write(tmp_path, f"import os, sys\n{change}{body}"), table, "--wait", cwd=tmp_path, code=0)
    results = JobPool.open("last", home=str(home)).results()
    assert results == [["by map", str(tmp_path / "elsewhere")]] * 3


def test_a_current_folder_that_is_gone_is_told(
    command_line: CommandLine, home: Path, tmp_path: Path, table: Path
) -> None:
    udf = write(tmp_path, SQUARE)
    words, env = command_line
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f"cd '{gone}' && rmdir '{gone}' && exec \"$@\""
    told = subprocess.run(
        ["/bin/sh", "-c", script, "sh", *words, "map", udf, table], env=env, capture_output=True, text=True, check=False
    )
    assert told.returncode == 6
    assert "the current folder has been deleted" in told.stderr
    until(lambda: not processes_of(home))
