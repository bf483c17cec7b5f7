"""Figures as Markdown, pictures and places in the documentation."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from astra_gym.evaluation.pictures import save_curves

BEGIN, END = "<!-- figures -->", "<!-- /figures -->"


class Figures(dict[str, Any]):
    """All figures by part, as in figures.json; as text, their tables."""

    def __str__(self) -> str:
        return markdown(self)


class Bar(NamedTuple):
    """A figure that a release has to reach."""

    name: str
    value: float
    demand: str
    met: bool


def bars(figures: dict[str, Any]) -> list[Bar]:
    """The bars whose figures have been measured."""
    found: list[Bar] = []
    if fidelity := figures.get("fidelity"):
        found += _fidelity_bars(fidelity)
    if drift := figures.get("drift"):
        for blocks, ratio in zip(drift["blocks"], drift["ratio_to_true"], strict=True):
            name = f"sharpness after {blocks} block{'s' * (blocks > 1)}, dream / true"
            found.append(Bar(name, ratio, "0.8 to 1.2", 0.8 <= ratio <= 1.2))
    if control := figures.get("control"):
        for key, name in {"opposite_turns": "left and right are opposite", "gas_faster": "gas beats brake"}.items():
            value = control["dream"][key]
            found.append(Bar(f"{name}, share of starts", value, "at least 0.9", value >= 0.9))
    if speed := figures.get("speed"):
        rate, first = speed["environment"]["frames_per_second"], speed["environment"]["first_step_seconds"]
        found.append(Bar("frames/s, one world", rate, "at least 40", rate >= 40))
        found.append(Bar("seconds from gym.make to the first step's end", first, "at most 3", first <= 3))
    return found


def _fidelity_bars(fidelity: dict[str, Any]) -> list[Bar]:
    psnr, horizons = fidelity["psnr"], fidelity["horizons"]
    world = dict(zip(horizons, psnr[fidelity["default"]], strict=True))
    ceiling = dict(zip(horizons, psnr["autoencoder"], strict=True))
    found = [Bar("autoencoder, dB", ceiling[horizons[0]], "at least 33", ceiling[horizons[0]] >= 33)]
    if 1 in horizons:
        below = ceiling[1] - world[1]
        found.append(Bar("below the ceiling after 1 block, dB", below, "at most 1.5", below <= 1.5))
    for baseline, places in (("copy last", (4,)), ("shuffled actions", (4, 8))):
        values = dict(zip(horizons, psnr[baseline], strict=True))
        for place in places:
            if place in horizons:
                above = world[place] - values[place]
                found.append(Bar(f"above {baseline} after {place} blocks, dB", above, "at least 5", above >= 5))
    return found


def markdown(figures: dict[str, Any]) -> str:
    """All figures measured so far, as tables."""
    sections = []
    if fidelity := figures.get("fidelity"):
        sections.append(_fidelity_table(fidelity))
    facts = _facts(figures)
    if facts:
        sections.append("\n".join([_head("measure", ["dream", "truth"]), *(_row(name, pair) for name, *pair in facts)]))
    if drift := figures.get("drift"):
        sections.append(_drift_table(drift))
    if speed := figures.get("speed"):
        sections.append(_speed_table(speed))
    return "\n\n".join(sections)


def _row(name: str, values: Sequence[Any]) -> str:
    return f"| {name} | " + " | ".join(str(value) for value in values) + " |"


def _head(name: str, values: Sequence[Any]) -> str:
    return _row(name, values) + "\n|---" + "|---:" * len(values) + "|"


def _fidelity_table(fidelity: dict[str, Any]) -> str:
    default = fidelity["default"]
    order = [default, "copy last", "shuffled actions", "autoencoder"]
    order += [name for name in fidelity["psnr"] if name not in order]
    labels = {default: f"**{default}** (default)", "autoencoder": "autoencoder (ceiling)"}
    lines = [
        f"PSNR in dB / SSIM against true frames of {fidelity['clips']} clips of held-out tracks "
        "(a block's mean squared error in dB, averaged over the clips):",
        "",
        _head("blocks ahead", fidelity["horizons"]),
    ]
    for name in order:
        pairs = zip(fidelity["psnr"][name], fidelity["ssim"][name], strict=True)
        lines.append(_row(labels.get(name, name), [f"{psnr:.1f} / {ssim:.2f}" for psnr, ssim in pairs]))
    return "\n".join(lines)


def _facts(figures: dict[str, Any]) -> list[tuple[str, str, str]]:
    facts = []
    if reward := figures.get("reward"):
        many = reward["summed_blocks"]
        facts.append(
            (
                f"reward, correlation per block / of sums over {many} blocks",
                f"{reward['correlation_per_block']:.2f} / {reward['correlation_of_sums']:.2f}",
                "1",
            )
        )
    if termination := figures.get("termination"):
        recalls = termination["recall_by_blocks_before_end"]
        ahead = " / ".join(recalls)
        facts.append(
            (
                f"termination recognised, begun {ahead} blocks before the end",
                " / ".join(f"{recall:.2f}" for recall in recalls.values()),
                "1",
            )
        )
        alarms = f"{termination['false_alarms']} of {termination['rollouts']}"
        facts.append(("false terminations, rollouts", alarms, "0"))
    if control := figures.get("control"):
        dream, truth = control["dream"], control["simulator"]
        blocks = control["blocks_steered"]
        for side in ("left", "right"):
            facts.append(
                (
                    f"full {side} for {blocks} blocks, degrees turned to the left",
                    f"{dream[f'turn_{side}_degrees']:.0f}",
                    f"{truth[f'turn_{side}_degrees']:.0f}",
                )
            )
        for order in ("gas", "brake"):
            facts.append(
                (
                    f"speed after 8 to {control['blocks']} blocks of {order}, m/s",
                    f"{dream[f'speed_{order}']:.0f}",
                    f"{truth[f'speed_{order}']:.0f}",
                )
            )
    if drift := figures.get("drift"):
        length = drift["blocks"][-1]
        for what in ("road visible", "on the road"):
            key = "road_visible" if what == "road visible" else "on_road"
            facts.append(
                (
                    f"{what}, share of {length} blocks of scripted driving",
                    f"{drift[f'dream_{key}']:.2f}",
                    f"{drift[f'simulator_{key}']:.2f}",
                )
            )
    return facts


def _drift_table(drift: dict[str, Any]) -> str:
    return "\n".join(
        [
            f"Driven by the {drift['agent']} agent on the world's own history, mean of {drift['worlds']} worlds (the "
            f"autoencoder alone keeps {drift['autoencoder_ratio_to_true']:.2f} of the sharpness and "
            f"{drift['autoencoder_detail_ratio_to_true']:.2f} of the detail):",
            "",
            _head("after blocks", drift["blocks"]),
            _row("sharpness, dream / true frames", [f"{ratio:.2f}" for ratio in drift["ratio_to_true"]]),
            _row("sharpness, dream / simulator, same agent", [f"{ratio:.2f}" for ratio in drift["ratio_to_simulator"]]),
            _row("fine detail, dream / true frames", [f"{ratio:.2f}" for ratio in drift["detail_ratio_to_true"]]),
            _row("road visible", [f"{share:.2f}" for share in drift["dream"]["road_visible"]]),
        ]
    )


def _speed_table(speed: dict[str, Any]) -> str:
    environment, simulator, world = speed["environment"], speed["simulator"], speed["world"]
    rates = world["frames_per_second_by_worlds"].items()
    together = ", ".join(f"{rate:.0f} with {count}" for count, rate in rates)
    by_steps = world["block_milliseconds_by_steps"].items()
    steps = ", ".join(f"{time:.0f} with {count} denoising steps" for count, time in by_steps)
    keys = ("frames_per_second", "block_milliseconds_p50", "block_milliseconds_p95")
    return "\n".join(
        [
            f"{speed['steps']} random actions on {speed['processors']} processors ({speed['device']}), all included; "
            f"{environment['first_step_seconds']:.1f} s from `gym.make` to the end of the first step:",
            "",
            _head("one world", ["frames/s", "ms a block, p50", "p95"]),
            _row("`AstraDrive-v0`", [f"{environment[key]:.0f}" for key in keys]),
            _row("`CarRacing-v3`, same blocks", [f"{simulator[key]:.0f}" for key in keys]),
            "",
            f"Frames/s by number of worlds, without the environment: {together}. Milliseconds a block: {steps}; the "
            f"decoder's share is {world['decode_milliseconds']:.1f}.",
        ]
    )


def write(figures: dict[str, Any], output: Path) -> None:
    """Write report.md and the plot of fidelity to ``output``; figures.json is there already."""
    rows = [_row(bar.name, [f"{bar.value:.2f}", bar.demand, "yes" if bar.met else "**no**"]) for bar in bars(figures)]
    table = "\n".join([_head("bar", ["value", "demand", "met"]), *rows])
    (output / "report.md").write_text(f"{markdown(figures)}\n\n{table}\n")
    if fidelity := figures.get("fidelity"):
        title = f"{fidelity['clips']} clips of held-out tracks, world {figures['weights']}"
        save_curves(output / "fidelity.png", fidelity["horizons"], fidelity["psnr"], "PSNR in dB", title)


def write_docs(figures: dict[str, Any], output: Path, documents: Sequence[Path]) -> None:
    """Put the tables between the markers of each document, and the pictures into docs/figures.

    Raises:
        ValueError: if a document has no markers.
    """
    for document in documents:
        document.write_text(between_markers(document, markdown(figures)))
    folder = Path("docs/figures")
    folder.mkdir(parents=True, exist_ok=True)
    for picture in output.glob("*.png"):
        shutil.copy(picture, folder / picture.name)


def between_markers(document: Path, table: str) -> str:
    """The document's text with ``table`` between its markers.

    Raises:
        ValueError: if they are missing.
    """
    text = document.read_text()
    if BEGIN not in text or END not in text:
        raise ValueError(f"write_docs: {document} has no place for the table; add the lines {BEGIN} and {END}")
    return re.sub(
        f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda _: f"{BEGIN}\n{table}\n{END}", text, count=1, flags=re.DOTALL
    )
