"""Outcomes of successful tasks as columns: the blob that a worker sends, and the table that readers see.

A worker sends one Arrow IPC stream per batch, its blob. What is the same for the whole batch (attempt, worker, code
version) travels once, in the schema's metadata; ``table_of`` spreads it out again. The table's columns, also those of
the Parquet segments:

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
from collections.abc import Callable, Iterable, Sequence
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


def batch_of(
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
) -> pa.RecordBatch:
    """Build the columns of one batch's successes; all arrays have one entry per success.

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
        fields.append(results.pickle_field)
    schema = pa.schema(fields, metadata={BATCH_KEY: json.dumps(constants)})
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def blob_of(batch: pa.RecordBatch, *, compressed: bool = True) -> pa.Buffer:
    """Return the IPC stream of a batch's columns."""
    sink = pa.BufferOutputStream()
    # Handing columns to threads takes longer than compressing them.
    options = pa.ipc.IpcWriteOptions(compression="lz4" if compressed else None, use_threads=False)
    with pa.ipc.new_stream(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    return sink.getvalue()


def _narrow(values: Int64s) -> pa.Array:
    """Return the values in four bytes each where they fit."""
    fits = int(values.max()) < 2**31 and int(values.min()) >= -(2**31)
    return fixed_width(values.astype(np.int32), pa.int32()) if fits else fixed_width(values, pa.int64())


def batch_in(blob: bytes | pa.Buffer) -> pa.Table:
    """Return the columns that a blob holds: what `batch_of` made."""
    with pa.ipc.open_stream(pa.py_buffer(blob)) as reader:
        return reader.read_all()


def table_of(blob: bytes | pa.Buffer) -> pa.Table:
    """Return the outcomes of one blob with all the columns that the module's page lists."""
    return spread_out([batch_in(blob)])


def spread_out(batches: Sequence[pa.Table]) -> pa.Table:
    """Return the columns of batches of one kind with all those that the module's page lists.

    Many at once, since a batch may be a single row: each constant becomes one column, not one a batch.
    """
    constants = [json.loads(batch.schema.metadata[BATCH_KEY]) for batch in batches]
    lengths = np.array([batch.num_rows for batch in batches])
    columns = [dict(zip(batch.column_names, batch.columns, strict=True)) for batch in batches]
    rows = int(lengths.sum())

    def repeated(name: str) -> Int64s:
        return np.repeat(np.array([each[name] for each in constants], np.int64), lengths)

    def gathered(name: str, instead: Callable[[int, int], Int64s] | None = None) -> Int64s:
        parts = [
            _whole_numbers(own[name]) if instead is None or name in own else instead(number, int(length))
            for number, (own, length) in enumerate(zip(columns, lengths, strict=True))
        ]
        return np.concatenate(parts, dtype=np.int64)

    def log(number: int, length: int) -> Int64s:
        return np.full(length, constants[number]["log"], np.int64)

    def tasks(number: int, length: int) -> Int64s:
        first = constants[number]["first"]
        return np.arange(first, first + length)

    def optional(name: str, kind: pa.DataType) -> pa.ChunkedArray | pa.Array:
        if not any(name in own for own in columns):
            return pa.nulls(rows, kind)
        return _chunked([own.get(name) for own in columns], lengths, kind)

    small = {name: fixed_width(repeated(name).astype(np.int32), pa.int32()) for name in ("attempt", "worker", "udf")}
    success = pa.DictionaryArray.from_arrays(fixed_width(np.zeros(rows, np.int8), pa.int8()), _SUCCESS)
    # Not pc.add(): it would wrap a number by way of pandas.
    moments = gathered("started") + repeated("started")
    fields = [batch.schema.field("result") for batch in batches]
    field = next((each for each in fields if not pa.types.is_null(each.type)), fields[0])
    pickle_field = united_pickle_field(batch.schema for batch in batches)
    made = {
        pa.field("task", pa.int64()): fixed_width(gathered("task", tasks), pa.int64()),
        pa.field("attempt", pa.int32()): small["attempt"],
        pa.field("state", success.type): success,
        pa.field("started", pa.timestamp("us", "UTC")): fixed_width(moments, pa.timestamp("us", "UTC")),
        pa.field("duration_ns", pa.int64()): fixed_width(gathered("duration_ns"), pa.int64()),
        pa.field("cpu_ns", pa.int64()): optional("cpu_ns", pa.int64()),
        pa.field("worker", pa.int32()): small["worker"],
        pa.field("log_start", pa.int64()): fixed_width(gathered("log_start", log), pa.int64()),
        pa.field("log_end", pa.int64()): fixed_width(gathered("log_end", log), pa.int64()),
        pa.field("udf", pa.int32()): small["udf"],
        field: _chunked([own["result"] for own in columns], lengths, field.type),
        pickle_field: optional("result_pickle", pa.binary()),
    }
    return pa.Table.from_arrays(list(made.values()), schema=pa.schema(list(made)))


def united_pickle_field(schemas: Iterable[pa.Schema]) -> pa.Field:
    """Return the field of the results' pickles with what those of all these schemas share."""
    metadata: dict[bytes, bytes] = {}
    for schema in schemas:
        if "result_pickle" in schema.names:
            metadata |= schema.field("result_pickle").metadata or {}
    return pa.field("result_pickle", pa.binary(), metadata=metadata)


def _whole_numbers(column: pa.ChunkedArray) -> Int64s:
    """The memory of a batch's column of integers without nulls, of four bytes each or eight."""
    (chunk,) = column.chunks
    dtype = np.dtype(f"i{chunk.type.bit_width // 8}")
    return np.frombuffer(chunk.buffers()[1], dtype, len(chunk), chunk.offset * dtype.itemsize)


def _chunked(columns: Sequence[pa.ChunkedArray | None], lengths: Int64s, kind: pa.DataType) -> pa.ChunkedArray:
    """One column of many; nulls where a batch has none, or nothing else."""
    chunks: list[pa.Array] = []
    for column, length in zip(columns, lengths, strict=True):
        if column is None or (pa.types.is_null(column.type) and not pa.types.is_null(kind)):
            chunks.append(pa.nulls(int(length), kind))
        else:
            chunks += column.chunks
    return pa.chunked_array(chunks, kind)


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
