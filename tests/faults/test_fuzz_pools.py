"""Pools with any file damaged in any way: commands say what is wrong, in their own words, and change nothing."""

from __future__ import annotations

import json
import os
import random
import shutil
import stat
import time
import warnings
from pathlib import Path

import pytest

from tests.faults import inprocess, ledger, recipes
from tests.faults.harness import Faults
from tests.faults.test_formats import RELEASES, unpack

CORPUS = Path(__file__).parent.parent / "data" / "corpus" / "pools"
READS: list[list[str]] = [
    ["status", "{pool}"],
    ["status", "{pool}", "--json"],
    ["list"],
    ["is", "{pool}", "done"],
    ["tasks", "{pool}"],
    ["tasks", "{pool}", "--args", "--state", "pending", "--limit", "3"],
    ["results", "{pool}"],
    ["results", "{pool}", "--json", "0", "3"],
    ["collect", "{pool}", "--partial", "--ignore-exceptions"],
    ["collect", "{pool}", "--partial", "--format", "jsonl", "--drop-index"],
    ["errors", "{pool}"],
    ["errors", "{pool}", "--list", "--json"],
    ["errors", "{pool}", "--first"],
    ["logs", "{pool}"],
    ["logs", "{pool}", "2", "--tail", "3"],
    ["args", "{pool}"],
    ["wait", "{pool}", "--timeout", "0.1"],
    ["doctor", "{pool}"],
    ["doctor", "{pool}", "--json"],
]
CODES = {0, 1, 3, 5, 6}
# These wait, and nobody works on the pool.
WAITING = {"wait": {4, 124}}
BASE = RELEASES[-1]
SECONDS = ledger.scaled(8.0, 230.0)


def state_of(home: Path) -> dict[str, object]:
    """Return what is in a home, file by file; what SQLite's readers share aside."""
    found: dict[str, object] = {}
    for path in sorted(home.rglob("*")):
        name = str(path.relative_to(home))
        mode = path.lstat().st_mode
        if name.endswith("-shm"):
            continue
        found[name] = (
            path.read_bytes() if stat.S_ISREG(mode) else (mode, os.readlink(path) if path.is_symlink() else "")
        )
    return found


def check(home: Path, recipe: recipes.Recipe) -> None:
    """Damage the pools of a home, and run every read command on the one that is damaged."""
    recipes.apply(recipe, home)
    before = state_of(home)
    for words in READS:
        command = [word.format(pool=recipe["pool"]) for word in words]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of rights that others have to a pool
                told = inprocess.run(home, *command)
        except BaseException as error:
            error.add_note(f"{' '.join(command)} on {json.dumps(recipe)}")
            raise
        about = (command, recipe, told)
        assert told.code in CODES | WAITING.get(command[0], set()), about
        assert "Traceback (most recent call last)" not in told.err or command[0] in {"errors", "logs"}, about
        assert "fault in jobpool" not in told.err, about
        if told.code in {3, 4, 5, 6} and command[0] != "doctor":
            assert told.err.startswith("jobpool: error: "), about
    after = state_of(home)
    assert {name: after.get(name) for name in before} == before, recipe


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a home with two pools, to be copied and damaged."""
    home = tmp_path_factory.mktemp("template") / "home"
    unpack(BASE, home)
    return home


@pytest.mark.scenario(12)
def test_what_was_once_found_stays_mended(faults: Faults, template: Path) -> None:
    """Scenario 12: the recipes of the corpus: the house's form of an error, nothing changed, no hang."""
    for path in sorted(CORPUS.glob("*.json")):
        home = faults.folder / path.stem
        shutil.copytree(template, home, symlinks=True)
        faults.injected()
        check(home, json.loads(path.read_text(encoding="utf-8")))
        shutil.rmtree(home)


@pytest.mark.scenario(12)
def test_no_damage_to_any_file_of_a_pool_makes_a_command_fail_in_another_way_than_its_own(
    faults: Faults, template: Path
) -> None:
    """Scenario 12: random damage to any file: exit 0, 1, 3, 5 or 6, never a traceback, never a hang, never a change."""
    seed = int(os.environ.get("JOBPOOL_FUZZ_SEED", time.time_ns() % 2**32 if ledger.is_long() else 12))
    chance = random.Random(seed)  # noqa: S311 - no secret
    deadline = time.monotonic() + SECONDS
    # Where nobody has time, at least a few.
    number = 0
    while number < 10 or time.monotonic() < deadline:
        number += 1
        home = faults.folder / f"home-{number}"
        shutil.copytree(template, home, symlinks=True)
        recipe = recipes.make(chance, home)
        faults.injected()
        check(home, recipe)
        shutil.rmtree(home)
