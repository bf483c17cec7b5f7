"""The benchmark's figures as tables, plots and bars."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from astra_gym.evaluation.bars import Bar, at_least, at_most
from astra_gym.evaluation.bench_race import DEFAULT
from astra_gym.evaluation.markdown import table
from astra_gym.evaluation.report import between_markers
from astra_gym.evaluation.tables import bar_table

Values = dict[str, Any]
DOCUMENT = Path("docs/performance.md")


def write(figures: Values, output: Path, write_docs: bool) -> str:
    """Write bench.md and bench.png to ``output``, and the documentation if that is asked for; returns the tables.

    Raises:
        ValueError: if the documentation has no markers.
    """
    text = markdown(figures)
    (output / "bench.md").write_text(f"{text}\n")
    if any("race" in found or "stages" in found for found in figures["scenarios"].values()):
        _plot(figures, output / "bench.png")
    if write_docs:
        DOCUMENT.write_text(between_markers(DOCUMENT, text))
        if (output / "bench.png").exists():
            shutil.copy(output / "bench.png", DOCUMENT.parent / "figures" / "bench.png")
    return text


def markdown(figures: Values) -> str:
    """All that has been measured."""
    machine = figures["machine"]
    sections = [
        f"World `{figures['world']}`, weights {figures['weights']}; {machine['device']}, {machine['processors']} "
        f"processors, {machine['threads']} threads, torch {machine['torch']}; load before: {machine['load_before']}."
    ]
    for scenario, found in figures["scenarios"].items():
        sections.append(f"### {scenario.capitalize()}")
        if "race" in found:
            sections.append(_race_table(found["race"]))
        if "fidelity" in found:
            sections.append(_fidelity_table(found["fidelity"], found.get("race", [])))
        if "stages" in found:
            sections += [_stage_table(found["stages"]), _arithmetic_table(found["stages"])]
        if facts := _facts(found):
            sections.append(table("one world", ["value"], facts))
        if reached := bars(found):
            sections.append(bar_table(reached))
    return "\n\n".join(sections)


def _race_table(race: list[Values]) -> str:
    counts = sorted({each["worlds"] for each in race})
    rows = []
    for name in dict.fromkeys(each["name"] for each in race):
        own = {each["worlds"]: each for each in race if each["name"] == name}
        cells = [
            f"{own[count]['frames_per_second']:.0f} / {own[count]['steps_per_second']:.0f}" if count in own else "–"
            for count in counts
        ]
        rows.append((f"**{name}**" if name == DEFAULT else name, cells))
    return "Frames/s / steps/s of so many environments together, in turns, rendering included:\n\n" + table(
        "environments", counts, rows
    )


def _fidelity_table(fidelity: Values, race: list[Values]) -> str:
    horizons, options = fidelity["horizons"], fidelity["options"]
    counts = sorted({each["worlds"] for each in race if each["kind"] == "option"})
    columns = [f"dB after {horizon}" for horizon in horizons] + [f"frames/s with {count}" for count in counts]
    rows = []
    for name, judged in options.items():
        cells = [
            f"{value:.2f}" if name == fidelity["reference"] else f"{value:.2f} ({difference:+z.2f} ± {error:.2f})"
            for value, difference, error in zip(
                judged["psnr"], judged["difference"], judged["standard_error"], strict=True
            )
        ]
        rates = {each["worlds"]: each["frames_per_second"] for each in race if each["name"] == name}
        rows.append((name, cells + [f"{rates[count]:.0f}" if count in rates else "–" for count in counts]))
    return (
        f"PSNR of {fidelity['clips']} held-out clips after so many dreamt blocks (difference to the reference, its "
        "standard error), beside speed:\n\n" + table("settings", columns, rows)
    )


def _stage_table(stages: list[Values]) -> str:
    names = dict.fromkeys(name for each in stages for name in each["milliseconds"])
    rows = []
    for name in names:
        times = [(each["milliseconds"].get(name, 0.0), each["total_milliseconds"]) for each in stages]
        rows.append((name, [f"{time:.2f} ms, {100 * time / total:.0f} %" for time, total in times]))
    rows.append(("all", [f"{each['total_milliseconds']:.1f} ms" for each in stages]))
    columns = [f"{each['worlds']} world{'s' * (each['worlds'] > 1)}" for each in stages]
    return "Where the time of a step goes:\n\n" + table("stage", columns, rows)


def _arithmetic_table(stages: list[Values]) -> str:
    rows = []
    for each in stages:
        products = [
            f"{each['matrix_gflops'][dtype]:.0f}, {100 * share:.0f} %" for dtype, share in each["matrix_shares"].items()
        ]
        milliseconds, rate = f"{each['transformer_milliseconds']:.1f}", f"{each['transformer_gflops']:.0f}"
        name = f"{each['worlds']}, {each['dtype']}"
        rows.append((name, [f"{each['transformer_passes']:.0f}", milliseconds, rate, *products]))
    columns = ["passes a step", "ms a step", "GFLOP/s"]
    columns += [f"a {dtype} matrix product's GFLOP/s, share of it" for dtype in stages[0]["matrix_shares"]]
    return "The transformer's arithmetic against this machine's matrix product, timed before and after:\n\n" + table(
        "worlds", columns, rows
    )


def _facts(found: Values) -> list[tuple[str, list[str]]]:
    facts = []
    if start := found.get("start"):
        facts += [
            (f"s from `gym.make` to {what}, median of {start['starts']} processes", [f"{start[key]:.2f}"])
            for what, key in (("its return", "make_seconds"), ("the first frame", "first_frame_seconds"))
        ]
        facts += [
            ("s from `gym.make` to the end of the first step", [f"{start['first_step_seconds']:.2f}"]),
            ("ms of the first block", [f"{start['first_block_milliseconds']:.1f}"]),
            (
                f"ms of a block over {start['steps']} steps, p50 / p95 / most",
                [" / ".join(f"{start[f'block_milliseconds_{key}']:.1f}" for key in ("p50", "p95", "most"))],
            ),
            (
                "p95 / p50 of as many matrix products, each as long, before and after",
                [f"{start['product_p95_over_p50']:.2f}"],
            ),
            (f"MB by which memory grows from a tenth of {start['steps']} steps to the end", [f"{_growth(start):z.1f}"]),
        ]
    if memory := found.get("memory"):
        for process in memory["processes"]:
            count = process["worlds"]
            facts.append((f"MB of a process with {count} world{'s' * (count > 1)}", [f"{process['megabytes']:.0f}"]))
        facts.append(("MB of each further world", [f"{memory['megabytes_per_world']:.2f}"]))
    return facts


def _growth(start: Values) -> float:
    """Megabytes from the first tenth's end to the last's."""
    return start["memory_megabytes"][-1] - start["memory_megabytes"][0]


def bars(found: Values) -> list[Bar]:
    """What a scenario's speed has to reach, as far as it has been measured at the sizes that count."""
    reached: list[Bar] = []
    race = found.get("race", [])
    rates = {each["worlds"]: each["frames_per_second"] for each in race if each["name"] == DEFAULT}
    simulators = [each for each in race if each["kind"] == "simulator"]
    together = [each["frames_per_second"] for each in simulators if each["name"].endswith(", async")]
    alone = [
        each["frames_per_second"] for each in simulators if each["worlds"] == 1 and each["name"].endswith(", sync")
    ]
    if 32 in rates and together:
        what = "frames/s of 32 worlds / of the simulators in their fastest AsyncVectorEnv"
        reached.append(at_least(what, rates[32] / max(together), 4))
    if 1 in rates and alone:
        reached.append(at_least("frames/s of one world / of one simulator", rates[1] / max(alone), 1))
    if fidelity := found.get("fidelity"):
        worst = min(fidelity["options"][DEFAULT]["difference"])
        reached.append(at_least("fidelity of the default settings, dB above the reference's", worst, -0.5))
    for each in found.get("stages", []):
        what = f"Gymnasium and Python, share of a step, worlds: {each['worlds']}"
        reached.append(at_most(what, each["outside_share"], 0.1))
        if each["worlds"] == 32 and each["dtype"] in each["matrix_shares"]:
            what = f"GFLOP/s of the transformer / of a {each['dtype']} matrix product, 32 worlds"
            reached.append(at_least(what, each["matrix_shares"][each["dtype"]], 0.5))
    if start := found.get("start"):
        median = start["block_milliseconds_p50"]
        reached += [
            at_most("ms of a block, one world, median", median, 40),
            at_most("p95 of a block / its median", start["block_milliseconds_p95"] / median, 1.3),
            at_most("first block / median", start["first_block_milliseconds"] / median, 1.3),
            at_most(f"growth of memory over {start['steps']} steps, MB", _growth(start), 5),
        ]
    return reached


def _plot(figures: Values, path: Path) -> None:
    """For each scenario, frames/s against the number of environments, and the stages of a step."""
    from matplotlib.figure import Figure

    scenarios = figures["scenarios"]
    figure = Figure(figsize=(13, 4.4 * len(scenarios)), dpi=120, layout="constrained")
    axes = figure.subplots(len(scenarios), 2, squeeze=False, width_ratios=(3, 2))
    for (scenario, found), (left, right) in zip(scenarios.items(), axes, strict=True):
        _plot_race(left, scenario, found.get("race", []))
        _plot_stages(right, found.get("stages", []))
    figure.savefig(path, bbox_inches="tight")


_STYLES: dict[str, dict[str, Any]] = {
    "world": {"linewidth": 2.5},
    "option": {"linestyle": ":"},
    "simulator": {"linestyle": "--"},
}


def _plot_race(axes: Any, scenario: str, race: list[Values]) -> None:
    for name in dict.fromkeys(each["name"] for each in race):
        own = [each for each in race if each["name"] == name]
        counts = [each["worlds"] for each in own]
        rates = [each["frames_per_second"] for each in own]
        [line] = axes.plot(counts, rates, marker="o", markersize=3.5, label=name, **_STYLES[own[0]["kind"]])
        if own[0]["kind"] == "world":
            low, high = zip(*(each["frames_per_second_range"] for each in own), strict=True)
            axes.fill_between(counts, low, high, alpha=0.2, color=line.get_color())
    axes.set(xscale="log", yscale="log", xlabel="environments together", ylabel="frames/s", title=scenario.capitalize())
    counts = sorted({each["worlds"] for each in race})
    axes.set_xticks(counts, counts)
    axes.minorticks_off()
    axes.grid(alpha=0.3, which="both")
    if race:
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))


def _plot_stages(axes: Any, stages: list[Values]) -> None:
    names = dict.fromkeys(name for each in stages for name in each["milliseconds"])
    labels = [f"{each['worlds']}\n{each['total_milliseconds']:.0f} ms" for each in stages]
    below = [0.0] * len(stages)
    for name in names:
        shares = [100 * each["milliseconds"].get(name, 0.0) / each["total_milliseconds"] for each in stages]
        axes.bar(labels, shares, bottom=below, label=name)
        below = [start + share for start, share in zip(below, shares, strict=True)]
    axes.set(xlabel="worlds", ylabel="% of a step", title="Where the time goes")
    if stages:
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
