"""Make a video with the released Astra weights: ``python scripts/infer.py --help``."""

import sys

from astra_gym.cli import main

if __name__ == "__main__":
    sys.exit(main(["infer", *sys.argv[1:]]))
