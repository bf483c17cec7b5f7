"""Plots of figures for the HTML report, as SVG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

Figures = Mapping[str, Any]
Line = tuple[Sequence[float], Sequence[float], Sequence[Sequence[float | None]]]
"""x, y, and an interval for each y."""


def fidelity(figures: Figures) -> str:
    """PSNR against the horizon, with 95 % intervals of the mean over clips."""
    lines: dict[str, Line] = {}
    for name, values in figures["psnr"].items():
        lines[name] = (figures["horizons"], values, figures["psnr_interval"][name])
    return _lines(lines, f"blocks dreamt ({figures['clips']} clips)", "PSNR in dB")


def actions(figures: Figures) -> str:
    """Mean R² of actions read back, by the frames that they are read from; "" where no number of the action counts."""
    if figures["mean"] is None:
        return ""
    figure, axes = _axes(6.4, 3.0)
    for place, estimate in enumerate(figures["mean"].values()):
        _point(axes, place, estimate)
    axes.set_xticks(range(len(figures["mean"])), [name.replace(" ", "\n", 1) for name in figures["mean"]], fontsize=8)
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_ylabel(f"R² ({figures['clips']} clips)")
    return _svg(figure)


def ranking(figures: Figures) -> str:
    """Mean return of each policy in truth against that in the dream."""
    figure, axes = _axes(5.0, 4.2)
    for name, judged in figures["policies"].items():
        x, y = judged["truth"], judged["dream"]
        axes.errorbar(
            x["value"], y["value"], xerr=_bars(x), yerr=_bars(y), fmt="o", markersize=4, linewidth=1, label=name
        )
    low, high = min(axes.get_xlim()[0], axes.get_ylim()[0]), max(axes.get_xlim()[1], axes.get_ylim()[1])
    axes.plot([low, high], [low, high], "--", color="grey", linewidth=0.8)
    axes.set_xlabel(f"return in truth ({figures['starts']} starts)")
    axes.set_ylabel("return in the dream")
    axes.legend(fontsize=7)
    return _svg(figure)


def gap(figures: Figures) -> str:
    """Return in the dream and in truth over training; "" where it was not measured."""
    if not figures.get("gap"):
        return ""
    steps = [judged["timesteps"] for judged in figures["gap"]]
    lines: dict[str, Line] = {}
    for name in ("dream", "truth"):
        estimates = [judged[name] for judged in figures["gap"]]
        lines[name] = (steps, [each["value"] for each in estimates], [each["interval"] for each in estimates])
    return _lines(lines, "blocks learned from", "return")


def planning(figures: Figures) -> str:
    """Success of each agent in the true simulator."""
    figure, axes = _axes(6.4, 3.0)
    labels = []
    for place, (name, judged) in enumerate(figures["agents"].items()):
        _point(axes, place, judged["success"])
        labels.append(
            f"{judged['horizon']} ahead\n{judged['candidates']} tried" if judged.get("horizon") is not None else name
        )
    axes.set_xticks(range(len(labels)), labels, fontsize=7)
    axes.set_ylabel(f"success ({figures['episodes']} episodes)")
    return _svg(figure)


def _lines(lines: Mapping[str, Line], xlabel: str, ylabel: str) -> str:
    figure, axes = _axes(6.4, 3.8)
    for name, (x, y, intervals) in lines.items():
        (line,) = axes.plot(x, y, "-o", markersize=3, label=name)
        low, high = (
            [value if ends[side] is None else ends[side] for value, ends in zip(y, intervals, strict=True)]
            for side in (0, 1)
        )
        axes.fill_between(x, low, high, color=line.get_color(), alpha=0.15)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return _svg(figure)


def _point(axes: Any, place: int, estimate: Figures) -> None:
    if estimate["value"] is not None:
        axes.errorbar(place, estimate["value"], yerr=_bars(estimate), fmt="o", color="tab:blue", capsize=3)


def _bars(estimate: Figures) -> list[list[float]]:
    """Lengths of an estimate's error bars, below and above."""
    value, (low, high) = estimate["value"], estimate["interval"]
    return [[0.0 if low is None else max(value - low, 0.0)], [0.0 if high is None else max(high - value, 0.0)]]


def _axes(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _svg(figure: Any) -> str:
    """The figure as an ``<svg>`` element, the same for the same figures."""
    from matplotlib import rc_context

    buffer = io.StringIO()
    with rc_context({"svg.hashsalt": "figures", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]
