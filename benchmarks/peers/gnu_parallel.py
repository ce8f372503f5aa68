"""GNU parallel, with a log of its jobs and a file of what each printed: ``parallel --joblog FILE --results FOLDER``."""

from __future__ import annotations

import csv
import inspect
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

from benchmarks.measure import Figures
from benchmarks.peers import Job, main

NAME = "GNU parallel"
KEEPS = "each job's start, duration and exit code in a log, and what it printed in files; `--resume` goes on from there"
FORGETS = "values other than text; which jobs were running, if it is killed"
NEEDS = "parallel"
VARIANTS = {"": "shell one-liners", "task=python": "Python scripts"}

# What a shell does to the same effect, by the key of the work; {} is the argument.
SHELL_TASKS = {
    "a": "echo $(({}*{}))",
    "b": "sleep 0.001; echo {}",
    "c": "sleep $(({} / 1000000)).$(printf %06d $(({} % 1000000))); echo {}",
}


def shell_command(job: Job, argument: str = "{}") -> str:
    """Return a shell's command line that does what the work's function does."""
    return SHELL_TASKS[job.work.KEY].replace("{}", argument)


def write_script(job: Job, file: Path) -> None:
    """Write the work's function as the script that a user would have: it and the globals that it needs, no more."""
    used = inspect.getclosurevars(job.function).globals
    lines = ["from __future__ import annotations", "import sys"]
    for name, value in used.items():
        lines.append(f"import {value.__name__} as {name}" if isinstance(value, ModuleType) else f"{name} = {value!r}")
    call = f"print({job.function.__name__}(int(sys.argv[1])))"
    file.write_text("\n".join([*lines, inspect.getsource(job.function), call, ""]), encoding="utf-8")


def run(job: Job) -> Figures:
    """Run a command a task; read the results from what it printed.

    ``task=shell`` (the default) runs a shell's one-liner that does the same, so that no interpreter's start is
    measured; ``task=python`` runs the function itself, in an interpreter of its own.
    """
    script, log, output = job.folder / "task.py", job.folder / "joblog", job.folder / "output"
    arguments = job.folder / "arguments"
    arguments.write_text("".join(f"{argument}\n" for argument in job.arguments), encoding="utf-8")
    if job.variant.get("task") == "python":
        write_script(job, script)
        command = f"{shlex.quote(sys.executable)} {shlex.quote(str(script))} {{}}"
    else:
        command = shell_command(job)
    words = ["parallel", "--jobs", str(job.workers), "--joblog", str(log), "--results", f"{output}/{{#}}"]
    # Its own state goes where everything else goes, and the plain shell starts faster than most users' shells.
    env = os.environ | {"PARALLEL_HOME": str(job.folder / "home"), "PARALLEL_SHELL": "/bin/sh"}
    Path(env["PARALLEL_HOME"]).mkdir()
    begun = time.perf_counter()
    subprocess.run([*words, "--arg-file", str(arguments), command], check=True, stdout=subprocess.DEVNULL, env=env)
    results = [int((output / str(number)).read_text(encoding="utf-8")) for number in range(1, job.tasks + 1)]
    ended = time.perf_counter()
    job.check(results)
    return {
        "seconds": ended - begun,
        "map_seconds": first_start_to_last_end(log),
        "disk_bytes": sum(file.stat().st_blocks * 512 for file in [log, *output.rglob("*")] if file.is_file()),
    }


def first_start_to_last_end(log: Path) -> float:
    """Return the seconds for which jobs ran, from the log."""
    with log.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    starts = [float(row["Starttime"]) for row in rows]
    return max(start + float(row["JobRuntime"]) for start, row in zip(starts, rows, strict=True)) - min(starts)


if __name__ == "__main__":
    if shutil.which(NEEDS) is None:
        print(json.dumps({"skipped": f"there is no `{NEEDS}` on this machine"}))
    else:
        main(run)
