from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

from jobpool_cli.cli.deferred import SELDOM_USED
from jobpool_cli.cli.main import VERBS
from tests.conftest import Run

HEAVY = {"pandas", "pyarrow", "numpy", "pydantic", "rich", "polars", "cloudpickle"}


def test_help_lists_every_verb_and_imports_none(run: Run, command_line: tuple[list[str], dict[str, str]]) -> None:
    text = run("--help", code=0).stdout
    assert [line.split()[0] for line in text.partition("Commands:\n")[2].splitlines()[: len(VERBS)]] == list(VERBS)
    loaded = modules_after(["--help"], command_line)
    assert {name for name in loaded if name.startswith("jobpool_cli.cli.")} == {
        "jobpool_cli.cli.main",
        "jobpool_cli.cli.render",
    }


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_module_with_one_command_that_says_what_it_does(verb: str) -> None:
    assert import_module(f"jobpool_cli.cli.verbs.{VERBS[verb][0]}").command.__doc__


@pytest.mark.parametrize("arguments", [["status"], ["status", "--json"], ["is", "done"], ["list"], ["wait"]])
def test_asking_how_a_pool_is_doing_loads_no_heavy_library_and_no_other_verb(
    arguments: list[str], one_pool: str, command_line: tuple[list[str], dict[str, str]]
) -> None:
    assert one_pool == "done-pool"
    loaded = modules_after(arguments, command_line)
    assert "jobpool_cli.pool" in loaded
    assert not HEAVY & {name.partition(".")[0] for name in loaded}
    others = {module for verb, (module, _) in VERBS.items() if verb != arguments[0]}
    assert not others & {
        name.removeprefix("jobpool_cli.cli.verbs.") for name in loaded if name.startswith("jobpool_cli.cli.verbs.")
    }


QUICK = [["status", "done-pool"], ["is", "done"], ["list"], ["--help"], ["--version"]]


@pytest.mark.parametrize("arguments", QUICK)
def test_a_short_command_loads_little_of_what_typer_and_the_standard_library_could_bring(
    arguments: list[str], one_pool: str, command_line: tuple[list[str], dict[str, str]]
) -> None:
    assert one_pool == "done-pool"
    loaded = loaded_by_the_program(arguments, command_line)
    unused = {*SELDOM_USED, "asyncio", "dataclasses", "multiprocessing", "platformdirs", "socket", "typing_extensions"}
    if arguments == ["--help"]:
        unused.remove("textwrap")  # which wraps it
    assert not (unused | HEAVY) & loaded


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize("typed", ["jobpool st", "jobpool status --j", "jobpool status d"])
def test_completion_loads_no_heavy_library(
    typed: str, shell: str, one_pool: str, command_line: tuple[list[str], dict[str, str]]
) -> None:
    assert one_pool == "done-pool"
    words, env = command_line
    asked = {
        "_JOBPOOL_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(typed.count(" ")),
        "_TYPER_COMPLETE_ARGS": typed,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    loaded = loaded_by_the_program([], (words, env | asked))
    assert not HEAVY & loaded
    if typed == "jobpool st":
        assert not [name for name in loaded if name.startswith("jobpool_cli.cli.verbs")], "a verb was built"


def test_a_module_that_is_put_off_is_loaded_by_its_first_use() -> None:
    script = """
import sys
from jobpool_cli.cli.deferred import deferred
with deferred(("colorsys", "sndhdr_that_is_not_there")):
    import colorsys
    import sndhdr_that_is_not_there
    before = colorsys
assert "colorsys" not in sys.modules
assert before.rgb_to_hls(0, 0, 0) == (0.0, 0.0, 0.0)
import colorsys
assert colorsys is not before and colorsys.rgb_to_hls is before.rgb_to_hls
with deferred(("colorsys", "wave")):
    from wave import WAVE_FORMAT_PCM
    import wave
assert sys.modules["wave"] is wave
try:
    sndhdr_that_is_not_there.what
except ModuleNotFoundError:
    print("good")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("good\n", "")


def test_a_mistyped_verb_is_a_usage_error_that_names_the_nearest(run: Run) -> None:
    done = run("staus", code=2)
    assert done.stdout == ""
    assert done.stderr == "jobpool: error: there is no command 'staus'\nhint: did you mean status?\n"


def test_a_mistyped_option_is_a_usage_error_that_names_the_nearest(run: Run) -> None:
    done = run("status", "--jsn", code=2)
    assert done.stderr.startswith(
        "jobpool: error: no such option: --jsn\nhint: did you mean --json? see: jobpool status"
    )


def test_a_missing_argument_is_a_usage_error_in_the_form_of_all_errors(run: Run) -> None:
    done = run("map", code=2)
    assert done.stderr == "jobpool: error: missing argument 'UDF'\nhint: see: jobpool map --help\n"


def test_without_a_verb_the_help_goes_to_stderr(run: Run) -> None:
    done = run(code=2)
    assert done.stdout == ""
    assert "Commands:" in done.stderr


def test_the_version_is_the_packages(run: Run) -> None:
    from jobpool_cli import __version__  # noqa: PLC0415

    assert run("--version", code=0).stdout == f"jobpool {__version__}\n"


def test_a_pool_that_is_not_there_is_exit_code_3_with_the_nearest_name(run: Run, one_pool: str) -> None:
    done = run("status", "done-pol", code=3)
    assert done.stderr == f"jobpool: error: there is no pool named done-pol\nhint: did you mean {one_pool}?\n"


@pytest.mark.parametrize("name", ["../x", "/etc", "", ".", "a" * 300, "a\nb"])
def test_a_name_that_no_pool_can_bear_is_a_usage_error_and_makes_nothing(name: str, run: Run, home: Path) -> None:
    assert "cannot be a pool's name" in run("status", name, code=2).stderr
    assert not home.exists()


def test_a_damaged_pool_is_exit_code_5_without_a_traceback(run: Run, home: Path, one_pool: str) -> None:
    database = home / "pools" / one_pool / "state.db"
    database.write_bytes(b"\0" * 100 + database.read_bytes()[100:])
    done = run("status", code=5)
    assert "Traceback" not in done.stderr
    assert "hint: " in done.stderr


def test_output_onto_a_full_disk_is_exit_code_6(one_pool: str, command_line: tuple[list[str], dict[str, str]]) -> None:
    words, env = command_line
    with open("/dev/full", "wb") as full:
        done = subprocess.run([*words, "status", one_pool], stdout=full, stderr=subprocess.PIPE, env=env, check=False)
    assert done.returncode == 6
    assert done.stderr == b"jobpool: error: the output could not be written: No space left on device\n"


def test_a_reader_that_has_seen_enough_ends_the_command_quietly(
    one_pool: str, command_line: tuple[list[str], dict[str, str]]
) -> None:
    words, env = command_line
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "wb") as pipe:
        done = subprocess.run([*words, "status", one_pool], stdout=pipe, stderr=subprocess.PIPE, env=env, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_closed_stdout_and_stderr_do_no_harm(one_pool: str, command_line: tuple[list[str], dict[str, str]]) -> None:
    words, env = command_line
    shell = ["sh", "-c", '"$@" >&- 2>&-', "sh", *words]
    assert subprocess.run([*shell, "status", one_pool], env=env, check=False).returncode == 0
    assert subprocess.run([*shell, "status", "none"], env=env, check=False).returncode == 3


@pytest.mark.parametrize(
    "arguments",
    [["results"], ["results", "--json"], ["args"], ["tasks", "--json"], ["logs"], ["logs", "--follow"], ["collect"]],
    ids=" ".join,
)
def test_a_command_that_is_all_about_its_output_says_so_when_stdout_is_closed(
    arguments: list[str], one_pool: str, command_line: tuple[list[str], dict[str, str]]
) -> None:
    assert one_pool == "done-pool"
    words, env = command_line
    shell = ["sh", "-c", '"$@" >&-', "sh", *words, *arguments]
    done = subprocess.run(shell, stderr=subprocess.PIPE, env=env, check=False, text=True)
    assert done.returncode == 6
    assert done.stderr.startswith("jobpool: error: the output could not be written: stdout is closed\nhint: ")


def test_colour_is_for_terminals_and_for_those_who_force_it(run: Run, one_pool: str) -> None:
    assert "\x1b" not in run("status", one_pool).stdout
    assert "\x1b[32mdone" in run("status", one_pool, env={"FORCE_COLOR": "1"}).stdout
    assert "\x1b" not in run("status", one_pool, env={"FORCE_COLOR": "1", "NO_COLOR": "1"}).stdout


def test_a_fault_of_our_own_is_told_without_a_traceback_unless_asked_for(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys; sys.modules['jobpool_cli.cli.verbs.status'] = object()\n")
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parent.parent.parent)])
    done = run("status", env={"PYTHONPATH": path}, code=6)
    assert done.stderr.startswith("jobpool: error: this is a fault in jobpool itself: AttributeError")
    assert "Traceback" in run("status", env={"PYTHONPATH": path, "JOBPOOL_DEBUG": "1"}).stderr


def test_in_the_bare_world_of_cron_everything_is_there_and_plain(
    one_pool: str, home: Path, command_line: tuple[list[str], dict[str, str]]
) -> None:
    words, env = command_line
    bare = {"PATH": "/usr/bin:/bin", "HOME": str(home.parent), "LANG": "C", "PYTHONPATH": env["PYTHONPATH"]}
    done = subprocess.run(
        [*words, "status", one_pool, "--home", str(home)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=bare,
        check=True,
    )
    assert "█".encode() in done.stdout
    assert b"\x1b" not in done.stdout


def loaded_by_the_program(arguments: list[str], command_line: tuple[list[str], dict[str, str]]) -> set[str]:
    """Run the program from its first moment, and return what was loaded at its end."""
    script = (
        "import os, sys; leave = os._exit; sys.argv[1:] = eval(sys.argv[1]);"
        " os._exit = lambda code: (tell(), leave(code));"
        " tell = lambda: print(*filter(sys.modules.get, [*sys.modules]), sep='\\n', file=sys.stderr, flush=True);"
        " from jobpool_cli.__main__ import start; start()"
    )
    _, env = command_line
    done = subprocess.run(
        [sys.executable, "-c", script, repr(arguments)], env=env, capture_output=True, text=True, check=True
    )
    loaded = set(done.stderr.split())
    assert "typer" in loaded
    return loaded


def modules_after(arguments: list[str], command_line: tuple[list[str], dict[str, str]]) -> set[str]:
    """Run a command line and return what was imported."""
    script = (
        "import sys; from jobpool_cli.cli.main import main; code = main(sys.argv[1:]);"
        " print(*sys.modules, sep='\\n', file=sys.stderr); sys.exit(code)"
    )
    _, env = command_line
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=env, capture_output=True, text=True, check=True
    )
    return set(done.stderr.split())


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("typed", "offered"),
    [(["st"], ["status"]), (["status", "don"], ["done-pool"]), (["wait", "--qu"], ["--quiet"])],
)
def test_the_shell_is_offered_verbs_options_and_the_names_of_pools(
    shell: str, typed: list[str], offered: list[str], one_pool: str, run: Run
) -> None:
    assert one_pool == "done-pool"
    assert offered_by(run, shell, ["jobpool", *typed]) == offered


def test_every_verb_is_offered_where_none_is_begun(run: Run) -> None:
    assert offered_by(run, "bash", ["jobpool", ""]) == list(VERBS)


def test_the_newest_pool_is_offered_first(run: Run, one_pool: str, home: Path) -> None:
    for age, name in enumerate(["old", "older", "oldest"], 1):
        shutil.copytree(home / "pools" / one_pool, home / "pools" / name)
        made = (home / "pools" / one_pool / "pool.json").stat().st_mtime - age
        os.utime(home / "pools" / name / "pool.json", (made, made))
    assert offered_by(run, "bash", ["jobpool", "status", ""]) == [one_pool, "old", "older", "oldest"]
    (home / "pools" / "old" / "state.db").unlink()
    assert offered_by(run, "bash", ["jobpool", "status", "ol"]) == ["old", "older", "oldest"]


def offered_by(run: Run, shell: str, words: list[str]) -> list[str]:
    """Press Tab behind some words, and return what is offered."""
    typed = " ".join(words)
    env = {
        "_JOBPOOL_COMPLETE": f"complete_{shell}",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(words) - 1),
        "_TYPER_COMPLETE_ARGS": typed,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }
    printed = run(env=env, code=0).stdout
    if shell == "zsh":
        return re.findall(r'^(?:_arguments .*?)?"(.*?)"', printed, re.MULTILINE)
    return [line.partition("\t")[0] for line in printed.splitlines()]
