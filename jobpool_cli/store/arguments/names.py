"""Names of columns and constants against a function's parameters: what is missing, unknown, or given twice."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from jobpool_cli.errors import InputError
from jobpool_cli.show.text import shorten
from jobpool_cli.store.arguments.raw import Form, RawArguments
from jobpool_cli.store.arguments.signature import Signature

# What a table that is none takes for names may be anything, of any length.
NAME_CHARACTERS = 60
NAMES_LISTED = 20


def match_names(signature: Signature, raw: RawArguments, constants: Mapping[str, object]) -> None:
    """Every column and constant has a parameter, every required parameter has one of them.

    Raises:
        InputError: one has not.
    """
    columns = raw.table.column_names
    names = [each.name for each in signature.parameters]
    for name in constants:
        if name in columns:
            raise _given_twice(signature, raw, name)
        if signature.parameter(name) is None:
            raise InputError(f"{signature} has no parameter {name} for that constant", _close(name, names))
    unknown = [name for name in columns if signature.parameter(name) is None]
    missing = [
        each.name
        for each in signature.parameters
        if each.required and each.name not in columns and each.name not in constants
    ]
    # An empty file of JSON Lines is a table of no rows, and says nothing of its columns; nor does an empty list.
    if missing and (raw.textual or raw.table.num_rows or columns):
        raise _missing(signature, raw, missing, unknown)
    for name in names:
        _check_every_task(signature, raw, name)
    if unknown:
        raise _unknown(signature, raw, unknown)


def dicts_as_values(signature: Signature) -> str:
    """What to write where dicts were not meant as keyword arguments."""
    first = next((each.name for each in signature.parameters if not each.positional_only), "name")
    return (
        "a dict stands for one task's keyword arguments;"
        f" for values of any kind, dicts too: [{{{first!r}: value}} for value in values]"
    )


def _given_twice(signature: Signature, raw: RawArguments, name: str) -> InputError:
    if raw.form is Form.VALUES:
        return InputError(
            f"{name} is a constant, and as the first parameter of {signature} it also gets the values of {raw.source}",
            f"leave out the constant {name}, or say what the values are for: [{{'NAME': value}} for value in values]",
        )
    noun = "key" if raw.form is Form.DICTS else "column"
    return InputError(
        f"{name} is both a {noun} of {raw.source} and a constant", f"drop the {noun}, or leave out the constant {name}"
    )


def _missing(signature: Signature, raw: RawArguments, missing: Sequence[str], unknown: Sequence[str]) -> InputError:
    columns = raw.table.column_names
    listed = ", ".join(missing)
    once = f"give one value for all tasks: map(..., {missing[0]}=VALUE)"
    if raw.form is Form.VALUES:
        return InputError(
            f"{signature} needs {listed}, and {raw.source} gives values for {columns[0]} alone",
            f"{once}; or give a dict for each task: [{{{columns[0]!r}: ..., {missing[0]!r}: ...}}, ...]",
        )
    near = {name: difflib.get_close_matches(name, unknown, n=1) for name in missing}
    noun = "key" if raw.form is Form.DICTS else "column"
    guesses = [f"rename the {noun} {found[0]!r} to {name}" for name, found in near.items() if found]
    if raw.form is Form.DICTS:
        message = f"the dicts of {raw.source} have no key {listed}, which {signature} needs"
        # Where no key is a parameter's, they were hardly meant to be keyword arguments.
        otherwise = dicts_as_values(signature) if len(unknown) == len(columns) else f"add the key, or {once}"
    else:
        message = f"{raw.source} has no column {listed}, which {signature} needs"
        once = once if raw.form is Form.TABLE else f"give one value for all rows: --set {missing[0]}=VALUE"
        otherwise = f"add the column, or {once}"
    if not guesses and unknown:
        message += f" (its {noun}s: {_listed(columns)})"
    return InputError(message, "; ".join(guesses) or otherwise)


def _check_every_task(signature: Signature, raw: RawArguments, name: str) -> None:
    """A key that some dicts lack needs a parameter with a default."""
    column = raw.objects.get(name)
    parameter = signature.parameter(name)
    if column is None or column.rows is None or parameter is None or not parameter.required:
        return
    without = next((row for row, given in enumerate(column.rows) if row != given), len(column.rows))
    raise InputError(
        f"item {without} of {raw.source} has no key {name}, which {signature} needs, and others have",
        f"add it, or give the parameter a default: {name}=...",
    )


def _unknown(signature: Signature, raw: RawArguments, unknown: Sequence[str]) -> InputError:
    columns = raw.table.column_names
    free = [each.name for each in signature.parameters if each.name not in columns]
    guess = _close(unknown[0], free, otherwise="")
    drop = f"drop {'it' if len(unknown) == 1 else 'them'}"
    if raw.form is Form.DICTS:
        row = raw.objects[unknown[0]].row(0)
        message = f"item {row} of {raw.source} has a key that {signature} does not take: {_listed(unknown[:1])}"
        if not guess and len(unknown) == len(columns):
            return InputError(message, dicts_as_values(signature))
    else:
        noun = "a column" if len(unknown) == 1 else "columns"
        message = f"{raw.source} has {noun} that {signature} does not take: {_listed(unknown)}"
    hint = f"{guess} {drop}, or let {signature.function} accept any name with **kwargs"
    return InputError(message, hint.strip())


def _listed(names: Sequence[str]) -> str:
    shown = [shorten(name, NAME_CHARACTERS) for name in names[:NAMES_LISTED]]
    return ", ".join(shown) + (f", and {len(names) - NAMES_LISTED:,} more" if names[NAMES_LISTED:] else "")


def _close(name: str, names: Sequence[str], otherwise: str | None = None) -> str:
    found = difflib.get_close_matches(name, names, n=1)
    if found:
        return f"did you mean {found[0]}?"
    return f"its parameters: {', '.join(names) or 'none'}" if otherwise is None else otherwise
