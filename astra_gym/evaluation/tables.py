"""Figures as Markdown tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from astra_gym.evaluation import following_tables
from astra_gym.evaluation.bars import DRIVE, OTHERS, READ, SHARPNESS, Bar, above, swap_cost
from astra_gym.evaluation.intervals import with_interval
from astra_gym.evaluation.markdown import table

Values = dict[str, Any]


def markdown(figures: Values) -> str:
    """All figures measured so far."""
    judged = {name: values for name, values in figures.get("scenarios", {}).items() if values}
    sections = [_summary_table(judged)] if judged else []
    for name, values in judged.items():
        sections += [f"### {name.capitalize()}", *scenario_sections(values)]
    return "\n\n".join(sections + _common_sections(figures))


def scenario_sections(judged: Values) -> list[str]:
    """The tables of one scenario's figures."""
    sections = [make(judged[part]) for part, make in _OF_SCENARIO.items() if part in judged]
    facts = _facts(judged)
    return [*sections, table("measure", ["dream", "truth"], facts)] if facts else sections


def overall_sections(figures: Values) -> list[str]:
    """The tables that compare scenarios, and those of routing and speed."""
    judged = {name: values for name, values in figures.get("scenarios", {}).items() if values}
    return ([_summary_table(judged)] if judged else []) + _common_sections(figures)


def _common_sections(figures: Values) -> list[str]:
    sections = []
    if routing := figures.get("routing"):
        sections += ["### Routing", _routing_table(routing)]
        if len(routing["swap"]) > 1:
            sections.append(_swap_table(routing))
    if speed := figures.get("speed"):
        sections += ["### Speed", _speed_table(speed)]
    return sections


def summary(figures: Values) -> str:
    """The most important of them: a row for each scenario, the first one's fidelity (Drive's) in full, and routing."""
    judged = {name: values for name, values in figures.get("scenarios", {}).items() if values}
    sections = [_summary_table(judged)] if judged else []
    if with_fidelity := [name for name, values in judged.items() if "fidelity" in values]:
        name = with_fidelity[0]
        sections.append(f"{name.capitalize()}, in full. {_fidelity_table(judged[name]['fidelity'])}")
    if routing := figures.get("routing"):
        sections.append(_routing_table(routing))
    return "\n\n".join(sections)


def bar_table(bars: Sequence[Bar]) -> str:
    """The bars and whether they are met."""
    rows = [(bar.name, [f"{bar.value:.2f}", bar.demand, "yes" if bar.met else "**no**"]) for bar in bars]
    return table("bar", ["value", "demand", "met"], rows)


def _numbers(values: Sequence[float | None], decimals: int = 2) -> str:
    return " / ".join("–" if value is None else f"{value:z.{decimals}f}" for value in values)


def _summary_table(judged: dict[str, Values]) -> str:
    drifts = [values["drift"]["blocks"] for values in judged.values() if "drift" in values]
    columns = [
        "ceiling, dB",
        "1 block ahead, dB below the ceiling",
        "4 blocks ahead, dB above copy / shuffled",
        "sharpness after " + " / ".join(map(str, drifts[0] if drifts else [])) + " blocks",
        "reward, true / dream",
        "termination F1, true / dream",
    ]
    rows = []
    for name, values in judged.items():
        cells = ["–"] * len(columns)
        if fidelity := values.get("fidelity"):
            below = above(fidelity, "autoencoder", 1)
            cells[0] = f"{fidelity['psnr']['autoencoder'][0]:.1f}"
            cells[1] = _numbers([None if below is None else -below], 1)
            cells[2] = _numbers([above(fidelity, baseline, 4) for baseline in ("copy last", "shuffled actions")], 1)
        if drift := values.get("drift"):
            cells[3] = _numbers(drift["ratio_to_true"])
        if reward := values.get("reward"):
            cells[4] = _numbers([reward[where]["correlation_per_block"] for where in ("true", "dream")])
        if termination := values.get("termination"):
            cells[5] = " / ".join(_f1_of_ends(termination[where]) for where in ("true", "dream"))
        rows.append((name, cells))
    rows += _demanded(judged)
    explained = (
        "On held-out scenes. PSNR of dreamt blocks against what truly came, below the autoencoder's ceiling and above "
        "two baselines: the last frame repeated, and another clip's actions. Sharpness as a share of true frames', "
        "after so many blocks of the world's own history. Correlation of the reward with the simulator's, and F1 of "
        "the episode's end, read from true and from dreamt frames, with its interval and the number of true ends."
    )
    return f"{explained}\n\n{table('scenario', columns, rows)}"


def _f1_of_ends(termination: Values) -> str:
    """The F1 of the end with its interval and the number of ends."""
    if termination["f1"] is None:
        return "–"
    found = with_interval({"value": termination["f1"], "interval": termination["f1_interval"]}, 2)
    rollouts, ends = termination["endings"], termination["ended_episodes"]
    return f"{found}, {ends} ends" + (f" in {rollouts} dreams" if rollouts > ends else "")


def _demanded(judged: dict[str, Values]) -> list[tuple[str, list[str]]]:
    """Rows for the summary: what was aimed at, in Drive and elsewhere."""
    rows = []
    for name, demands, present in (
        ("drive", DRIVE, "drive" in judged),
        ("others", OTHERS, bool(judged.keys() - {"drive"})),
    ):
        cells = [
            f"{demands.ceiling:g}",
            f"{demands.below_ceiling:g}",
            f"{demands.above_copy:g} / {demands.above_shuffled[4]:g}",
            f"{SHARPNESS[0]:g} to {SHARPNESS[1]:g} each",
            f"{READ:g} / –",
            f"{READ:g} / –",
        ]
        if present:
            rows.append((f"*aimed at, {name}*", cells))
    return rows


def _fidelity_table(fidelity: Values) -> str:
    default = fidelity["default"]
    order = [default, "copy last", "shuffled actions", "autoencoder"]
    order += [name for name in fidelity["psnr"] if name not in order]
    labels = {default: f"**{default}** (default)", "autoencoder": "autoencoder (ceiling)"}
    rows = []
    for name in order:
        pairs = zip(fidelity["psnr"][name], fidelity["ssim"][name], strict=True)
        rows.append((labels.get(name, name), [f"{psnr:.1f} / {ssim:.2f}" for psnr, ssim in pairs]))
    rows.append((f"sharpness, {default} / truth", [f"{ratio:.2f}" for ratio in fidelity["sharpness"][default]]))
    return (
        f"PSNR in dB / SSIM against true frames of {fidelity['clips']} clips of held-out scenes "
        "(a block's mean squared error in dB, averaged over the clips):\n\n"
        + table("blocks ahead", fidelity["horizons"], rows)
    )


def _facts(judged: Values) -> list[tuple[str, list[str]]]:
    facts = []
    if reward := judged.get("reward"):
        for where, seen in (("dreamt", reward["dream"]), ("true", reward["true"])):
            what = f"reward on {where} frames, correlation per block / of sums over {seen['summed_blocks']} blocks"
            facts.append((what, [_numbers([seen["correlation_per_block"], seen["correlation_of_sums"]]), "1"]))
    if termination := judged.get("termination"):
        dream, true = termination["dream"], termination["true"]
        recalls = dream["recall_by_blocks_before_end"]
        what = f"termination recognised in dreams begun {' / '.join(recalls)} blocks before the end"
        facts.append((what, [_numbers(list(recalls.values())), "1"]))
        for where, seen in (("dreams", dream), ("true episodes", true)):
            facts.append((f"false terminations in {seen['rollouts']} {where}", [str(seen["false_alarms"]), "0"]))
        found = [f"{true['hits']} of {true['endings']}", str(true["endings"])]
        facts.append(("true episodes' ends recognised on true frames", found))
    if control := judged.get("control"):
        pair = (control["dream"], control["simulator"])
        for side in ("left", "right"):
            what = f"full {side} for {control['blocks_steered']} blocks, degrees turned to the left"
            facts.append((what, [f"{each[f'turn_{side}_degrees']:.0f}" for each in pair]))
        for order in ("gas", "brake"):
            what = f"speed after 8 to {control['blocks']} blocks of {order}, m/s"
            facts.append((what, [f"{each[f'speed_{order}']:.0f}" for each in pair]))
    drift = judged.get("drift", {})
    for key, what in {
        "road_visible": "road visible, share of",
        "on_road": "on the road, share of",
        "bends_to_come": f"straight roads that bend {drift.get('blocks_ahead')} blocks later, share in",
    }.items():
        values = [drift.get(f"{where}_{key}") for where in ("dream", "simulator")]
        if None not in values:
            what = f"{what} {drift['blocks'][-1]} blocks of scripted driving"
            facts.append((what, [f"{value:.2f}" for value in values]))
    return facts


def _drift_table(drift: Values) -> str:
    who = f"Driven by the {drift['agent']} agent" if "agent" in drift else "With the actions of held-out episodes"
    rows = [("sharpness, dream / true frames", [f"{ratio:.2f}" for ratio in drift["ratio_to_true"]])]
    if "ratio_to_simulator" in drift:
        ratios = drift["ratio_to_simulator"]
        what = f"sharpness, dream / simulator, same agent from {drift['paired_worlds']} of the starts"
        rows.append((what, [f"{ratio:.2f}" for ratio in ratios]))
    rows.append(("fine detail, dream / true frames", [f"{ratio:.2f}" for ratio in drift["detail_ratio_to_true"]]))
    for statistic, what in (("mean", "mean colour"), ("std", "standard deviation of colour")):
        pairs = list(zip(drift["dream"]["colour"], drift["colour_true"], strict=True))
        cells = [", ".join(f"{a:+z.0f}" for a in _difference(seen[statistic], true[statistic])) for seen, true in pairs]
        rows.append((f"{what} (R, G, B), dream - true, grey levels", cells))
    if "road_visible" in drift["dream"]:
        rows.append(("road visible", [f"{share:.2f}" for share in drift["dream"]["road_visible"]]))
    if "true_bends" in drift:
        seen, what = drift["dream"], f"the road bends, share of frames (true {drift['true_bends']:.2f})"
        rows.append((what, [f"{share:.2f}" for share in seen["bends"]]))
        speeds = zip(seen["speed"], drift["simulator"]["speed"], strict=True)
        what = f"speed seen, dream / simulator, m/s, from {drift['paired_worlds']} of the starts"
        rows.append((what, [f"{a:.0f} / {b:.0f}" for a, b in speeds]))
    return (
        f"{who} on the world's own history, mean of {drift['worlds']} worlds (the autoencoder alone keeps "
        f"{drift['autoencoder_ratio_to_true']:.2f} of the sharpness and "
        f"{drift['autoencoder_detail_ratio_to_true']:.2f} of the detail):\n\n"
        + table("after blocks", drift["blocks"], rows)
    )


def _difference(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]


_OF_SCENARIO: dict[str, Callable[[Values], str]] = {
    "fidelity": _fidelity_table,
    "drift": _drift_table,
    "actions": following_tables.actions_table,
    "back": following_tables.back_table,
    "pushing": following_tables.pushing_table,
}


def _routing_table(routing: Values) -> str:
    columns = [f"expert {number + 1}" for number in range(routing["experts"])]
    after = " / ".join(map(str, routing["after"]))
    columns.append(f"dB lost with others' experts after {after} blocks")
    rows = []
    for name, use in routing["use"].items():
        most = max(use)
        cells = [f"**{share:.2f}**" if share == most else f"{share:.2f}" for share in use]
        cost = swap_cost(routing, name)
        rows.append((name, [*cells, _numbers(cost) if cost else "–"]))
    return (
        "Mean weight of each action expert over all held-out actions, and the PSNR that held-out clips lose when the "
        "actions of the dream get the mean expert weights of another scenario (mean over the others):\n\n"
        + table("scenario", columns, rows)
    )


def _swap_table(routing: Values) -> str:
    names = list(routing["use"])
    rows = [
        (name, ["–" if other == name else f"{swaps[other][-1]:z.2f}" for other in names])
        for name, swaps in routing["swap"].items()
    ]
    return (
        f"One by one, dB lost after {routing['after'][-1]} blocks (rows: whose actions, "
        f"{min(routing['clips'].values())} clips or more; columns: whose experts):\n\n" + table("", names, rows)
    )


def _speed_table(speed: Values) -> str:
    environment, simulator, world = speed["environment"], speed["simulator"], speed["world"]
    rates = world["frames_per_second_by_worlds"].items()
    together = ", ".join(f"{rate:.0f} with {count}" for count, rate in rates)
    by_steps = world["block_milliseconds_by_steps"].items()
    steps = ", ".join(f"{time:.0f} with {count} denoising steps" for count, time in by_steps)
    keys = ("frames_per_second", "block_milliseconds_p50", "block_milliseconds_p95")
    scenario = speed["scenario"].capitalize()
    rows = [
        (f"{scenario}, the world", [f"{environment[key]:.0f}" for key in keys]),
        (f"{scenario}, the simulator", [f"{simulator[key]:.0f}" for key in keys]),
    ]
    return (
        f"{speed['steps']} random actions on {speed['processors']} processors ({speed['device']}), resets not counted; "
        f"{environment['first_step_seconds']:.1f} s from `gym.make` to the end of the first step:\n\n"
        + table("one world", ["frames/s", "ms a block, p50", "p95"], rows)
        + f"\n\nFrames/s by number of worlds: {together}. Milliseconds a block: {steps}; the "
        f"decoder's share is {world['decode_milliseconds']:.1f}."
    )
