"""Weights of others brought to ours: every key accounted for, read and written a tensor at a time.

Three parts: :class:`Checkpoint` reads weights lazily, the ``*_names`` functions say what each is called here, and
:func:`write_weights` checks that nothing is unknown, missing or misshapen, then streams them into safetensors shards.
"""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from astra_gym.files import save_tensors

LISTED = 6
"""Keys that an error message names of each kind; the rest it counts."""


@dataclass
class Checkpoint:
    """Names and shapes of weights on disk, and the tensors when they are asked for."""

    path: Path
    shapes: dict[str, tuple[int, ...]]
    read: Callable[[str], Tensor]
    """The tensor of a name; it may be mapped from the file."""

    @classmethod
    def from_pickle(cls, path: Path) -> Checkpoint:
        """A state dict that ``torch.save`` wrote. Only tensors are unpickled, and they stay on disk until read.

        Raises:
            ValueError: if the file is missing, truncated or no state dict.
        """
        if not path.is_file():
            raise ValueError(f"checkpoint: there is no file {str(path)!r}")
        try:
            tensors = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, KeyError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ValueError(f"checkpoint: {str(path)!r} is truncated or no torch state dict ({reason})") from None
        if not isinstance(tensors, dict) or not all(isinstance(value, Tensor) for value in tensors.values()):
            raise ValueError(f"checkpoint: {str(path)!r} is no plain state dict, a mapping from names to tensors")
        return cls(path, {name: tuple(tensor.shape) for name, tensor in tensors.items()}, tensors.__getitem__)

    @classmethod
    def from_safetensors(cls, folder: Path) -> Checkpoint:
        """All ``*.safetensors`` files of a folder together.

        Raises:
            ValueError: if there is none, or one is truncated or corrupt.
        """
        files = sorted(folder.glob("*.safetensors"))
        if not files:
            raise ValueError(f"checkpoint: {str(folder)!r} has no .safetensors file")
        shapes, places = {}, {}
        for path in files:
            try:
                with safe_open(path, "pt") as file:
                    for name in file.keys():  # noqa: SIM118  (safe_open is no mapping)
                        shapes[name], places[name] = tuple(file.get_slice(name).get_shape()), path
            except SafetensorError as error:
                raise ValueError(f"checkpoint: {str(path)!r} is truncated or corrupt ({error})") from None

        def read(name: str) -> Tensor:
            with safe_open(places[name], "pt") as file:
                return file.get_tensor(name)

        return cls(folder, shapes, read)


Names = Mapping[str, str | None]
"""From a checkpoint's names to ours; None for what is left out. Several names may go to one, which stacks them."""

ASTRA_NAMES: tuple[tuple[str, str | None], ...] = (
    (r"(patch_embedding)\.(weight|bias)", r"\1.\2"),
    (r"(text_embedding)\.([02])\.(weight|bias)", r"\1.\2.\3"),
    (r"time_embedding\.0\.(weight|bias)", r"time_embedding.linear_1.\1"),
    (r"time_embedding\.2\.(weight|bias)", r"time_embedding.linear_2.\1"),
    (r"time_projection\.1\.(weight|bias)", r"time_embedding.projection.\1"),
    (r"clean_x_embedder\.(proj|proj_2x|proj_4x)\.(weight|bias)", r"history_embedding.\1.\2"),
    (r"(\w+)_processor\.projector\.0\.(weight|bias)", r"action_encoder.projectors.\1.\2"),
    (r"global_router\.(weight|bias)", r"action_encoder.router.\1"),
    (r"(blocks\.\d+)\.modulation", r"\1.scale_shift_table"),
    (r"(blocks\.\d+)\.self_attn\.([qkv])\.(weight|bias)", r"\1.attn1.to_\2.\3"),
    (r"(blocks\.\d+)\.self_attn\.o\.(weight|bias)", r"\1.attn1.to_out.\2"),
    (r"(blocks\.\d+)\.self_attn\.(norm_[qk])\.weight", r"\1.attn1.\2.weight"),
    (r"(blocks\.\d+)\.cross_attn\.([qkv])\.(weight|bias)", r"\1.attn2.to_\2.\3"),
    (r"(blocks\.\d+)\.cross_attn\.o\.(weight|bias)", r"\1.attn2.to_out.\2"),
    (r"(blocks\.\d+)\.cross_attn\.(norm_[qk])\.weight", r"\1.attn2.\2.weight"),
    (r"(blocks\.\d+)\.norm3\.(weight|bias)", r"\1.norm2.\2"),
    (r"(blocks\.\d+)\.ffn\.0\.(weight|bias)", r"\1.ffn.linear_in.\2"),
    (r"(blocks\.\d+)\.ffn\.2\.(weight|bias)", r"\1.ffn.linear_out.\2"),
    (r"(blocks\.\d+\.projector)\.(weight|bias)", r"\1.\2"),
    (r"(blocks\.\d+)\.moe\.experts\.\d+\.0\.(weight|bias)", r"\1.experts.\2"),
    (r"blocks\.\d+\.cam_encoder\.(weight|bias)", None),  # not used where there are experts
    (r"head\.head\.(weight|bias)", r"proj_out.\1"),
    (r"head\.modulation", r"scale_shift_table"),
)
"""Astra's names to :class:`~astra_gym.models.transformer.AstraTransformer`'s."""

UMT5_NAMES: tuple[tuple[str, str | None], ...] = (
    (r"token_embedding\.weight", r"shared.weight"),
    (r"blocks\.(\d+)\.norm1\.weight", r"encoder.block.\1.layer.0.layer_norm.weight"),
    (r"blocks\.(\d+)\.attn\.([qkvo])\.weight", r"encoder.block.\1.layer.0.SelfAttention.\2.weight"),
    (
        r"blocks\.(\d+)\.pos_embedding\.embedding\.weight",
        r"encoder.block.\1.layer.0.SelfAttention.relative_attention_bias.weight",
    ),
    (r"blocks\.(\d+)\.norm2\.weight", r"encoder.block.\1.layer.1.layer_norm.weight"),
    (r"blocks\.(\d+)\.ffn\.gate\.0\.weight", r"encoder.block.\1.layer.1.DenseReluDense.wi_0.weight"),
    (r"blocks\.(\d+)\.ffn\.fc1\.weight", r"encoder.block.\1.layer.1.DenseReluDense.wi_1.weight"),
    (r"blocks\.(\d+)\.ffn\.fc2\.weight", r"encoder.block.\1.layer.1.DenseReluDense.wo.weight"),
    (r"norm\.weight", r"encoder.final_layer_norm.weight"),
)
"""Names of Wan2.1's original text encoder to those of transformers' ``UMT5EncoderModel``."""


def rename(checkpoint: Checkpoint, table: tuple[tuple[str, str | None], ...]) -> Names:
    """Apply a table of patterns to a checkpoint's names; a name that no pattern knows keeps itself."""
    names: dict[str, str | None] = {}
    for name in checkpoint.shapes:
        for pattern, ours in table:
            if match := re.fullmatch(pattern, name):
                names[name] = None if ours is None else match.expand(ours)
                break
        else:
            names[name] = name
    return names


def wan_vae_names(checkpoint: Checkpoint) -> Names:
    """Names of Wan2.1's original autoencoder to those of diffusers' ``AutoencoderKLWan``."""
    from diffusers.loaders.single_file_utils import convert_wan_vae_to_diffusers

    converted = convert_wan_vae_to_diffusers({name: name for name in checkpoint.shapes})
    return {name: ours for ours, name in converted.items()}


def astra_tensor(target: str, tensors: list[Tensor], latent_channels: int) -> Tensor:
    """One of our transformer's tensors from those of the released layout."""
    if re.fullmatch(r"blocks\.\d+\.experts\.(weight|bias)", target):
        return torch.stack(tensors)
    (tensor,) = tensors
    if target == "patch_embedding.weight":
        return tensor.flatten(1)
    if target.endswith("scale_shift_table"):
        return tensor.squeeze(0)
    if target.startswith("proj_out."):  # rows are (pixel, channel) there, (channel, pixel) here
        return tensor.unflatten(0, (-1, latent_channels)).transpose(0, 1).flatten(0, 1)
    return tensor


def only_tensor(target: str, tensors: list[Tensor]) -> Tensor:
    """The tensor as it is, for layouts that differ in names alone."""
    (tensor,) = tensors
    return tensor


class Plan:
    """Which tensors make which, checked against a model before anything is written.

    Args:
        checkpoint: the weights.
        names: from its names to the model's.
        model: shapes of the model's state dict.
        make: makes a tensor of the model, given its name and the checkpoint's tensors for it.

    Raises:
        ValueError: naming unknown, missing and misshapen keys.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        names: Names,
        model: Mapping[str, tuple[int, ...]],
        make: Callable[[str, list[Tensor]], Tensor] = only_tensor,
    ):
        self.checkpoint, self.make = checkpoint, make
        self.sources: dict[str, list[str]] = {}
        for name, ours in names.items():
            if ours is not None:
                self.sources.setdefault(ours, []).append(name)
        for sources in self.sources.values():
            sources.sort(key=_natural)
        unknown = [name for ours, sources in self.sources.items() if ours not in model for name in sources]
        missing = [ours for ours in model if ours not in self.sources]
        misshapen = [
            f"{' + '.join(self.sources[ours])} {[checkpoint.shapes[name] for name in self.sources[ours]]} for {shape}"
            for ours, shape in model.items()
            if ours in self.sources and self._shape(ours) != shape
        ]
        problems = [
            f"{kind} {_list(keys)}"
            for kind, keys in (("unknown", unknown), ("missing", missing), ("misshapen", misshapen))
            if keys
        ]
        if problems:
            raise ValueError(f"checkpoint: {str(checkpoint.path)!r} does not fit: {'; '.join(problems)}")

    def _shape(self, ours: str) -> tuple[int, ...] | None:
        try:
            sources = [torch.empty(self.checkpoint.shapes[name], device="meta") for name in self.sources[ours]]
            return tuple(self.make(ours, sources).shape)
        except (RuntimeError, ValueError):
            return None

    def tensor(self, ours: str) -> Tensor:
        """One tensor of the model."""
        return self.make(ours, [self.checkpoint.read(name) for name in self.sources[ours]])


def write_weights(
    plan: Plan, folder: Path, stem: str, dtype: torch.dtype | None = None, max_shard_bytes: int = 512 * 2**20
) -> None:
    """Stream a plan's tensors into safetensors shards, with their index if there are several.

    No more than one shard is in memory at a time. Weights of the same stem that the folder held are removed.

    Args:
        plan: what to write.
        folder: made if it is not there.
        stem: of the file names, "diffusion_pytorch_model" for diffusers, "model" for transformers.
        dtype: to convert to; None keeps each tensor's.
        max_shard_bytes: of a shard; a larger tensor has one for itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{stem}*.safetensors*"):  # an index of theirs would be read first
        old.unlink()
    shards: list[list[str]] = [[]]
    total = size = 0
    for name in sorted(plan.sources, key=_natural):
        tensor = plan.tensor(name)
        bytes_ = tensor.numel() * (dtype or tensor.dtype).itemsize
        if shards[-1] and size + bytes_ > max_shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size, total = size + bytes_, total + bytes_
    weight_map: dict[str, str] = {}
    for i, shard in enumerate(shards):
        suffix = f"-{i + 1:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        file_name = f"{stem}{suffix}.safetensors"
        tensors = {name: plan.tensor(name).to(dtype).contiguous() for name in shard}
        save_tensors(tensors, folder / file_name, {"format": "pt"})
        weight_map |= dict.fromkeys(shard, file_name)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _natural(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _list(keys: list[str]) -> str:
    more = f" and {len(keys) - LISTED} more" if len(keys) > LISTED else ""
    return ", ".join(keys[:LISTED]) + more
