from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

from tests.cli.conftest import Gate
from tests.conftest import Run

Numbers = Callable[..., Path]


def two_pools(gate: Gate, numbers: Numbers, run: Run) -> None:
    """Make `first`, which is done, and `second`, which waits at the gate."""
    run("map", gate.udf, numbers(-1, -7), "--name", "first", "-j1", "--wait", code=1)
    run("map", gate.udf, numbers(1), "--name", "second", "-j1", code=0)


def test_list_has_a_row_per_pool_the_newest_last(gate: Gate, numbers: Numbers, run: Run) -> None:
    two_pools(gate, numbers, run)
    lines = [line.split("\t") for line in run("list", code=0).stdout.splitlines()]
    assert lines[0] == ["pool", "state", "tasks", "finished", "failed", "created", "function"]
    assert [line[:5] for line in lines[1:]] == [["first", "done", "2", "2", "1"], ["second", "running", "1", "0", "0"]]
    assert lines[1][6] == "gated.py:f"
    content = [json.loads(line) for line in run("list", "--json", code=0).stdout.splitlines()]
    assert [(each["schema"], each["pool"], each["state"]) for each in content] == [
        (1, "first", "done"),
        (1, "second", "running"),
    ]


def test_a_damaged_pool_is_listed_as_such_and_does_not_hide_the_others(
    gate: Gate, numbers: Numbers, run: Run, home: Path
) -> None:
    two_pools(gate, numbers, run)
    (home / "pools" / "first" / "pool.json").write_text("{")
    os.utime(home / "pools" / "first" / "pool.json", (0, 0))
    lines = run("list", code=0).stdout.splitlines()
    assert [line.split("\t")[:2] for line in lines[1:]] == [["first", "damaged"], ["second", "running"]]
    content = json.loads(run("list", "--json", code=0).stdout.splitlines()[0])
    assert content["state"] == "damaged"
    assert "pool.json" in content["reason"]


def test_no_pool_is_an_empty_list_and_a_word_on_stderr(run: Run) -> None:
    done = run("list", code=0)
    assert done.stdout == ""
    assert "make one: jobpool map UDF ARGS" in done.stderr
    assert "make one: jobpool map UDF ARGS" in run("status", code=3).stderr


def test_rm_without_a_terminal_wants_to_be_told_twice(one_pool: str, run: Run, home: Path) -> None:
    assert "say so: jobpool rm --yes POOL" in run("rm", one_pool, code=2).stderr
    assert os.listdir(home / "pools") == [one_pool]
    assert run("rm", one_pool, "--yes", code=0).stderr == f"{one_pool} is deleted\n"
    assert os.listdir(home / "pools") == []


def test_rm_of_several_removes_all_or_none(gate: Gate, numbers: Numbers, run: Run, home: Path) -> None:
    two_pools(gate, numbers, run)
    run("rm", "--yes", "first", "third", code=3)
    assert "second is being worked on" in run("rm", "--yes", "first", "second", code=4).stderr
    assert sorted(os.listdir(home / "pools")) == ["first", "second"]
    assert run("rm", "--force", "first", "second", "first", code=0).stderr == "first is deleted\nsecond is deleted\n"
    assert os.listdir(home / "pools") == []


def test_rm_takes_a_damaged_pool_away_by_force(one_pool: str, run: Run, home: Path) -> None:
    (home / "pools" / one_pool / "pool.json").unlink()
    assert f"jobpool rm --force {one_pool}" in run("rm", "--yes", one_pool, code=5).stderr
    run("rm", "--force", one_pool, code=0)
    assert os.listdir(home / "pools") == []


def test_rm_completes_what_a_killed_rm_left(one_pool: str, run: Run, home: Path) -> None:
    pools = home / "pools"
    (pools / one_pool).rename(pools / f".tmp-0123456789ab-{one_pool}")
    run("status", one_pool, code=3)
    assert run("rm", "--yes", one_pool, code=0).stderr == f"{one_pool} is deleted\n"
    assert os.listdir(pools) == []
