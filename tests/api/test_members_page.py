"""The page of the Python API lists every member of the class, each with a command and a test that is there."""

from __future__ import annotations

import re

import pytest

from jobpool_cli import JobPool
from tests.conftest import ROOT

from .test_doctests import INNER
from .test_reference_examples import REFERENCE

PAGE = (ROOT / "docs" / "reference" / "python.md").read_text()


def rows(table: str) -> list[list[str]]:
    (text,) = re.findall(rf"<!-- {table} -->\n(.*?)<!-- end -->", PAGE, re.DOTALL)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]


def names(table: str) -> list[str]:
    return [name for row in rows(table) for name in re.findall(r"`(\w+)`", row[0])]


def test_every_member_of_the_class_that_is_re_created_is_on_the_page() -> None:
    assert set(names("members")) == {"map", "n_jobs", *REFERENCE}


def test_every_member_that_ours_has_beyond_it_is_on_the_page() -> None:
    ours = {name for name in dir(JobPool) if not name.startswith("_") and not name.endswith("_async")}
    assert set(names("more")) == ours - INNER - set(names("members"))


@pytest.mark.parametrize("row", rows("members"), ids=lambda row: row[0].strip("`"))
def test_the_test_that_shows_a_member_is_there_and_names_it(row: list[str]) -> None:
    found = re.fullmatch(r"\[[\w.]+\]\(\.\./\.\./([\w/.]+)\)`::(\w+)`", row[3])
    assert found is not None
    text = (ROOT / found[1]).read_text()
    assert f"def {found[2]}(" in text
