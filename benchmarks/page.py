"""Fill what pages say of the benchmarks from where it stands: ``python -m benchmarks.page``.

The table of peers in benchmarks/README.md comes from the peers' modules, the table of figures in README.md from
results/results.json. Text between two markers is this module's; all else is written by hand. A test holds that the
pages are as it would leave them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

from benchmarks import peers, report
from benchmarks.measure import ROOT

RESULTS = Path(__file__).parent / "results" / "results.json"


def filled(page: str, block: str, text: str) -> str:
    """Return the page with the block of that name as it is now."""
    between = re.compile(rf"<!-- {block} -->\n.*?<!-- end -->", re.DOTALL)
    return between.sub(lambda _found: f"<!-- {block} -->\n{text}\n<!-- end -->", page)


def peers_table() -> str:
    """Return what each peer keeps on disk and what it forgets."""
    lines = ["| peer | is on disk afterwards | is forgotten |", "|---|---|---|"]
    # jobpool first, then by name.
    for peer in sorted(peers.names(), key=lambda name: (name != "jobpool", name)):
        known = peers.facts(peer)
        lines.append(f"| [{known['NAME']}](peers/{peer}.py) | {known['KEEPS']} | {known['FORGETS']} |")
    return "\n".join(lines)


def figures() -> str:
    """Return what the last full run was taken on, and its goals."""
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    return f"{report.machine_line(results['machine'])}\n\n{report.goals_table(results['works'])}"


BLOCKS: dict[Path, tuple[str, Callable[[], str]]] = {
    Path(__file__).parent / "README.md": ("peers", peers_table),
    ROOT / "README.md": ("figures", figures),
}


if __name__ == "__main__":
    for path, (name, text) in BLOCKS.items():
        path.write_text(filled(path.read_text(encoding="utf-8"), name, text()), encoding="utf-8")
