"""What the documents point to exists: files, headings, commands and their arguments."""

import importlib
import re
import shlex
from pathlib import Path

import pytest
import tyro

from astra_gym.cli import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
CARD = ROOT / "astra_gym/pretrained/small/README.md"
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", CARD, *sorted((ROOT / "docs").glob("*.md"))]
LOG = ROOT / "docs/training.md"
"""The training log. Its commands are those of their day and leave out what repeats, so they are not parsed."""


def anchors(document: Path) -> set[str]:
    """The names by which a document's headings are linked to, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(document: Path) -> list[str]:
    """The ``astra-gym`` commands in a document's blocks of shell, one a line, without comments."""
    blocks = re.findall(r"^```bash\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    found = [re.search(r"(?<![\w/-])astra-gym .*", line.split("#")[0]) for line in lines]
    return [match[0].split(";")[0] for match in found if match]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    missing = []
    for link in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = document.parent / path if path else document
        if not target.exists() or anchor and anchor not in anchors(target):
            missing.append(link)
    assert not missing


def test_every_command_is_in_the_documents():
    shown = {line.split()[1] for document in DOCUMENTS for line in commands(document)}
    assert shown >= set(COMMANDS)


@pytest.mark.parametrize("line", sorted({line for each in DOCUMENTS if each != LOG for line in commands(each)}))
def test_commands_have_the_arguments_that_documents_give(line):
    words = shlex.split(re.sub(r"\$\w+", "0", line))
    command = COMMANDS[words[1]]
    arguments = getattr(importlib.import_module(command.module), command.arguments)
    tyro.cli(arguments, args=words[2:])
