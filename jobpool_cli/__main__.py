"""The program's first moments: ``jobpool``, and ``python -m jobpool_cli``."""

import gc
import signal

# Objects made and still alive before the collector looks for cycles: modules that are being loaded leave next to none,
# and looking for them all the while takes a tenth of what `status` takes. A hundred thousand objects are some 10 MB.
OBJECTS_BEFORE_COLLECTION = 100_000


def start() -> None:
    """Run the command line; Ctrl-C during the imports ends it without a traceback."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    gc.set_threshold(OBJECTS_BEFORE_COLLECTION)
    from jobpool_cli.cli.deferred import SELDOM_USED, deferred  # noqa: PLC0415

    with deferred(SELDOM_USED):
        from jobpool_cli.cli.main import main  # noqa: PLC0415

    main()


if __name__ == "__main__":
    start()
