"""Values that a spreadsheet would take for a formula."""

from __future__ import annotations

import csv
import io
import json

import pytest

from tests.faults.harness import Faults
from tests.faults.ledger import scaled

TEXTS = [
    "=1+1", '=HYPERLINK("http://x","y")', "-5", "+1", "@x", "\t=1", "\r=1", "\n=1", "'=1", "", " =1", "5", "a,b",
    "\uff1d1", "\uff0b1", "\uff0d1", "\uff201", "=cmd|' /C calc'!A0", 'a"b',
]  # fmt: skip
BODY = """
def f(x: int, text: str):
    _audit()
    return {form}
"""


def _collected(faults: Faults, name: str, *options: str) -> list[dict[str, str]]:
    target = faults.folder / f"{name}.csv"
    faults.jobpool("collect", name, "-o", target, *options)
    with target.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.scenario(50)
@pytest.mark.parametrize("form", ["text", "text if x % 2 else x"], ids=["text alone", "numbers among text"])
def test_text_that_looks_like_a_formula_round_trips_and_is_guarded_when_asked(faults: Faults, form: str) -> None:
    """Scenario 50: ``=1+1``, ``-5``, ``@x`` exactly as they are; ``--excel-safe`` prefixes text, and numbers never."""
    table = faults.folder / "args.jsonl"
    table.write_text("".join(json.dumps({"x": -x, "text": text}) + "\n" for x, text in enumerate(TEXTS)))
    faults.jobpool("map", faults.write(BODY.format(form=form)), table, "--name", "pool", "-j", "1", "--wait")
    faults.injected(len(TEXTS))

    def result(x: int) -> object:
        return TEXTS[x] if form == "text" or x % 2 else -x

    plain = _collected(faults, "pool")
    assert [(row["x"], row["text"], row["result"]) for row in plain] == [
        (str(-x), text, str(result(x))) for x, text in enumerate(TEXTS)
    ]
    guarded = _collected(faults, "pool", "--excel-safe")
    for before, after in zip(plain, guarded, strict=True):
        assert after["x"] == before["x"]
        for column in ("text", "result"):
            is_number = column == "result" and isinstance(result(-int(before["x"])), int)
            looks_like_one = before[column][:1] in set("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20") and not is_number
            assert after[column] == ("'" if looks_like_one and before[column] else "") + before[column]
    faults.check(faults.open(), result)
    if scaled(quick=True, long=False):
        return
    as_tsv = faults.jobpool("collect", "pool", "--format", "tsv", "--excel-safe").stdout
    read = list(csv.DictReader(io.StringIO(as_tsv, newline=""), delimiter="\t"))
    assert [row["text"] for row in read] == [row["text"] for row in guarded]
    assert "CSV and TSV" in faults.jobpool("collect", "pool", "--excel-safe", "-o", "x.parquet", code=2).stderr


@pytest.mark.scenario(50)
def test_the_names_of_columns_are_guarded_too_and_other_types_are_left_alone(faults: Faults) -> None:
    """Scenario 50: a header that is a formula; negative floats, decimals, times and lists stay what they are."""
    body = """
import datetime, decimal
import pyarrow as pa
def f(x: int):
    _audit()
    return pa.table({"=head": ["plain"], "float": [-1.5], "decimal": [decimal.Decimal("-2.50")], "list": [[-1]],
                     "day": [datetime.date(2024, 1, 2)], "span": [datetime.timedelta(seconds=-3)],
                     "infinite": [float("-inf")],
                     "bytes": [b"\\xf8\\x00"], "word": pa.array(["-w"]).dictionary_encode()})
"""
    pool = faults.map(body, 2)
    faults.ended(pool)
    faults.injected()
    (plain, _), (guarded, _) = _collected(faults, "pool"), _collected(faults, "pool", "--excel-safe")
    changed = {name: value for name, value in guarded.items() if plain.get(name) != value}
    assert changed == {"'=head": "plain", "bytes": "'+AA=", "word": "'-w"}
    assert [guarded[name] for name in ("float", "decimal", "list", "infinite")] == ["-1.5", "-2.50", "[-1]", "-inf"]
