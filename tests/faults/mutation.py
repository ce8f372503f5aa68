"""Broken bytes: seeded, so that what was found once is found again."""

from __future__ import annotations

import random

# What tends to break parsers.
_DICTIONARY = [
    b"\0", b"\n", b"\r", b'"', b'""', b",", b"\t", b"\xef\xbb\xbf", b"\xff", b"\xc3", b"\xed\xa0\x80", b"{", b"}", b"[",
    b"[" * 3000, b'{"x":' * 3000, b"1e400", b"-1", b"9" * 5000, b"NaN", b"Infinity", b"null", b"\\ud800", b"\\u0000",
    b"PAR1", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"__index_level_0__",
]  # fmt: skip


def mutated(data: bytes, seed: int) -> bytes:
    """Return the data with some of its bytes flipped, dropped, doubled, cut off or replaced."""
    dice = random.Random(seed)  # noqa: S311 - nothing secret
    content = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        at = dice.randrange(len(content) + 1)
        end = min(len(content), at + dice.choice((1, 2, 8, 64)))
        match dice.randrange(6):
            case 0 if content:
                content[at % len(content)] ^= 1 << dice.randrange(8)
            case 1:
                content[at:end] = b""
            case 2:
                content[at:at] = content[at:end]
            case 3:
                content[at:at] = dice.choice(_DICTIONARY)
            case 4:
                content[at:end] = dice.randbytes(end - at)
            case 5 if dice.random() < 0.3:
                del content[at:]
    return bytes(content)
