"""The days of a month at one of New York's airports, from a record that was kept by the hour."""

from pathlib import Path

import pandas as pd

# Read when the file is imported: once in each worker process, however many tasks it runs.
HOURLY = pd.read_csv(Path(__file__).with_name("hourly.csv"))


def days(origin: str, month: int) -> pd.DataFrame:
    """Summarise one month: a row per day, with the day as its index."""
    hours = HOURLY[(HOURLY["origin"] == origin) & (HOURLY["month"] == month)]
    return hours.groupby("day").agg(
        hours=("hour", "count"),
        low=("temp", "min"),
        high=("temp", "max"),
        rain=("precip", "sum"),
        worst_sight=("visib", "min"),
    )
