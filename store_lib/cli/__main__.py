"""Runs ``store-lib`` as ``python -m store_lib.cli``."""

import sys

from store_lib.cli.app import main

if __name__ == "__main__":
    sys.exit(main())
