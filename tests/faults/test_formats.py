"""Pools that earlier releases made: every command that reads reads them, and what they hold is what it was."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.faults import inprocess
from tests.faults.harness import Faults

FOLDER = Path(__file__).parent.parent / "data" / "formats"
RELEASES = sorted(path.stem for path in FOLDER.glob("*.json"))
MOST_BYTES = 100_000


def unpack(release: str, home: Path) -> dict[str, dict[str, Any]]:
    """Put a release's pools into a home; return what they hold."""
    with tarfile.open(FOLDER / f"{release}.tar.gz") as archive:
        # Not as an argument, which Python knows from 3.11.4 on.
        archive.extraction_filter = getattr(tarfile, "data_filter", None)
        archive.extractall(home)  # noqa: S202 - our own
    for path in (home, *home.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)
    held: dict[str, dict[str, Any]] = json.loads((FOLDER / f"{release}.json").read_text(encoding="utf-8"))
    return held


@pytest.mark.scenario(16)
@pytest.mark.parametrize("release", RELEASES)
def test_pools_of_an_earlier_release_are_read_by_every_command(faults: Faults, release: str) -> None:
    """Scenario 16: every read command works on the pools of every release, with the same counts and results."""
    for name, held in unpack(release, faults.home).items():

        def told(*words: str, pool: str = name, codes: tuple[int, ...] = (0,)) -> str:
            found = inprocess.run(faults.home, words[0], pool, *words[1:])
            assert found.code in codes, (words, found)
            return found.out

        def lines(*words: str) -> list[Any]:
            return [json.loads(line) for line in told(*words).splitlines()]

        (status,) = lines("status", "--json")
        assert {key: status[key] for key in ("state", "n_jobs", "counts")} == {
            key: held[key] for key in ("state", "n_jobs", "counts")
        }
        assert {str(each["task"]): each["result"] for each in lines("results", "--json")} == held["results"]
        assert [[each["task"], each["state"], each["attempt"]] for each in lines("tasks", "--json")] == held["tasks"]
        (errors,) = lines("errors", "--json")
        assert [[each["type"], each["count"]] for each in errors["groups"]] == held["errors"]
        assert told("args") == held["args"]
        assert {task: told("logs", task) for task in held["logs"]} == held["logs"]
        for form in ("csv", "tsv", "jsonl"):
            heads = form != "jsonl"
            rows = told("collect", "--partial", "--ignore-exceptions", "--format", form).count("\n") - heads
            assert rows == held["collected"], form
        told("tail" if held["state"] == "done" else "status", codes=(0, 1))
        told("wait", codes=(0, 1, 4))
        told("is", "done", codes=(0, 1))
        told("doctor")
        faults.injected()


@pytest.mark.scenario(16)
@pytest.mark.parametrize("release", RELEASES)
def test_a_pool_of_an_earlier_release_is_finished_by_this_one(faults: Faults, release: str) -> None:
    """Scenario 16: resume and retry go on where an earlier release was interrupted; INV holds."""
    held = unpack(release, faults.home)
    for name, each in held.items():
        pool = faults.open(name)
        # The folder in which its tasks run is long gone, as after any move.
        place = Path(pool.manifest.folder)
        place.mkdir(exist_ok=True)
        try:
            (place / "go").touch()
            (place / "mended").touch()
            faults.finish(pool)
        finally:
            for file in place.iterdir():
                file.unlink()
            place.rmdir()
        shown = {int(task) for task in each["results"]}
        faults.check(pool, None, shown=shown, audit=None)


def test_what_is_kept_of_a_release_is_small_and_says_nothing_of_the_machine_it_was_made_on() -> None:
    for release in RELEASES:
        packed = FOLDER / f"{release}.tar.gz"
        assert packed.stat().st_size < MOST_BYTES
        with tarfile.open(packed) as archive:
            for member in archive:
                assert (member.uid, member.gid, member.uname, member.gname) == (0, 0, "", "")
                file = archive.extractfile(member) if member.isfile() else None
                data = b"" if file is None else file.read()
                for word in (b"/home/", b"/root", b"/Users/", b"site-packages", str(Path.cwd()).encode()):
                    assert word not in data, (member.name, word)
