"""All figures as one HTML file that needs nothing else: tables, plots and film strips."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from astra_gym.evaluation import plots
from astra_gym.evaluation.bars import bars
from astra_gym.evaluation.planning import plan_table
from astra_gym.evaluation.ranking import rank_table
from astra_gym.evaluation.tables import bar_table, overall_sections, scenario_sections
from astra_gym.evaluation.transfer import transfer_table

Values = dict[str, Any]


class _Part(NamedTuple):
    """What another command has measured of a scenario: a file, its table and its plot."""

    title: str
    file: str
    table: Callable[[Values], str]
    plot: Callable[[Values], str]


_FURTHER = (
    _Part("Policies ranked", "rank/rank_{}.json", rank_table, plots.ranking),
    _Part("Agents of the dream in the true simulator", "transfer/transfer_{}.json", transfer_table, plots.gap),
    _Part("Planning", "plan/plan_{}.json", plan_table, plots.planning),
)
_PLOTS: dict[str, Callable[[Values], str]] = {"fidelity": plots.fidelity, "actions": plots.actions}
_STRIPS = {
    "dream_{}.png": "Held-out clips: the truth and the dream with the true actions.",
    "drift_{}.png": "Worlds that live on their own history.",
    "back_{}.png": "There and back: the first view, the farthest one, and the last one.",
}
_STRIPS_OF = {
    "drive": {"control.png": "One start, four orders."},
    "manipulation": {"pushing.png": "Pushes, in the dream and in the simulator."},
}
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0; font-size: 14px }
th, td { border: 1px solid #ccc; padding: 3px 9px; text-align: right } th { background: #f3f3f3 }
th:first-child, td:first-child { text-align: left }
img, svg { max-width: 100%; height: auto } figure { margin: 1em 0 } figcaption { color: #555; font-size: 14px }
"""


def render(figures: Values, output: Path, runs: Path) -> str:
    """The report as HTML.

    Args:
        figures: as in figures.json.
        output: folder with the pictures that go with them.
        runs: folder under which the commands rank, transfer and plan keep their figures, which are taken in where they
            are there and of the same weights.
    """
    judged = {name: values for name, values in figures["scenarios"].items() if values}
    body = [
        f"<h1>How good is the world {html.escape(figures['world'])}?</h1>",
        f"<p>Weights {figures['weights']}, seed {figures['seed']}. Intervals are 95 %. The same figures are in "
        "figures.json beside this file.</p>",
        *(_html(section) for section in overall_sections(figures)),
    ]
    if reached := bars(figures):
        met = sum(bar.met for bar in reached)
        body.append(f"<h2>Bars: {met} of {len(reached)} met</h2>{_html(bar_table(reached))}")
    for name, values in judged.items():
        body.append(f"<h2>{html.escape(name.capitalize())}</h2>")
        body += [_html(section) for section in scenario_sections(values)]
        body += [_figure(plot(values[part])) for part, plot in _PLOTS.items() if part in values]
        for file, caption in (_STRIPS | _STRIPS_OF.get(name, {})).items():
            body.append(_picture(output / file.format(name), caption))
        body += _further(runs, name, figures["weights"])
    title = f"astra-gym: {html.escape(figures['world'])}"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(filter(None, body)) + "\n</body></html>\n"
    )


def _further(runs: Path, name: str, weights: str) -> list[str]:
    """The sections of other commands' figures; those of other weights are left out."""
    sections = []
    for part in _FURTHER:
        path = runs / part.file.format(name)
        figures = json.loads(path.read_text()) if path.exists() else {}
        if figures.get("weights") == weights:
            sections += [f"<h3>{part.title}</h3>", _html(part.table(figures)), _figure(part.plot(figures))]
    return sections


def _picture(path: Path, caption: str) -> str:
    """A PNG within the page; "" if there is none."""
    if not path.exists():
        return ""
    data = base64.b64encode(path.read_bytes()).decode()
    return _figure(f'<img alt="{html.escape(caption)}" src="data:image/png;base64,{data}">', caption)


def _figure(picture: str, caption: str = "") -> str:
    below = f"<figcaption>{html.escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{picture}{below}</figure>" if picture else ""


def _html(markdown: str) -> str:
    """The Markdown that figures are written in, as HTML: headings, paragraphs, tables, bold and code."""
    blocks = []
    for block in markdown.split("\n\n"):
        lines = block.strip().splitlines()
        if not lines:
            continue
        if lines[0].startswith("|"):
            cells = [[_inline(cell.strip()) for cell in line.strip().strip("|").split("|")] for line in lines]
            head = "".join(f"<th>{cell}</th>" for cell in cells[0])
            rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in cells[2:])
            blocks.append(f"<table><tr>{head}</tr>{rows}</table>")
        elif heading := re.match(r"(#+) (.*)", lines[0]):
            level = len(heading[1])
            blocks.append(f"<h{level}>{_inline(heading[2])}</h{level}>")
        else:
            blocks.append(f"<p>{_inline(' '.join(lines))}</p>")
    return "\n".join(blocks)


def _inline(text: str) -> str:
    text = html.escape(text, quote=False)
    text = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)
    return re.sub(r"`(.+?)`", r"<code>\1</code>", text)
