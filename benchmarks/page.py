"""Fill the table of peers in README.md from what their modules say: ``python -m benchmarks.page``.

Text between the two markers is this module's; all else is written by hand. A test holds that the page is as it would
leave it.
"""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks import peers

PAGE = Path(__file__).parent / "README.md"
BLOCK = re.compile(r"<!-- peers -->\n.*?<!-- end -->", re.DOTALL)


def filled(page: str) -> str:
    """Return the page with the table as the modules are now."""
    return BLOCK.sub(lambda _found: f"<!-- peers -->\n{table()}\n<!-- end -->", page)


def table() -> str:
    """Return what each peer keeps on disk and what it forgets."""
    lines = ["| peer | is on disk afterwards | is forgotten |", "|---|---|---|"]
    # jobpool first, then by name.
    for peer in sorted(peers.names(), key=lambda name: (name != "jobpool", name)):
        known = peers.facts(peer)
        lines.append(f"| [{known['NAME']}](peers/{peer}.py) | {known['KEEPS']} | {known['FORGETS']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
