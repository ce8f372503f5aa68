"""The program's first moments: ``jobpool``, and ``python -m jobpool_cli``."""

import signal


def start() -> None:
    """Run the command line; Ctrl-C during the imports ends it without a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from jobpool_cli.cli.main import main  # noqa: PLC0415

    main()


if __name__ == "__main__":
    start()
