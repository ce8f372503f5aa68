"""The environment of the benchmarks, ``.bench/venv``: jobpool as it stands here, and its peers in pinned versions."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from benchmarks import peers
from benchmarks.measure import ROOT

FOLDER = ROOT / ".bench"
VENV = FOLDER / "venv"
REQUIREMENTS = Path(__file__).parent / "requirements.txt"
STAMP = VENV / "made-of"


def python() -> Path:
    """Return the environment's interpreter; make the environment if it is not there, or of something else."""
    found = VENV / "bin" / "python"
    wanted = _made_of()
    if not (STAMP.is_file() and STAMP.read_text(encoding="utf-8") == wanted):
        print(f"making {VENV} (once; some minutes)", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
        install = [str(found), "-m", "pip", "--disable-pip-version-check", "--no-input", "install", "--quiet"]
        subprocess.run([*install, "--use-pep517", "--editable", ROOT], check=True)
        if subprocess.run([*install, "-r", REQUIREMENTS], check=False).returncode:
            # Not every peer has a build for every machine: those that have one are measured.
            for line in _requirements():
                subprocess.run([*install, line], check=False)
        STAMP.write_text(wanted, encoding="utf-8")
    return found


def run_there(arguments: Sequence[str | Path]) -> int:
    """Run ``python -m benchmarks`` in the environment, in a copy of this repository; return its exit code.

    All figures of a run are then of one state of the code, whoever edits it meanwhile.
    """
    interpreter = python()
    with tempfile.TemporaryDirectory(dir=FOLDER, prefix="run-", ignore_cleanup_errors=True) as folder:
        code = Path(folder) / "code"
        # Times are copied, too: the compiled modules beside their sources stay valid.
        shutil.copytree(ROOT, code, ignore=lambda _folder, names: [name for name in names if name.startswith(".")])
        return subprocess.run([interpreter, "-m", "benchmarks", *arguments], cwd=code, check=False).returncode


def _made_of() -> str:
    """Tell apart what an environment can be made of."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = "\n".join([*project["dependencies"], REQUIREMENTS.read_text(encoding="utf-8")])
    return f"{sys.version}\n{needed}"


def jobpool_command(interpreter: Path) -> tuple[str, ...]:
    """Return how jobpool is called there: the installed command, else its module."""
    script = interpreter.with_name("jobpool")
    return (str(script),) if script.is_file() else (str(interpreter), "-m", "jobpool_cli")


def lacking(peer: str) -> str:
    """Return why a peer cannot run on this machine; empty if it can."""
    facts = peers.facts(peer)
    program, package = facts.get("NEEDS"), facts.get("PACKAGE")
    if program and shutil.which(program) is None:
        return f"there is no `{program}` on this machine"
    if package and importlib.util.find_spec(package) is None:
        return f"the Python package `{package}` is not installed"
    return ""


def machine(workers: int) -> dict[str, str]:
    """Return what the figures were taken on and with."""
    found = {
        "processor": _processor(),
        "cores": f"{len(os.sched_getaffinity(0))}, of which {workers} work",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    versions = {name: _version(name) for name in pinned()}
    for program in filter(None, (peers.facts(peer).get("NEEDS") for peer in peers.names())):
        if shutil.which(program):
            said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
            versions[program] = said.partition("\n")[0].rpartition(" ")[2]
    return found | {name: version for name, version in versions.items() if version}


def pinned() -> Sequence[str]:
    """Return the names of the packages in requirements.txt."""
    return [line.partition("==")[0] for line in _requirements()]


def _requirements() -> Sequence[str]:
    lines = REQUIREMENTS.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
