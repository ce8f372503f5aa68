"""Broken tables by the thousand: an error of the user's with a message, or a table; never anything else."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobpool_cli.errors import InputError, UsageError
from jobpool_cli.store.arguments.binding import bind
from jobpool_cli.store.arguments.inputs import read_arguments
from jobpool_cli.store.arguments.signature import Signature
from tests.faults.harness import ROOT, SQUARE, Faults
from tests.faults.ledger import scaled
from tests.faults.mutation import mutated

CORPUS = Path(__file__).parent.parent / "data" / "corpus" / "input"
FORMATS = ("csv", "tsv", "jsonl", "parquet")
MEGABYTES = 600
# Parquet is read by C++, and a broken file may be the end of the process: seeds are tried in one of its own. It ends at
# once, as the command line does: Arrow's threads abort an interpreter that is taken down, now and then
# (github.com/apache/arrow/issues/34314).
ALONE = """
import os, resource, sys
from tests.faults.test_fuzz_input import samples, tried
from tests.faults.mutation import mutated
format, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
whole = samples()[format]
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for seed in range(first, last):
    print(seed, flush=True)
    tried(format, mutated(whole, seed))
print("grown", (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, flush=True)
os._exit(0)
"""


def _f(x: int, y: str = "", z: float | None = None) -> int:
    return len(y) + x + bool(z)


def samples() -> dict[str, bytes]:
    """A whole table in each format."""
    rows = [{"x": x, "y": f"text {x}", "z": x / 4} for x in range(40)]
    table = pa.Table.from_pylist(rows)
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=16)
    head = "x,y,z\n"
    csv = head + "".join(f'{row["x"]},"{row["y"]}",{row["z"]}\n' for row in rows)
    return {
        "csv": csv.encode(),
        "tsv": csv.replace(",", "\t").encode(),
        "jsonl": "".join(json.dumps(row) + "\n" for row in rows).encode(),
        "parquet": sink.getvalue(),
    }


def tried(format: str, data: bytes) -> bool:  # noqa: A002
    """Return whether it is a table that the function takes; whatever else is wrong with it is told by its own kind."""
    try:
        raw = read_arguments("-", format=format, stdin=io.BytesIO(data))
        bind(Signature.of(_f), raw, {})
    except (InputError, UsageError) as error:
        said = error.message
    else:
        return True
    assert 0 < len(said) < 3000
    return False


@pytest.mark.scenario(44)
@pytest.mark.parametrize("format", FORMATS)
def test_a_broken_table_is_refused_or_read_and_nothing_else(format: str) -> None:  # noqa: A002
    """Scenario 44: thousands of mutations of a table: InputError, or a table; no crash, no hang, no balloon."""
    count = scaled(150, 5000)
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", ALONE, format, "0", str(count)],
        env=env, capture_output=True, text=True, timeout=scaled(60, 900), check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{format}, seed {done.stdout.split()[-1:]}: {done.returncode}\n{done.stderr}"
    assert int(done.stdout.split()[-1]) < MEGABYTES


@pytest.mark.scenario(44)
def test_what_once_was_a_fault_is_none_any_more() -> None:
    """Scenario 44: the corpus: inputs that once did harm, and some that are known to."""
    for path in sorted(CORPUS.iterdir()):
        tried(path.suffix.removeprefix("."), path.read_bytes())


@pytest.mark.scenario(44)
def test_broken_tables_leave_nothing_through_the_command_line(faults: Faults) -> None:
    """Scenario 44: a sample of the same through ``map``: exit 0 or 2, no traceback, no pool where it was refused."""
    udf = faults.write(SQUARE.replace("x: int", "x: int, y: str = '', z: float = 0.0"))
    whole = samples()
    for seed in range(scaled(4, 200)):
        format = FORMATS[seed % 4]  # noqa: A001
        table = faults.folder / f"broken.{format}"
        table.write_bytes(mutated(whole[format], seed))
        done = faults.jobpool("map", udf, table, "--name", f"pool-{seed}", "--wait", code=None)
        faults.injected()
        assert done.returncode in {0, 1, 2}, done
        assert (faults.home / "pools" / f"pool-{seed}").exists() == (done.returncode != 2)
        assert "fault in jobpool" not in done.stderr


@pytest.mark.scenario(44)
def test_a_parquet_file_that_unpacks_to_more_than_the_memory_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Scenario 44: few bytes that claim, or hold, more rows than fit: said before anything is unpacked."""
    path = tmp_path / "bomb.parquet"
    column = pa.array([7] * 1_000_000)
    pq.write_table(pa.table({"x": column}), path, compression="zstd")
    assert path.stat().st_size < 50_000
    from jobpool_cli.store.arguments import inputs  # noqa: PLC0415

    assert read_arguments(str(path)).table.num_rows == 1_000_000
    monkeypatch.setattr(inputs, "free_memory", lambda: 4_000_000)
    with pytest.raises(InputError, match="does not fit into the memory"):
        read_arguments(str(path))
