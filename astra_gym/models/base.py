"""What all models are built on: diffusers' saving, loading and configuration, ready in half the time.

diffusers imports PyTorch's compiler to mark its own blocks for it, which takes longer than all the rest, and goes
without it where there is none. So there is none until its import is over.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from astra_gym.files import give_usual_permissions


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """As if there were no such module, unless it is imported already."""
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # which makes its import fail
    try:
        yield
    finally:
        del sys.modules[module]


with _hidden("torch._dynamo"):
    from diffusers.configuration_utils import ConfigMixin, register_to_config
    from diffusers.models.modeling_utils import ModelMixin as DiffusersModel
    from diffusers.utils.accelerate_utils import apply_forward_hook

__all__ = ["ConfigMixin", "ModelMixin", "apply_forward_hook", "register_to_config"]


class ModelMixin(DiffusersModel):
    """That of diffusers, whose pipelines look for this name beside a model's class, in less time.

    ``device`` and ``dtype`` are those of the first parameter, unless hooks of diffusers may have moved or cast it. To
    look for those takes a walk over all modules, and importing them PyTorch's compiler.
    """

    _supports_gradient_checkpointing = False

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """As in diffusers, but whoever may read the config may read the weights beside it, and it does not say from
        which folder of this machine they once came."""
        super().save_pretrained(save_directory, *args, **kwargs)
        config = Path(save_directory) / "config.json"
        settings = json.loads(config.read_text())
        settings.pop("_name_or_path", None)
        config.write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n")
        for weights in Path(save_directory).glob("*.safetensors"):
            give_usual_permissions(weights)

    @property
    def device(self) -> torch.device:
        return super().device if "diffusers.hooks" in sys.modules else next(self.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return super().dtype if "diffusers.hooks" in sys.modules else next(self.parameters()).dtype
