"""Write a learned policy as a small file of weights: ``python scripts/export_agent.py --help``."""

import sys

from astra_gym.cli import main

if __name__ == "__main__":
    sys.exit(main(["export-agent", *sys.argv[1:]]))
