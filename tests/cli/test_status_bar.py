from __future__ import annotations

from typing import Any

import pytest

from jobpool_cli.cli.verbs import status
from tests.terminals import status_of


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"pending": 4}, "░" * 40),
        ({"success": 1, "pending": 1}, "█" * 20 + "░" * 20),
        ({"success": 10**6, "error": 1}, "█" * 39 + "▓"),
        ({"success": 1, "timeout": 1, "cancelled": 10**6}, "█▓" + "▒" * 38),
        ({"success": 1, "error": 1, "cancelled": 1}, "█" * 14 + "▓" * 13 + "▒" * 13),
        ({"success": 1, "pending": 10**6}, "█" + "░" * 39),
        ({}, "░" * 40),
    ],
)
def test_the_bar_of_a_status_is_as_long_as_it_should_be_and_rounds_nothing_away(
    counts: dict[str, Any], expected: str
) -> None:
    assert status._bar(status_of(**counts)) == expected
