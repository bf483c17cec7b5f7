"""Judge agents of the dream in the true simulator: ``python scripts/transfer.py --help``."""

import sys

from astra_gym.cli import main

if __name__ == "__main__":
    sys.exit(main(["transfer", *sys.argv[1:]]))
