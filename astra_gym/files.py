"""Files that are whole at any moment."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Where to write what shall be at ``path``: it gets there when the context ends.

    An error or a kill at any moment leaves the file that was there before, if any. Folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".unfinished-{path.name}")
    try:
        yield unfinished
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def give_usual_permissions(path: Path) -> None:
    """Let those read a file who may read what else this process writes: safetensors writes for the owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def save_tensors(tensors: dict[str, Any], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write ``tensors`` as safetensors, to be read by whoever may read the files beside it."""
    from safetensors.torch import save_file

    save_file(tensors, path, metadata)
    give_usual_permissions(path)


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` as JSON, see :func:`replacing`."""
    with replacing(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n")
