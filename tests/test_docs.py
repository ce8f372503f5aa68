"""The pages say what the code does, and their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobpool_cli.errors import ExitCode

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])
LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_from_a_page_to_a_file_leads_somewhere(page: Path) -> None:
    targets = [target for target in LINK.findall(page.read_text()) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_page_of_exit_codes_lists_exactly_those_of_the_code() -> None:
    page = (ROOT / "docs" / "reference" / "exit-codes.md").read_text()
    listed = re.findall(r"^\| (\d+) \| `(\w+)` \|", page, re.MULTILINE)
    assert listed == [(str(code.value), code.name) for code in ExitCode]


def test_every_decision_is_listed_and_tells_context_decision_and_consequences() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    for page in folder.glob("[0-9]*.md"):
        assert f"]({page.name})" in index
        headings = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences"]
