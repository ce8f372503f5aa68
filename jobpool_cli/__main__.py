"""``python -m jobpool_cli`` is ``jobpool``."""

import sys

from jobpool_cli.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
