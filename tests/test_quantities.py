from __future__ import annotations

import pytest

from jobpool_cli.errors import UsageError
from jobpool_cli.quantities import seconds, size


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90", 90),
        ("1.5", 1.5),
        ("500ms", 0.5),
        ("2m", 120),
        ("2min", 120),
        ("1h30m", 5400),
        ("1h 30", 3630),
        ("1d", 86400),
        ("0", 0),
    ],
)
def test_a_length_of_time_is_seconds_or_has_units(text: str, expected: float) -> None:
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", " ", "2q", "m", "-3", "1e3", "nan", "5 6", "1h,2m"])
def test_what_is_no_length_of_time_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        seconds(text)
    assert "for example" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1000", 1000), ("1k", 1024), ("2G", 2 << 30), ("1.5GiB", 3 << 29), ("512MB", 512 << 20), (" 7b ", 7)],
)
def test_a_size_is_bytes_or_has_binary_units(text: str, expected: int) -> None:
    assert size(text) == expected


@pytest.mark.parametrize("text", ["", "G", "-1", "2 apples", "1KK"])
def test_what_is_no_size_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        size(text)
    assert "for example" in caught.value.hint
