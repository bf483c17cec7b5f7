"""Speed, memory and precision of the released model at full size, with random weights: nothing need be downloaded.

A checkpoint in the released layout is made, converted, loaded and stepped; a table says what each of it took.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

from astra_gym.conditions import check_size
from astra_gym.convert import RELEASED_MODALITIES, transformer_plan, write_transformer
from astra_gym.evaluation.machine import matrix_rate, measure_memory, median_seconds
from astra_gym.models.packing import window_rows
from astra_gym.models.transformer import AstraTransformer
from astra_gym.precision import usable_device
from astra_gym.velocity import VelocitySampler

ROW_DIMS = {"sekai": 13, "nuscenes": 8, "openx": 13}


@dataclass
class BenchArgs:
    """Measure the released model's speed, memory and precision, with random weights."""

    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to compute."""
    height: int = 480
    """Of the video in pixels."""
    width: int = 832
    """Of the video in pixels."""
    history: int = 20
    """Latent frames of history."""
    new: int = 8
    """Latent frames in a block."""
    steps: int = 50
    """Denoising steps that a block's time is told for."""
    passes: int = 5
    """Passes to time; the median counts."""
    layers: int = 30
    """Transformer blocks; fewer are quicker to try."""
    compare_float32: bool = True
    """Also load the weights in float32, to tell bfloat16's error."""
    compile: bool = False
    """Compile the transformer first."""
    folder: Path | None = None
    """Where to put the checkpoint and the converted weights (6 GB); None is a temporary folder."""


def bench(args: BenchArgs) -> str:
    """Run the measurements.

    Returns:
        The table.
    """
    check_size(args.height, args.width)
    with TemporaryDirectory(dir=args.folder) as temporary:
        return _bench(args, Path(temporary))


def _bench(args: BenchArgs, folder: Path) -> str:
    shapes = released_shapes(layers=args.layers)
    write_random_checkpoint(folder / "random.ckpt", shapes)
    device = usable_device(args.device)
    rows: list[tuple[str, str]] = [("device", _device_name(device))]

    def convert() -> None:
        plan, config = transformer_plan(folder / "random.ckpt")
        write_transformer(plan, config, folder / "transformer")

    seconds, peak = measure_memory(convert)
    (folder / "random.ckpt").unlink()
    weight_bytes = sum(path.stat().st_size for path in (folder / "transformer").glob("*.safetensors"))
    rows += [
        ("weights", f"{weight_bytes / 1e9:.2f} GB in bfloat16, {args.layers} blocks"),
        ("conversion", f"{seconds:.1f} s, {peak / 1e9:.2f} GB of memory"),
    ]
    models: list[AstraTransformer] = []

    def load() -> None:
        models.append(_load(folder, torch.bfloat16))
        for parameter in models[0].parameters():
            parameter.sum()  # the weights are mapped: only this brings them into memory

    seconds, peak = measure_memory(load)
    rows.append(("loading", f"{seconds:.1f} s, {peak / 1e9:.2f} GB of memory: {peak / weight_bytes:.2f} x the weights"))

    transformer = models.pop().to(device)
    if args.compile:
        transformer.compile()
    inputs = _Inputs(args, device)
    guided_seconds: dict[float, float] = {}
    for guidance in (1.0, 2.0):
        sampler = inputs.sampler(transformer, guidance)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        one_pass = partial(inputs.velocity, sampler)
        _, peak = measure_memory(one_pass)
        guided_seconds[guidance] = median_seconds(one_pass, args.passes, device)
        rows.append((_name(guidance), _timing(args, guided_seconds[guidance])))
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device)
            rows.append(("  memory", f"{peak / 1e9:.2f} GB on the device, weights included"))
        else:
            rows.append(("  memory", f"{peak / 1e9:.2f} GB beside the weights"))
    rate = matrix_rate(device, torch.bfloat16)
    flops = pass_flops(inputs.tokens, layers=args.layers)
    floor = flops / rate
    rows += [
        (
            "arithmetic",
            f"{flops / 1e12:.3f} TFLOP a pass, {inputs.tokens} tokens; matrix rate {rate / 1e12:.2f} TFLOP/s",
        ),
        ("floor", f"{1000 * floor:.1f} ms a pass; it takes {guided_seconds[1.0] / floor:.2f} x as long"),
    ]
    if args.compare_float32:
        half = inputs.velocity(inputs.sampler(transformer, 1.0))
        del transformer, sampler, one_pass
        gc.collect()
        full = inputs.velocity(inputs.sampler(_load(folder, torch.float32).to(device), 1.0))
        error = (half - full).square().mean().sqrt() / full.square().mean().sqrt()
        rows.append(("bfloat16", f"differs from float32 by {100 * error:.2f} % (root mean square of the velocity)"))
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:{width}}  {value}" for name, value in rows)


def released_shapes(
    layers: int = 30, dim: int = 1536, ffn_dim: int = 8960, text_dim: int = 4096, channels: int = 16, code_dim: int = 25
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the released checkpoint."""
    shapes: dict[str, tuple[int, ...]] = {}

    def linear(name: str, inputs: int, outputs: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (outputs, inputs), (outputs,)

    convolutions = {"patch_embedding": (1, 2, 2), "clean_x_embedder.proj": (1, 2, 2)}
    convolutions |= {"clean_x_embedder.proj_2x": (2, 4, 4), "clean_x_embedder.proj_4x": (4, 8, 8)}
    for name, kernel in convolutions.items():
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (dim, channels, *kernel), (dim,)
    linear("text_embedding.0", text_dim, dim)
    linear("text_embedding.2", dim, dim)
    linear("time_embedding.0", 256, dim)
    linear("time_embedding.2", dim, dim)
    linear("time_projection.1", dim, 6 * dim)
    for modality in RELEASED_MODALITIES:
        linear(f"{modality}_processor.projector.0", ROW_DIMS[modality], code_dim)
    linear("global_router", code_dim, len(RELEASED_MODALITIES))
    for i in range(layers):
        block = f"blocks.{i}"
        shapes[f"{block}.modulation"] = (1, 6, dim)
        for attention in ("self_attn", "cross_attn"):
            for part in "qkvo":
                linear(f"{block}.{attention}.{part}", dim, dim)
            shapes[f"{block}.{attention}.norm_q.weight"] = shapes[f"{block}.{attention}.norm_k.weight"] = (dim,)
        shapes[f"{block}.norm3.weight"] = shapes[f"{block}.norm3.bias"] = (dim,)
        linear(f"{block}.ffn.0", dim, ffn_dim)
        linear(f"{block}.ffn.2", ffn_dim, dim)
        linear(f"{block}.projector", dim, dim)
        linear(f"{block}.cam_encoder", 13, dim)
        for expert in range(len(RELEASED_MODALITIES)):
            linear(f"{block}.moe.experts.{expert}.0", code_dim, dim)
    shapes["head.modulation"] = (1, 2, dim)
    linear("head.head", dim, 4 * channels)
    return shapes


def write_random_checkpoint(path: Path, shapes: dict[str, tuple[int, ...]], seed: int = 0) -> None:
    """A pickled state dict of those shapes in bfloat16: norms are one, the rest random and scaled by its inputs."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(2**20 + 7, generator=generator).bfloat16()  # repeated: drawing a billion numbers takes minutes
    tensors: dict[str, Tensor] = {}
    for name, shape in shapes.items():
        if "norm" in name:
            tensors[name] = torch.ones(shape, dtype=torch.bfloat16)
            continue
        tensor = torch.empty(shape, dtype=torch.bfloat16)
        flat = tensor.view(-1)
        for start in range(0, len(flat), len(noise)):
            flat[start : start + len(noise)] = noise[: len(flat) - start]
        tensors[name] = tensor.mul_(0.7 * tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.02)
    torch.save(tensors, path)


def pass_flops(tokens: int, layers: int = 30, dim: int = 1536, ffn_dim: int = 8960, text_tokens: int = 512) -> float:
    """Floating point operations of one forward pass, text keys and values computed before."""
    linear = 2 * (7 * dim**2 + 2 * dim * ffn_dim)  # q, k, v, o, projector, q and o of cross-attention; FFN
    attention = 4 * dim * (tokens + text_tokens)
    return float(tokens * layers * (linear + attention))


def _load(folder: Path, dtype: torch.dtype) -> AstraTransformer:
    return AstraTransformer.from_pretrained(folder / "transformer", dtype=dtype).eval().requires_grad_(False)


class _Inputs:
    """Random latents, actions and text of the size that is measured."""

    def __init__(self, args: BenchArgs, device: torch.device):
        generator = torch.Generator().manual_seed(1)
        size = (args.height // 8, args.width // 8)
        self.history = torch.randn(1, args.history, 16, *size, generator=generator).to(device)
        self.noise = torch.randn(1, args.new, 16, *size, generator=generator).to(device)
        self.text = torch.randn(1, 512, 4096, generator=generator).to(device)
        rows = torch.randn(args.history + args.new, ROW_DIMS["sekai"], generator=generator)
        self.rows = window_rows(rows, args.history, args.new).to(device)
        self.tokens = 0

    @torch.no_grad()
    def sampler(self, transformer: AstraTransformer, guidance: float) -> VelocitySampler:
        packed = transformer.pack(self.history.to(transformer.dtype), self.noise.shape[1])
        self.tokens = len(packed.rows)
        context = transformer.embed_text(self.text.to(transformer.dtype))
        return VelocitySampler(transformer, packed, self.rows, "sekai", context, guidance)

    @torch.no_grad()
    def velocity(self, sampler: VelocitySampler) -> Tensor:
        return sampler.velocity(self.noise, 0.731)


def _name(guidance: float) -> str:
    return "pass" if guidance == 1 else "pass, guided"


def _timing(args: BenchArgs, seconds: float) -> str:
    size = f"{args.height}x{args.width}, {args.history} + {args.new} latent frames"
    return f"{1000 * seconds:.1f} ms at {size}; a block in {args.steps} steps {args.steps * seconds:.1f} s"


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
