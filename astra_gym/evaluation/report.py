"""Figures as a report, pictures and places in the documentation."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

from astra_gym.evaluation.bars import bars
from astra_gym.evaluation.pictures import save_curves
from astra_gym.evaluation.tables import bar_table, markdown, summary

BEGIN, END = "<!-- figures -->", "<!-- /figures -->"


class Figures(dict[str, Any]):
    """All figures by part, as in figures.json; as text, their tables."""

    def __str__(self) -> str:
        return markdown(self)


def write(figures: dict[str, Any], output: Path, runs: Path) -> None:
    """Write report.md, report.html and the plots of fidelity to ``output``; figures.json is there already.

    Args:
        figures: all.
        output: folder, with the other pictures.
        runs: folder of further figures for the HTML report, see :func:`astra_gym.evaluation.html_report.render`.
    """
    from astra_gym.evaluation.html_report import render

    (output / "report.md").write_text(f"{markdown(figures)}\n\n### Bars\n\n{bar_table(bars(figures))}\n")
    for name, judged in figures["scenarios"].items():
        if fidelity := judged.get("fidelity"):
            title = f"{name.capitalize()}: {fidelity['clips']} clips of held-out scenes, world {figures['weights']}"
            save_curves(
                output / f"fidelity_{name}.png",
                fidelity["horizons"],
                fidelity["psnr"],
                fidelity["block_seconds"],
                "PSNR in dB",
                title,
            )
    (output / "report.html").write_text(render(figures, output, runs))


def write_docs(figures: dict[str, Any], output: Path, readme: Path, model_card: Path) -> None:
    """Put a summary between the markers of the README and all tables between those of the model card, and the pictures
    into docs/figures.

    Raises:
        ValueError: if a document has no markers.
    """
    texts = {
        readme: between_markers(readme, summary(figures)),
        model_card: between_markers(model_card, markdown(figures)),
    }
    for document, text in texts.items():
        document.write_text(text)
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
