"""Prints how many threads a Dask cluster's workers have; the address of its scheduler is the only argument."""

from __future__ import annotations

import logging
import sys

CONNECT_SECONDS = 10.0


def main(address: str) -> None:
    """Ask the scheduler."""
    logging.disable()
    from distributed import Client  # noqa: PLC0415 - says what it has to say while it is imported

    with Client(address, timeout=CONNECT_SECONDS, set_as_default=False) as client:
        sys.stdout.write(f"{sum(client.nthreads().values())}\n")


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except (OSError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}".splitlines()[0])
