"""Collect episodes of a simulator into a Minari dataset: ``python scripts/collect.py --help``."""

import tyro

from astra_gym.data.collect import CollectArgs, collect

if __name__ == "__main__":
    print(collect(tyro.cli(CollectArgs)))
