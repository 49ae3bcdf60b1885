"""``python -m wsclient``: the same program as ``wsclient``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
