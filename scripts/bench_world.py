"""Speed of a world beside its true simulators: ``python scripts/bench_world.py --help``."""

import tyro

from astra_gym.evaluation.bench_world import BenchWorldArgs, bench_world

if __name__ == "__main__":
    print(bench_world(tyro.cli(BenchWorldArgs)))
