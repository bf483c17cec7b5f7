"""Judge planners in the true simulator: ``python scripts/plan.py --help``."""

import sys

from astra_gym.cli import main

if __name__ == "__main__":
    sys.exit(main(["plan", *sys.argv[1:]]))
