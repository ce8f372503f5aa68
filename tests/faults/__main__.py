"""The long sweeps of the fault suite and their table: ``make faults``, or ``python -m tests.faults --help``."""

from __future__ import annotations

import argparse
import collections
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.faults import ledger
from tests.faults.scenarios import SCENARIOS

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
PAGE = ROOT / "docs" / "explanation" / "durability.md"
HEADS = ("faults injected", "pools checked", "tasks", "tasks lost", "recorded twice", "hangs")
COLUMNS = ("injected", "checked", "tasks", "lost", "twice", "hangs")


class Tally:
    """What the ledger says of one scenario."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self.counts: collections.Counter[str] = collections.Counter()
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.reasons: set[str] = set()
        self.seconds = 0.0

    def add(self, event: dict[str, Any]) -> None:
        """Take in one line of the ledger."""
        for name in COLUMNS:
            self.counts[name] += event.get(name, 0)
        if "outcome" in event:
            self.outcomes[event["outcome"]] += 1
            self.seconds += event["seconds"]
            if event["reason"]:
                self.reasons.add(event["reason"])

    @property
    def verdict(self) -> str:
        """Whether the scenario holds."""
        if self.outcomes["failed"]:
            return "FAILS"
        if self.outcomes["skipped"]:
            return f"skipped: {'; '.join(sorted(self.reasons))}"
        return "holds" if self.outcomes["passed"] else "not run"


def tally(lines: Iterable[str]) -> dict[int, Tally]:
    """Add the ledger up by scenario; what belongs to none stands under 0."""
    found: dict[int, Tally] = {number: Tally() for number in (0, *SCENARIOS)}
    for line in lines:
        event = json.loads(line)
        found[event["scenario"]].add(event)
    return found


def table(tallies: dict[int, Tally]) -> str:
    """Return the table as Markdown, which is as readable in a terminal."""
    rows: list[tuple[str, ...]] = [("", "scenario", "", *HEADS)]
    for number, title in SCENARIOS.items():
        each = tallies[number]
        rows.append((str(number), title, each.verdict, *(f"{each.counts[name]:,}" for name in COLUMNS)))
    totals = [sum(each.counts[name] for each in tallies.values()) for name in COLUMNS]
    hold = sum(1 for number in SCENARIOS if tallies[number].verdict == "holds")
    rows.append(("", "in all", f"{hold} of {len(SCENARIOS)} hold", *(f"{total:,}" for total in totals)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    numeric = {0, *range(3, len(rows[0]))}
    lines = [
        "| " + " | ".join(
            text.rjust(width) if column in numeric else text.ljust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ) + " |"
        for row in rows
    ]  # fmt: skip
    rules = ("-" * (width + 1) + (":" if column in numeric else "-") for column, width in enumerate(widths))
    rule = "|" + "|".join(rules)
    return "\n".join([lines[0], rule + "|", *lines[1:]])


def main() -> int:
    """Run, count, print; 0 if every scenario that ran holds and nothing was lost, twice or hung."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--only", help="numbers of scenarios, as 4,5,17")
    parser.add_argument("--quick", action="store_true", help="as much of each as `make test` runs")
    parser.add_argument("-n", default="2", help="tests side by side (2)")
    parser.add_argument("--page", action="store_true", help=f"write the figures into {PAGE.relative_to(ROOT)}")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jobpool-faults-") as folder:
        path = Path(folder, "ledger")
        path.touch()
        env = {**os.environ, ledger.LEDGER: str(path), ledger.SCALE: "quick" if chosen.quick else "long"}
        if chosen.only:
            env[ledger.ONLY] = chosen.only
        words = [sys.executable, "-m", "pytest", "-q", "-n", chosen.n, "-p", "no:randomly", "--dist=worksteal"]
        code = subprocess.run([*words, str(FOLDER)], cwd=ROOT, env=env, check=False).returncode
        tallies = tally(path.read_text(encoding="utf-8").splitlines())
    text = table(tallies)
    print("", text, sep="\n")
    if chosen.page:
        from benchmarks.page import filled  # noqa: PLC0415 - only this needs it

        PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), "figures", text), encoding="utf-8")
    broken = any(each.counts[name] for each in tallies.values() for name in ("lost", "twice", "hangs"))
    return int(code not in {0, 5} or broken)


if __name__ == "__main__":
    sys.exit(main())
