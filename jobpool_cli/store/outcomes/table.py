"""Outcomes of successful tasks as columns: the blob that a worker sends, and the table that readers see.

A worker sends one Arrow IPC stream per batch. What is the same for the whole batch (attempt, worker, code version)
travels once, in the schema's metadata; ``table_of`` spreads it out again. The table's columns, also those of the
Parquet segments:

============= ======================= ==================================================================
column        type                    meaning
============= ======================= ==================================================================
task          int64                   position in the arguments, from 0
attempt       int32                   from 1
state         dictionary of string    always ``success``: other states are not in the columns
started       timestamp[us, UTC]      when the attempt began
duration_ns   int64                   wall time
cpu_ns        int64                   CPU time of the worker's process; null for tasks of microseconds
worker        int32                   number of the worker process, names the log file
log_start     int64                   byte range of the attempt in that worker's log
log_end       int64
udf           int32                   version of the code
result        by value                the result, where it has an Arrow type
result_pickle binary                  the result as a pickle, where it has none
============= ======================= ==================================================================
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobpool_cli.store.values.buffers import fixed_width, null_positions, numbers_of
from jobpool_cli.store.values.codec import EncodedResults
from jobpool_cli.store.values.tables import single

BATCH_KEY = b"jobpool.batch"

# Spelled out by offsets and bytes: `pa.array` would import pandas (see ``buffers``).
_SUCCESS = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, 7], np.int32)), pa.py_buffer(b"success"))

Int64s = npt.NDArray[np.int64]

# Stands for "not known" until the columns are built; no attempt, time or duration is negative.
UNKNOWN = -1


def task_numbers(ranges: Sequence[tuple[int, int]]) -> Int64s:
    """Return the task numbers that half-open ranges cover, in their order."""
    if len(ranges) == 1:
        return np.arange(*ranges[0], dtype=np.int64)
    return np.concatenate([np.arange(low, high, dtype=np.int64) for low, high in ranges] or [np.empty(0, np.int64)])


def encode_blob(
    *,
    tasks: Int64s,
    started_us: Int64s,
    duration_ns: Int64s,
    cpu_ns: dict[int, int],
    log_start: Int64s,
    log_end: Int64s,
    results: EncodedResults,
    attempt: int,
    worker: int,
    udf: int,
) -> pa.Buffer:
    """Build the IPC stream of one batch's successes; all arrays have one entry per success.

    Args:
        tasks: task numbers.
        started_us: microseconds since the epoch.
        duration_ns: nanoseconds.
        cpu_ns: nanoseconds by row, for the rows that have them.
        log_start: byte offsets.
        log_end: byte offsets.
        results: the encoded results.
        attempt: attempt of the whole batch.
        worker: number of the worker process.
        udf: version of the code.
    """
    constants: dict[str, Any] = {"attempt": attempt, "worker": worker, "udf": udf}
    columns: dict[str, pa.Array] = {}
    first, rows = int(tasks[0]), len(tasks)
    if int(tasks[-1]) - first == rows - 1 and bool((np.diff(tasks) == 1).all()):
        constants["first"] = first
    else:
        columns["task"] = fixed_width(tasks, pa.int64())
    # Counted from the first one, so that four bytes do for batches shorter than half an hour.
    constants["started"] = int(started_us[0])
    columns["started"] = _narrow(started_us - started_us[0])
    columns["duration_ns"] = _narrow(duration_ns)
    if cpu_ns:
        measured = np.fromiter(cpu_ns, np.int64, len(cpu_ns))
        values, known = np.zeros(rows, np.int64), np.zeros(rows, np.bool_)
        values[measured], known[measured] = np.fromiter(cpu_ns.values(), np.int64, len(cpu_ns)), True
        columns["cpu_ns"] = fixed_width(values, pa.int64(), known)
    if int(log_start[0]) == int(log_end[-1]):
        constants["log"] = int(log_start[0])  # nothing was written: offsets never fall
    else:
        columns["log_start"], columns["log_end"] = (fixed_width(each, pa.int64()) for each in (log_start, log_end))
    fields = [pa.field(name, column.type) for name, column in columns.items()]
    arrays = [*columns.values(), results.result]
    fields.append(results.field)
    if results.pickles is not None:
        arrays.append(results.pickles)
        fields.append(pa.field("result_pickle", pa.binary()))
    schema = pa.schema(fields, metadata={BATCH_KEY: json.dumps(constants)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema, options=pa.ipc.IpcWriteOptions(compression="lz4")) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return sink.getvalue()


def _narrow(values: Int64s) -> pa.Array:
    """Return the values in four bytes each where they fit."""
    fits = int(values.max()) < 2**31 and int(values.min()) >= -(2**31)
    return fixed_width(values.astype(np.int32), pa.int32()) if fits else fixed_width(values, pa.int64())


def _range(first: int, rows: int) -> pa.Array:
    return fixed_width(np.arange(first, first + rows, dtype=np.int64), pa.int64())


def table_of(blob: bytes | pa.Buffer) -> pa.Table:
    """Return the outcomes of one blob with all the columns that the module's page lists."""
    with pa.ipc.open_stream(pa.py_buffer(blob)) as reader:
        table = reader.read_all()
    constants = json.loads(table.schema.metadata[BATCH_KEY])
    rows = table.num_rows
    names = set(table.column_names)

    def constant(value: int, kind: pa.DataType) -> pa.Array:
        return fixed_width(np.full(rows, value, np.int64 if kind == pa.int64() else np.int32), kind)

    tasks = table["task"] if "task" in names else _range(constants["first"], rows)
    # Not pc.add(): it would wrap the number by way of pandas.
    offsets = table["started"].cast(pa.int64()).combine_chunks()
    moments = np.frombuffer(offsets.buffers()[1], np.int64, rows, offsets.offset * 8) + constants["started"]
    started = fixed_width(moments, pa.timestamp("us", "UTC"))
    log = {} if "log_start" in names else {"log": constant(constants["log"], pa.int64())}
    result_field = table.schema.field("result")
    columns = {
        pa.field("task", pa.int64()): tasks,
        pa.field("attempt", pa.int32()): constant(constants["attempt"], pa.int32()),
        pa.field("state", pa.dictionary(pa.int8(), pa.string())): pa.DictionaryArray.from_arrays(
            fixed_width(np.zeros(rows, np.int8), pa.int8()), _SUCCESS
        ),
        pa.field("started", pa.timestamp("us", "UTC")): started,
        pa.field("duration_ns", pa.int64()): table["duration_ns"].cast(pa.int64()),
        pa.field("cpu_ns", pa.int64()): table["cpu_ns"] if "cpu_ns" in names else pa.nulls(rows, pa.int64()),
        pa.field("worker", pa.int32()): constant(constants["worker"], pa.int32()),
        pa.field("log_start", pa.int64()): log["log"] if log else table["log_start"],
        pa.field("log_end", pa.int64()): log["log"] if log else table["log_end"],
        pa.field("udf", pa.int32()): constant(constants["udf"], pa.int32()),
        result_field: table["result"],
        pa.field("result_pickle", pa.binary()): table["result_pickle"]
        if "result_pickle" in names
        else pa.nulls(rows, pa.binary()),
    }
    return pa.Table.from_arrays(list(columns.values()), schema=pa.schema(list(columns)))


def kind_of(field: pa.Field) -> str:
    """Name what distinguishes result columns: blobs of one kind share segments. Empty where all results are None."""
    if pa.types.is_null(field.type) and not field.metadata:
        return ""
    metadata = {key.decode("latin-1"): value.decode("latin-1") for key, value in (field.metadata or {}).items()}
    return f"{field.type} {json.dumps(metadata, sort_keys=True)}"


def numbers(column: pa.Array | pa.ChunkedArray) -> Int64s:
    """The column as 64-bit integers, UNKNOWN where it is null."""
    if column.null_count == len(column):
        return np.full(len(column), UNKNOWN, np.int64)
    whole = single(column)
    if whole.type != pa.int64():
        whole = whole.cast(pa.int64())
    found = numbers_of(whole, np.dtype(np.int64))
    if whole.null_count:
        found = found.copy()
        found[null_positions(whole)] = UNKNOWN
    return found
