"""Put several collected datasets into one: ``python scripts/join.py --help``."""

import sys

from astra_gym.cli import main

if __name__ == "__main__":
    sys.exit(main(["join", *sys.argv[1:]]))
