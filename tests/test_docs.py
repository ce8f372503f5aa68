"""The pages say what the code does, and their links lead somewhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from jobpool_cli.cli.main import VERBS, build
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


def commands_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("commands", ROOT / "docs" / "commands.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def sections(page: str) -> dict[str, str]:
    return dict(zip(*[iter(re.split(r"^## (.+)\n", page, flags=re.MULTILINE)[1:])] * 2, strict=True))


def test_the_page_of_commands_has_a_section_for_each_with_an_example_and_its_options() -> None:
    found = sections((ROOT / "docs" / "reference" / "commands.md").read_text())
    assert list(found) == list(VERBS)
    for verb, text in found.items():
        (example,) = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        assert f"jobpool {verb}" in example
        listed = set(re.findall(r"`(-[^` ]+)[^`]*`", text.split("<!-- options of", 1)[1].split("<!-- end -->")[0]))
        assert listed == {option for parameter in build(verb).params for option in parameter.opts if option[0] == "-"}


def test_the_page_of_commands_is_as_its_script_leaves_it() -> None:
    script = commands_script()
    page = script.PAGE.read_text()
    assert script.filled(page) == page, "run: python docs/commands.py"


def test_every_option_that_an_example_uses_exists() -> None:
    for page in PAGES:
        for example in re.findall(r"```sh\n(.*?)```", page.read_text(), re.DOTALL):
            for verb, words in re.findall(r"\bjobpool ([a-z]+)\b([^|;&)\n]*)", example):
                known = {option for parameter in build(verb).params for option in parameter.opts}
                assert {word for word in words.split() if re.match(r"--?[a-z]", word)} <= known | {"--help"}, page


def test_the_page_of_json_lists_every_command_that_has_the_option() -> None:
    page = (ROOT / "docs" / "reference" / "json.md").read_text().split("## ")[0]
    listed = {
        verb for cell in re.findall(r"^\| (.+?) \|", page, re.MULTILINE) for verb in re.findall(r"`([a-z]+)", cell)
    }
    assert listed == {verb for verb in VERBS if any("--json" in parameter.opts for parameter in build(verb).params)}


def test_every_decision_is_listed_and_tells_context_decision_and_consequences() -> None:
    folder = ROOT / "docs" / "decisions"
    index = (folder / "README.md").read_text()
    for page in folder.glob("[0-9]*.md"):
        assert f"]({page.name})" in index
        headings = re.findall(r"^## (.+)$", page.read_text(), re.MULTILINE)
        assert headings == ["Context", "Decision", "Consequences"]
