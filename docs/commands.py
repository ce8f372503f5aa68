"""Fill the tables of reference/commands.md from the commands themselves: ``python docs/commands.py``.

Text between ``<!-- options of VERB -->`` and ``<!-- end -->`` is this script's; all else is written by hand.
A test holds that the page is as this script would leave it.
"""
# ruff: noqa: INP001 - a script

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from jobpool_cli.cli.main import build

PAGE = Path(__file__).parent / "reference" / "commands.md"
BLOCK = re.compile(r"<!-- options of (\S+) -->\n.*?<!-- end -->", re.DOTALL)


def filled(page: str) -> str:
    """Return the page with all its tables as the commands are now."""
    return BLOCK.sub(lambda found: f"<!-- options of {found[1]} -->\n{table(found[1])}\n<!-- end -->", page)


def table(verb: str) -> str:
    """Return the table of a command's arguments and options."""
    rows = [_row(parameter) for parameter in build(verb).params]
    return "\n".join(["| argument or option | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)])


def _row(parameter: Any) -> tuple[str, str]:
    text = parameter.help or ""
    if parameter.param_type_name == "argument":
        name = f"`{parameter.metavar}`"
        default = parameter.default
    else:
        value = "" if parameter.is_flag else f" {_value(parameter)}"
        name = ", ".join(f"`{option}{value}`" for option in parameter.opts)
        default = parameter.default if parameter.show_default else None
    if isinstance(default, (str, int)) and not isinstance(default, bool):
        text += f" Default: `{default}`."
    return name, text.replace("|", "\\|")


def _value(parameter: Any) -> str:
    choices = getattr(parameter.type, "choices", None)
    return parameter.metavar or ("STATE" if choices else "N")


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
