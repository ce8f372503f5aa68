from __future__ import annotations

from html.parser import HTMLParser
from xml.etree import ElementTree as ET

import pytest

from jobpool_cli.model import PoolState, PoolStatus, TaskState
from jobpool_cli.show.html import pool_html, progress_html
from tests.terminals import status_of

ALL = {state.value: 1 + number for number, state in enumerate(TaskState)}


class Words(HTMLParser):
    """What a reader sees."""

    text = ""

    def handle_data(self, data: str) -> None:
        self.text += data


def text_of(page: str) -> str:
    words = Words()
    words.feed(page)
    return words.text


def test_a_pool_is_shown_with_its_state_and_how_many_tasks_stand_where() -> None:
    status = status_of(PoolState.RUNNING, "p", **ALL)._replace(udf="f.py:f", workers=2, reason="why not")
    text = text_of(pool_html(status))
    assert text.startswith("p is running: 18 of 21 tasks finished (85 %)")
    for state, many in ALL.items():
        assert f"{state} {many}" in text
    for fact in ("why not", "f.py:f", "2 workers", "2.0 s, 6.0 tasks/s"):
        assert fact in text


@pytest.mark.parametrize(
    "status",
    [
        status_of(PoolState.RUNNING, "p", **ALL),
        status_of(PoolState.DONE, success=3),
        status_of(PoolState.DONE),
        status_of(PoolState.INTERRUPTED, pool="<b>&\"'\x1b[2J", pending=1)._replace(
            reason="</div><script>alert(1)</script>", udf="<img src=x>"
        ),
    ],
    ids=["running", "done", "empty", "hostile"],
)
def test_every_element_is_closed_and_what_a_user_wrote_is_only_text(status: PoolStatus) -> None:
    for page in (pool_html(status), *(progress_html(status, 3.0, watching=each) for each in (True, False))):
        assert {element.tag for element in ET.fromstring(page).iter()} <= {"div", "span", "b"}  # noqa: S314
        assert "\x1b" not in page
        assert status.pool.replace("\x1b", "\\x1b") in text_of(page)


def test_the_bar_has_a_part_for_each_state_in_proportion_and_none_too_narrow_to_be_seen() -> None:
    page = ET.fromstring(pool_html(status_of(success=10**6, error=1, pending=3)))  # noqa: S314
    bar = next(element for element in page.iter() if element.get("role") == "progressbar")
    parts = {part.get("title"): part.get("style") or "" for part in bar}
    assert list(parts) == ["1,000,000 success", "1 error", "3 pending"]
    assert [style.partition(" ")[0] for style in parts.values()] == ["flex:1000000", "flex:1", "flex:3"]
    assert "min-width:4px" in parts["1 error"]
    assert bar.get("aria-valuenow") == "99"


def test_a_done_pool_has_no_list_of_what_there_is_none_of() -> None:
    text = text_of(pool_html(status_of(PoolState.DONE, success=3)))
    assert "success 3" in text
    assert "pending" not in text
    assert "took 2.0 s" in text


@pytest.mark.parametrize(
    ("status", "watching", "expected"),
    [
        (
            status_of(success=1, error=1, running=2, pending=4),
            True,
            "p 2/8 done · 1 failed · 2 running · 2.0 tasks/s · 3 s left",
        ),
        (status_of(success=1, running=2), False, "p 1/3 done · 2 running · stopped watching"),
        (status_of(PoolState.INTERRUPTED, success=1, pending=2), False, "p 1/3 done · 0 running · interrupted"),
        (status_of(PoolState.DONE, success=3), False, "p 3/3 done · took 2.0 s"),
    ],
)
def test_beside_a_bar_stands_how_far_the_pool_is_and_in_the_end_what_came_of_it(
    status: PoolStatus,
    watching: bool,  # noqa: FBT001 - a parameter of the test
    expected: str,
) -> None:
    assert text_of(progress_html(status, 2.0, watching=watching)) == expected
