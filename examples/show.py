"""Show a collected table: its first rows, and what the verdicts come to for each airline."""

import sys

import pandas as pd

table = pd.read_parquet(sys.argv[1]).reset_index()
print(table.head(8).to_string(index=False), end="\n\n")
print(pd.crosstab(table["carrier"], table["result"]).to_string())
