"""Judging a world against the truth: fidelity, heads, drift, control and speed. Everything here is measured, seeded and
written down by :func:`astra_gym.evaluation.evaluate.evaluate`."""
