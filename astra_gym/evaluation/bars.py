"""What a release has to reach."""

from __future__ import annotations

from typing import Any, NamedTuple


class Bar(NamedTuple):
    """A figure that a release has to reach."""

    name: str
    value: float
    demand: str
    met: bool


class _Demands(NamedTuple):
    """In dB."""

    ceiling: float
    below_ceiling: float
    above_copy: float
    above_shuffled: dict[int, float]
    """After so many blocks."""


DRIVE = _Demands(ceiling=33, below_ceiling=1.5, above_copy=5, above_shuffled={4: 5, 8: 5})
OTHERS = _Demands(ceiling=32, below_ceiling=2, above_copy=4, above_shuffled={4: 3})
SHARPNESS = (0.8, 1.2)
"""Of dreamt frames, as a share of true ones'."""
READ = 0.8
"""Correlation of the reward and F1 of the episode's end, on true frames."""


def bars(figures: dict[str, Any]) -> list[Bar]:
    """The bars whose figures have been measured."""
    found: list[Bar] = []
    for name, judged in figures.get("scenarios", {}).items():
        found += [bar._replace(name=f"{name}: {bar.name}") for bar in _of_scenario(name, judged)]
    if routing := figures.get("routing"):
        found += _routing_bars(routing)
    if speed := figures.get("speed"):
        rate, first = speed["environment"]["frames_per_second"], speed["environment"]["first_step_seconds"]
        found.append(at_least("speed: frames/s, one world", rate, 40))
        found.append(at_most("speed: seconds from gym.make to the first step's end", first, 3))
    return found


def at_least(name: str, value: float, least: float) -> Bar:
    """A figure that must not be smaller."""
    return Bar(name, value, f"at least {least:g}", value >= least)


def at_most(name: str, value: float, most: float) -> Bar:
    """A figure that must not be larger."""
    return Bar(name, value, f"at most {most:g}", value <= most)


def within(name: str, value: float, least: float, most: float) -> Bar:
    """A figure that must be neither smaller nor larger."""
    return Bar(name, value, f"{least:g} to {most:g}", least <= value <= most)


def _of_scenario(name: str, judged: dict[str, Any]) -> list[Bar]:
    found: list[Bar] = []
    if fidelity := judged.get("fidelity"):
        found += _fidelity_bars(fidelity, DRIVE if name == "drive" else OTHERS)
    if drift := judged.get("drift"):
        for blocks, ratio in zip(drift["blocks"], drift["ratio_to_true"], strict=True):
            what = f"sharpness after {blocks} block{'s' * (blocks > 1)}, dream / true"
            found.append(within(what, ratio, *SHARPNESS))
    if reward := judged.get("reward"):
        value = reward["true"]["correlation_per_block"]
        found.append(at_least("reward on true frames, correlation per block", value, READ))
    if termination := judged.get("termination"):
        found.append(at_least("termination on true frames, F1", termination["true"]["f1"], READ))
    if control := judged.get("control"):
        for key, what in {"opposite_turns": "left and right are opposite", "gas_faster": "gas beats brake"}.items():
            found.append(at_least(f"{what}, share of starts", control["dream"][key], 0.9))
    if actions := judged.get("actions"):
        found += _action_bars(actions)
    if back := judged.get("back"):
        for journey, course in back["journeys"].items():
            if "90°" in journey:
                what = f"{journey}: closer to the first view than to others, dB"
                found.append(at_least(what, course["dream"]["closer_than_other"]["value"], 3))
    if pushing := judged.get("pushing"):
        found.append(at_least("pushed the right way, share of starts", pushing["dream"]["right_way"]["value"], 0.8))
    return found


def _action_bars(actions: dict[str, Any]) -> list[Bar]:
    found = []
    if actions["share_of_true"]:
        what = "actions read from dreams, R² as a share of that on true frames"
        found.append(at_least(what, actions["share_of_true"]["value"], 0.85))
    errors = actions.get("poses", {}).get("dream", {})
    if errors.get("rotation_error"):
        found.append(at_most("rotation, median error as a share", errors["rotation_error"]["value"], 0.25))
    if errors.get("direction_degrees"):
        what = "direction of motion, median error in degrees"
        found.append(at_most(what, errors["direction_degrees"]["value"], 20))
    return found


def above(fidelity: dict[str, Any], baseline: str, blocks: int) -> float | None:
    """How many dB the default world is above a baseline after so many blocks, None if that was not measured."""
    if blocks not in fidelity["horizons"]:
        return None
    place, psnr = fidelity["horizons"].index(blocks), fidelity["psnr"]
    return psnr[fidelity["default"]][place] - psnr[baseline][place]


def _fidelity_bars(fidelity: dict[str, Any], demands: _Demands) -> list[Bar]:
    found = [at_least("autoencoder, dB", fidelity["psnr"]["autoencoder"][0], demands.ceiling)]
    below = above(fidelity, "autoencoder", 1)
    if below is not None:
        found.append(at_most("below the ceiling after 1 block, dB", -below, demands.below_ceiling))
    wanted = [("copy last", 4, demands.above_copy)]
    wanted += [("shuffled actions", blocks, least) for blocks, least in demands.above_shuffled.items()]
    for baseline, blocks, least in wanted:
        difference = above(fidelity, baseline, blocks)
        if difference is not None:
            found.append(at_least(f"above {baseline} after {blocks} blocks, dB", difference, least))
    return found


def swap_cost(routing: dict[str, Any], name: str) -> list[float] | None:
    """Mean loss in dB of a scenario with the others' routing, after each number of blocks; None without others."""
    others = list(routing["swap"][name].values())
    return [sum(column) / len(others) for column in zip(*others, strict=True)] if others else None


def _routing_bars(routing: dict[str, Any]) -> list[Bar]:
    found = []
    for name, use in routing["use"].items():
        cost = swap_cost(routing, name)
        if cost is not None:
            found.append(at_least(f"{name}: share of the most used expert", max(use), 0.6))
            what = f"{name}: cost of swapped experts after {routing['after'][-1]} blocks, dB"
            found.append(at_least(what, cost[-1], 1))
    return found
