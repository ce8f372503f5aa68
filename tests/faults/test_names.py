"""Names that are paths, options, nothing at all: none of them makes, finds or deletes anything."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from jobpool_cli import JobPool
from jobpool_cli.cli.main import VERBS, main
from jobpool_cli.errors import JobPoolError, UsageError
from jobpool_cli.finding import by_age
from tests.faults.harness import SQUARE, Faults
from tests.faults.ledger import scaled

NAMES = [
    "../x", "/etc", "-rf", "", ".", "..", "x" * 300, "two\nlines", "a b", "a/b", "a\\b", ".hidden", "~", "*", "$(id)",
    "x\x1b[31m", "x\u202e", "x\u200b",
    "\uff4c\uff41\uff53\uff54", "p\u043e\u043el", "\xe9", "-", "--", "x\x7f", "\udcff",
]  # fmt: skip
# Of a verb that needs more than a pool.
MORE = {"is": ["done"], "debug": ["0"], "rm": ["--yes"]}
WITHOUT_POOL = {"map", "list", "doctor"}


def _tree(folder: Path) -> list[tuple[str, int]]:
    return sorted((os.fspath(path), path.lstat().st_mode) for path in folder.rglob("*"))


def _words(verb: str, name: str) -> list[str]:
    # After "--" a word is no option, whatever it begins with.
    if verb in {"is", "debug"}:
        return [verb, "--", name, *MORE[verb]]
    return [verb, *MORE.get(verb, ()), "--", name]


@pytest.mark.scenario(51)
def test_a_name_that_is_a_path_or_an_option_makes_no_pool(
    faults: Faults, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scenario 51: ``map --name``: exit 2, nothing created, here or elsewhere."""
    udf, table = faults.write(SQUARE), faults.rows(1)
    inside = faults.folder / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    before = _tree(faults.folder)
    through_the_command_line = scaled(NAMES[:1], NAMES)
    for name in [*NAMES, "last", "nul\0byte"]:
        if name in through_the_command_line:
            said = faults.jobpool("map", udf, table, f"--name={name}", code=2, cwd=inside).stderr
        else:
            monkeypatch.setenv("JOBPOOL_HOME", str(faults.home))
            assert main(["map", str(udf), str(table), f"--name={name}"]) == 2
            said = capsys.readouterr().err
        assert "cannot be a pool's name" in said
        faults.injected()
        after = [each for each in _tree(faults.folder) if "__pycache__" not in each[0]]
        assert after == before, name


@pytest.mark.scenario(51)
def test_no_verb_takes_a_path_or_an_option_for_a_pool(
    faults: Faults, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scenario 51: every verb that takes POOL: exit 2, nothing created or deleted."""
    monkeypatch.setenv("JOBPOOL_HOME", str(faults.home))
    outside = faults.home / "x"
    (faults.home / "pools").mkdir(parents=True, mode=0o700)
    outside.mkdir()
    (outside / "pool.json").write_text("{}")
    before = _tree(faults.folder)
    for verb in VERBS:
        if verb in WITHOUT_POOL:
            continue
        for name in scaled([*NAMES[:8], "nul\0byte"], [*NAMES, "nul\0byte"]):
            assert main(_words(verb, name)) == 2, (verb, name)
            assert "Traceback" not in capsys.readouterr().err
            faults.injected()
        assert main(_words(verb, "none")) == 3
    assert _tree(faults.folder) == before


@pytest.mark.scenario(51)
def test_the_python_names_refuse_the_same(faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenario 51: ``JobPool.open``, ``map(name=)`` and what deletes remains."""
    monkeypatch.setenv("JOBPOOL_HOME", str(faults.home))
    (faults.home / "pools").mkdir(parents=True, mode=0o700)
    victim = faults.home / "x"
    victim.mkdir()
    before = _tree(faults.folder)
    strange: list[Any] = [*NAMES, "nul\0byte", None, 7, b"x", Path("x"), ["x"], float("nan")]
    for name in strange:
        with pytest.raises(UsageError):
            JobPool.open(name)
        with pytest.raises(UsageError):
            JobPool.remove_remains(name, force=True)
        if name is not None:
            from jobpool_cli import udf  # noqa: PLC0415

            with pytest.raises(UsageError):
                udf(int).map([1], name=name)
        faults.injected()
    assert _tree(faults.folder) == before


@pytest.mark.scenario(51)
def test_a_folder_of_a_strange_name_is_no_pool(faults: Faults) -> None:
    """Scenario 51: what could not have been made as a pool is not listed, not found and not swept away."""
    strange = ["x\x1b[31m", "a b", "-rf", "last", "x" * 150]
    for name in strange:
        (faults.home / "pools" / name).mkdir(parents=True)
    faults.injected(len(strange))
    assert by_age(faults.home) == []
    with pytest.raises(JobPoolError, match="there is no pool in"):
        JobPool.open(home=str(faults.home))
    faults.jobpool("map", faults.write(SQUARE), faults.rows(2), "--name", "pool", "--wait")
    assert {each.name for each in (faults.home / "pools").iterdir()} == {*strange, "pool"}
    faults.check(faults.open())
