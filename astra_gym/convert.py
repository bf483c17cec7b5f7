"""``astra-gym convert``: the released Astra checkpoint and Wan2.1's parts become one folder for ``AstraPipeline``."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

from astra_gym.checkpoints import (
    ASTRA_NAMES,
    UMT5_NAMES,
    Checkpoint,
    Plan,
    astra_tensor,
    rename,
    wan_vae_names,
    write_weights,
)
from astra_gym.models.transformer import AstraTransformer

VAE_FILE = "Wan2.1_VAE.pth"
TEXT_FILE = "models_t5_umt5-xxl-enc-bf16.pth"
TOKENIZER_FOLDER = "google/umt5-xxl"
HEAD_DIM = 128
"""Of an attention head in every released Wan model."""
SHIFT = 5.0
"""Of the released sampler's schedule."""
DTYPES = {"keep": None, "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class ConvertArgs:
    """Make one folder for AstraPipeline and the environments of the released Astra checkpoint and Wan2.1-T2V-1.3B."""

    astra: Path
    """Astra's checkpoint, diffusion_pytorch_model.ckpt."""
    wan: Path
    """Folder of Wan2.1-T2V-1.3B, with the original .pth files or as the -Diffusers repository."""
    output: Path
    """Folder to write."""
    num_heads: int | None = None
    """Attention heads; None is the width over 128, as in every released model."""
    dtype: Literal["keep", "float32", "bfloat16", "float16"] = "keep"
    """Number type of the transformer's and the text encoder's weights; keep leaves them as they are."""
    max_shard_mb: int = 512
    """Largest weight file, which is also about the memory that the conversion takes."""


def convert(args: ConvertArgs) -> str:
    """Convert; everything is checked before anything is written.

    Returns:
        A line that says what to do next.

    Raises:
        ValueError: naming the file and what is wrong with it.
    """
    transformer, config = transformer_plan(args.astra, args.num_heads)
    if (args.wan / VAE_FILE).is_file() or (args.wan / TEXT_FILE).is_file():
        vae, vae_config = _original_vae(args.wan / VAE_FILE)
        text, text_config = _original_text_encoder(args.wan / TEXT_FILE)
        tokenizer_folder = args.wan / TOKENIZER_FOLDER
    elif (args.wan / "model_index.json").is_file():
        vae, vae_config = _diffusers_vae(args.wan / "vae")
        text, text_config = _diffusers_text_encoder(args.wan / "text_encoder")
        tokenizer_folder = args.wan / "tokenizer"
    else:
        raise ValueError(
            f"wan: {str(args.wan)!r} is no Wan2.1 folder, it has neither {VAE_FILE}, {TEXT_FILE} nor model_index.json"
        )
    if text_config.d_model != config["text_dim"]:
        raise ValueError(
            f"wan: its text encoder is {text_config.d_model} wide, Astra's checkpoint expects {config['text_dim']}"
        )
    tokenizer = _tokenizer(tokenizer_folder)

    dtype, shard = DTYPES[args.dtype], args.max_shard_mb * 2**20
    write_transformer(transformer, config, args.output / "transformer", dtype, shard)
    write_weights(vae, args.output / "vae", "diffusion_pytorch_model", max_shard_bytes=shard)
    _write_config(args.output / "vae", vae_config)
    write_weights(text, args.output / "text_encoder", "model", dtype, shard)
    text_config.save_pretrained(args.output / "text_encoder")
    tokenizer.save_pretrained(args.output / "tokenizer")
    FlowMatchEulerDiscreteScheduler(shift=SHIFT).save_pretrained(args.output / "scheduler")
    index = {
        "_class_name": "AstraPipeline",
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
        "text_encoder": ["transformers", "UMT5EncoderModel"],
        "tokenizer": ["transformers", type(tokenizer).__name__],
        "transformer": ["astra_gym.models.transformer", "AstraTransformer"],
        "vae": ["diffusers", "AutoencoderKLWan"],
    }
    (args.output / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    return f"Wrote {args.output}. Try: astra-gym infer --model {args.output} --image PICTURE --preset 4"


def transformer_plan(path: Path, num_heads: int | None = None) -> tuple[Plan, dict[str, Any]]:
    """How a released checkpoint becomes our transformer, and the transformer's configuration.

    Raises:
        ValueError: naming what is wrong with the checkpoint.
    """
    checkpoint = Checkpoint.from_pickle(path)
    config = astra_config(checkpoint, num_heads)
    make = partial(astra_tensor, latent_channels=config["in_channels"])
    return Plan(checkpoint, rename(checkpoint, ASTRA_NAMES), _shapes(AstraTransformer, config), make), config


def write_transformer(
    plan: Plan, config: dict[str, Any], folder: Path, dtype: torch.dtype | None = None, max_shard_bytes: int = 2**29
) -> None:
    """Write the transformer's folder, for ``AstraTransformer.from_pretrained``."""
    write_weights(plan, folder, "diffusion_pytorch_model", dtype, max_shard_bytes)
    _write_config(folder, {"_class_name": "AstraTransformer", **config})


def astra_config(checkpoint: Checkpoint, num_heads: int | None = None) -> dict[str, Any]:
    """The transformer's configuration, as the shapes of a released checkpoint tell it.

    Raises:
        ValueError: if a key is missing that it takes, or the number of heads does not divide the width.
    """
    shapes = checkpoint.shapes

    def shape(name: str, dims: int) -> tuple[int, ...]:
        if len(shapes.get(name, ())) != dims:
            raise ValueError(
                f"checkpoint: {str(checkpoint.path)!r} is no Astra checkpoint: it has no {dims}-dimensional {name}"
            )
        return shapes[name]

    dim, channels, _, patch, _ = shape("patch_embedding.weight", 5)
    code_dim = shape("blocks.0.moe.experts.0.0.weight", 2)[1]
    heads = dim // HEAD_DIM if num_heads is None else num_heads
    if heads < 1 or dim % heads or (num_heads is None and dim % HEAD_DIM):
        raise ValueError(f"num_heads: got {num_heads}, allowed is a divisor of the width, {dim}")
    processors = [re.fullmatch(r"(\w+)_processor\.projector\.0\.weight", name) for name in shapes]
    expert_ids = {match[1] for name in shapes if (match := re.match(r"blocks\.0\.moe\.experts\.(\d+)\.", name))}
    block_ids = {match[1] for name in shapes if (match := re.match(r"blocks\.(\d+)\.", name))}
    return {
        "in_channels": channels,
        "patch_size": patch,
        "num_attention_heads": heads,
        "attention_head_dim": dim // heads,
        "num_layers": len(block_ids),
        "ffn_dim": shape("blocks.0.ffn.0.weight", 2)[0],
        "freq_dim": shape("time_embedding.0.weight", 2)[1],
        "text_dim": shape("text_embedding.0.weight", 2)[1],
        "attention": "packed",
        "condition_on_previous": False,
        "local_mixing": False,
        # In the order of their experts.
        "modalities": {
            name: shape(f"{name}_processor.projector.0.weight", 2)[1]
            for name in sorted((m[1] for m in processors if m), key=_expert_order)
        },
        "action_dim": code_dim,
        "action_hidden_dim": None,
        "num_experts": len(expert_ids),
        "top_k": 1,
        "routing": "fixed",
    }


RELEASED_MODALITIES = ("sekai", "nuscenes", "openx")


def _expert_order(name: str) -> int:
    if name not in RELEASED_MODALITIES:
        raise ValueError(f"checkpoint: got a {name}_processor, allowed are those of {RELEASED_MODALITIES}")
    return RELEASED_MODALITIES.index(name)


def _shapes(cls: type, config: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of a model's state dict, without making the model."""
    with torch.device("meta"):
        model = cls(config) if cls is UMT5EncoderModel else cls(**config)
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def _original_vae(path: Path) -> tuple[Plan, dict[str, Any]]:
    checkpoint = Checkpoint.from_pickle(path)
    first = checkpoint.shapes.get("encoder.conv1.weight", ())
    latent = checkpoint.shapes.get("conv2.weight", ())
    config = {"base_dim": first[0] if first else 0, "z_dim": latent[0] if latent else 0}
    return _vae_plan(checkpoint, wan_vae_names(checkpoint), config)


def _diffusers_vae(folder: Path) -> tuple[Plan, dict[str, Any]]:
    checkpoint = Checkpoint.from_safetensors(folder)
    config = {key: value for key, value in _read_config(folder).items() if not key.startswith("_")}
    return _vae_plan(checkpoint, {name: name for name in checkpoint.shapes}, config)


def _vae_plan(checkpoint: Checkpoint, names: Any, config: dict[str, Any]) -> tuple[Plan, dict[str, Any]]:
    stem = checkpoint.shapes.get("encoder.conv1.weight", checkpoint.shapes.get("encoder.conv_in.weight", ()))
    if config.get("z_dim") != 16 or len(stem) != 5 or stem[1] != 3:
        raise ValueError(f"wan: {str(checkpoint.path)!r} is not Wan2.1's autoencoder (16 latent channels, RGB)")
    plan = Plan(checkpoint, names, _shapes(AutoencoderKLWan, config))
    return plan, {"_class_name": "AutoencoderKLWan", **config}


def _original_text_encoder(path: Path) -> tuple[Plan, UMT5Config]:
    checkpoint = Checkpoint.from_pickle(path)
    shapes = checkpoint.shapes
    needed = ("token_embedding.weight", "blocks.0.pos_embedding.embedding.weight", "blocks.0.attn.q.weight")
    if absent := [name for name in (*needed, "blocks.0.ffn.fc1.weight") if len(shapes.get(name, ())) != 2]:
        raise ValueError(f"wan: {str(path)!r} is not Wan2.1's text encoder: {absent[0]} is missing")
    vocab_size, d_model = shapes["token_embedding.weight"]
    buckets, heads = shapes["blocks.0.pos_embedding.embedding.weight"]
    config = UMT5Config(
        vocab_size=vocab_size,
        d_model=d_model,
        d_kv=shapes["blocks.0.attn.q.weight"][0] // heads,
        d_ff=shapes["blocks.0.ffn.fc1.weight"][0],
        num_layers=len({name.split(".")[1] for name in shapes if name.startswith("blocks.")}),
        num_heads=heads,
        relative_attention_num_buckets=buckets,
    )
    return _text_plan(checkpoint, dict(rename(checkpoint, UMT5_NAMES)), config)


def _diffusers_text_encoder(folder: Path) -> tuple[Plan, UMT5Config]:
    checkpoint = Checkpoint.from_safetensors(folder)
    raw = _read_config(folder)
    if raw.get("model_type") != "umt5":
        kind = raw.get("model_type")
        raise ValueError(f"wan: {str(folder)!r} is not Wan2.1's text encoder, its model_type is {kind!r}")
    return _text_plan(checkpoint, {name: name for name in checkpoint.shapes}, UMT5Config.from_dict(raw))


def _text_plan(checkpoint: Checkpoint, names: dict[str, str | None], config: UMT5Config) -> tuple[Plan, UMT5Config]:
    shapes = _shapes(UMT5EncoderModel, config)
    copy = "encoder.embed_tokens.weight"  # the same tensor as shared.weight
    del shapes[copy]
    names = {name: None if ours == copy else ours for name, ours in names.items()}
    config.architectures = ["UMT5EncoderModel"]
    return Plan(checkpoint, names, shapes), config


def _tokenizer(folder: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ValueError(f"wan: there is no tokenizer in {str(folder)!r} ({reason})") from None


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        return json.loads((folder / "config.json").read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise ValueError(f"wan: {str(folder / 'config.json')!r} cannot be read ({error})") from None


def _write_config(folder: Path, config: dict[str, Any]) -> None:
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
