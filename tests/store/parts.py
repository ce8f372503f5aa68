"""What tests of collecting share: results as a batch of outcomes has them."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from jobpool_cli.store.values.codec import encode


def part(results: dict[int, Any]) -> pa.Table:
    """Return results by task as the columns of a batch."""
    encoded = encode(list(results.values()))
    fields = [pa.field("task", pa.int64()), encoded.field]
    columns = [pa.array(results, pa.int64()), encoded.result]
    if encoded.pickles is not None:
        fields.append(pa.field("result_pickle", encoded.pickles.type))
        columns.append(encoded.pickles)
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))
