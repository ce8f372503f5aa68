"""What became of each of the 336,776 flights that were to leave New York in 2013."""

from datetime import date


def verdict(  # the parameters are the columns of args.csv
    day: date,
    carrier: str,
    flight: int,
    origin: str,
    dest: str,
    dep_delay: int | None,
    arr_delay: int | None,
) -> str:
    """Judge one flight; late means 15 minutes or more, as the US Department of Transportation counts."""
    if dep_delay is None:
        print(f"{carrier}{flight} from {origin} to {dest} on {day} never left")
        return "cancelled"
    if arr_delay is None:
        return "diverted"
    return "late" if arr_delay >= 15 else "on time"
