"""Learn to act in a world with PPO or SAC: ``python scripts/train_agent.py --help``."""

import sys

from astra_gym.cli import main

if __name__ == "__main__":
    sys.exit(main(["train-agent", *sys.argv[1:]]))
