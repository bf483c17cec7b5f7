"""Speed, memory and precision of the released model at full size: ``python scripts/bench_astra.py --help``."""

import tyro

from astra_gym.evaluation.released import BenchArgs, bench

if __name__ == "__main__":
    print(bench(tyro.cli(BenchArgs)))
