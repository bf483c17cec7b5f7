"""Judging a world against the truth: fidelity, heads, drift, control and speed, by
:func:`astra_gym.evaluation.evaluate.evaluate`; policies and planners in the dream and in the simulator, by ``ranking``,
``transfer`` and ``planning``; how fast all of it is, by ``bench_world`` and ``released``."""
