"""Text that a terminal would obey, or that lies to whoever reads it; and the check that none of it arrived there."""

from __future__ import annotations

import re
import unicodedata

from jobpool_cli.show.text import STYLES

# Titles, clipboards, colours that hide, screens that are wiped, answers that a terminal types by itself; C1 as UTF-8;
# markup of rich; a line that covers itself; text that reads backwards; what nobody sees.
TEXT = (
    "\x1b]0;owned\x07 \x1b]52;c;cm0gLXJm\x07 \x1b[8mhidden \x1b[2J\x1b[H \x1b[6n \x1bP+q544e\x1b\\ \x1bc \x07\x08\x7f"
    " \x9b31m \x9d0;owned\x9c [/foo] [red]x[/red] :boom: pass\rfail \x0b\x0c \u202etxt.exe\u202c \u2066x\u2069"
    " \u061c \u200b\u2060\ufeff \u2028\u2029 \U000e0041"
)
BYTES = TEXT.encode() + b" \x9b31m \xff\xfe \xc3 \xe2\x80\n\x00 \r\n last \x1b[5m"

# The colours that are jobpool's own.
_OWN_COLOURS = re.compile(rf"\x1b\[(?:0|{'|'.join(STYLES.values())})m")
# A bar that is redrawn: the cursor goes to the line's start or up, a line is erased, the cursor is hidden and shown.
_BAR = re.compile(r"\x1b\[(?:\?25[lh]|2K|[0-9]*A|1G)|\r")
# Newline, tab; the joiners of emoji and of some scripts; format characters that are signs one sees: Arabic, Syriac,
# Kaithi and Egyptian ones.
_HARMLESS = {
    *"\n\t\u200c\u200d\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd"
} | {chr(each) for each in range(0x13430, 0x13460)}


def unharmed(text: str, *, bar: bool = False) -> str:
    """Return what a terminal got without our own colours; it is an error if anything is left that acts on it."""
    text = _OWN_COLOURS.sub("", text)
    if bar:
        text = _BAR.sub("", text)
    acting = sorted(
        each for each in {*text} if unicodedata.category(each) in {"Cc", "Cf", "Zl", "Zp"} and each not in _HARMLESS
    )
    assert not acting, f"these reached the terminal: {acting!r} in {text!r}"
    return text
