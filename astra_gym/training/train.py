"""Train a world on collected episodes and write its bundle: autoencoder → decoder → transformer, heads → bundle."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from safetensors.torch import load_file

from astra_gym.actions import MODALITIES, Modality
from astra_gym.bundles import Bundle, Start, StartBank, WorldConfig
from astra_gym.data.episodes import (
    LatentEpisodes,
    encoder_fingerprint,
    latent_episodes,
    load_blocks,
    read_scenario,
)
from astra_gym.files import write_json
from astra_gym.models.autoencoder import BlockAutoencoder
from astra_gym.models.heads import RewardHeads
from astra_gym.models.noise_prior import NoisePrior
from astra_gym.models.transformer import AstraTransformer
from astra_gym.precision import computes_in_bf16
from astra_gym.sampler import FlowConfig
from astra_gym.training.arguments import BEFORE_END, TrainArgs, checked_scenarios, modality_of
from astra_gym.training.autoencoder import AutoencoderStage
from astra_gym.training.clips import ClipSampler
from astra_gym.training.loop import LoopConfig, run_stage
from astra_gym.training.world import WorldModel, WorldStage

SAMPLING = "sampling.json"
"""File of a run: how the transformer that it trained makes a block."""


def train(args: TrainArgs) -> Path:
    """Run the stages that ``args`` names and return the bundle's folder.

    Raises:
        ValueError: on an unknown stage or scenario, a device that is not there, a number out of its range, frames that
            no world can learn, or a part to train that is in no tensor's name.
        FileNotFoundError: if data, or the result of an earlier stage, is missing.
    """
    scenarios = checked_scenarios(args)
    torch.manual_seed(args.seed)
    PartialState(cpu=args.device == "cpu")
    _train_autoencoder(args, scenarios)
    if "world" in args.stages or "bundle" in args.stages:
        autoencoder = _finished(args, BlockAutoencoder, "autoencoder").to(args.device)
        with PartialState().main_process_first():  # which leaves the others the cache
            training, validation = (
                {name: latent_episodes(args.data / name / split, autoencoder, args.bf16) for name in scenarios}
                for split in ("train", "val")
            )
        if "world" in args.stages:
            _train_world(args, autoencoder, training, validation)
        if "bundle" in args.stages and PartialState().is_main_process:
            _write_bundle(args, autoencoder, training, validation)
    return args.output or args.run / "bundle"


def _load(cls, folder: Path):
    module = cls.from_pretrained(folder, torch_dtype=torch.float32, low_cpu_mem_usage=False)
    return module.eval().requires_grad_(False)


def _sources(args: TrainArgs, part: str) -> list[Path]:
    """The folders that have a part, that of the run first, then the bundle to go on from."""
    return [folder for folder in (args.run, args.init_from) if folder is not None and (folder / part).is_dir()]


def _finished(args: TrainArgs, cls, part: str):
    """A part that an earlier stage has trained, else that of the bundle to go on from."""
    for folder in _sources(args, part):
        return _load(cls, folder / part)
    stage = "autoencoder" if part == "autoencoder" else "world"
    raise FileNotFoundError(f"run: {args.run / part} is missing; run the stage {stage!r} first")


def _sampling(args: TrainArgs) -> tuple[int, FlowConfig]:
    """Denoising steps and schedule that the finished transformer was trained for."""
    source = _sources(args, "transformer")[0]
    if source == args.run and (source / SAMPLING).exists():
        trained = json.loads((source / SAMPLING).read_text())
        return trained["steps"], FlowConfig(**trained["flow"])
    if source != args.run:
        config = WorldConfig.load(source)
        return config.num_inference_steps, config.flow
    return args.world_loss.denoising_steps, args.flow


def seeded(args: TrainArgs, config: LoopConfig) -> LoopConfig:
    """A stage's settings, with the training's seed where it has none of its own."""
    return config if config.seed is not None else replace(config, seed=args.seed)


def _save(module: Any, folder: Path) -> None:
    """Let the first process save a part, and all others wait for it."""
    if PartialState().is_main_process:
        module.save_pretrained(folder)
    PartialState().wait_for_everyone()


def _go_on_from(args: TrainArgs, module: torch.nn.Module, part: str) -> None:
    """Copy into ``module`` whatever fits of the same part of the bundle to go on from."""
    if args.init_from is None:
        return
    if not (args.init_from / part).is_dir():
        raise FileNotFoundError(f"init_from: {args.init_from} has no {part}")
    values = load_file(args.init_from / part / "diffusion_pytorch_model.safetensors")
    own = module.state_dict()
    wanted = [key for key in own if not any(name in key for name in args.init_without)]
    fitting = {key: values[key] for key in wanted if key in values and own[key].shape == values[key].shape}
    print(f"{part}: {len(fitting)} of {len(own)} tensors from {args.init_from}")
    module.load_state_dict(fitting, strict=False)


def _train_autoencoder(args: TrainArgs, scenarios: list[str]) -> None:
    """The first two stages: the whole autoencoder, then its decoder alone."""
    if not {"autoencoder", "decoder"}.intersection(args.stages):
        return
    train = {name: load_blocks(args.data / name / "train") for name in scenarios}
    validation = {name: load_blocks(args.data / name / "val") for name in scenarios}
    folder, device = args.run / "autoencoder", torch.device(args.device)
    common: dict[str, Any] = {"batch_size": args.autoencoder_batch_size, "bf16": computes_in_bf16(device, args.bf16)}
    if "autoencoder" in args.stages:
        model = BlockAutoencoder(latent_channels=args.latent_channels)
        _go_on_from(args, model, "autoencoder")
        stage = AutoencoderStage(model.to(device), train, validation, **common)
        run_stage(stage, seeded(args, args.autoencoder), args.run, device)
        _save(model, folder)
    if "decoder" in args.stages:
        model = _finished(args, BlockAutoencoder, "autoencoder").requires_grad_(True).to(device)
        stage = AutoencoderStage(
            model, train, validation, **common, edge_weight=args.decoder_edge_weight, decoder_only=True
        )
        run_stage(stage, seeded(args, args.decoder), args.run, device, encoder_fingerprint(model))
        _save(model, folder)


def _train_world(
    args: TrainArgs,
    autoencoder: BlockAutoencoder,
    training: dict[str, LatentEpisodes],
    validation: dict[str, LatentEpisodes],
) -> None:
    transformer, heads, prior = _new_world(args, autoencoder, training)
    _go_on_from(args, transformer, "transformer")
    _go_on_from(args, heads, "heads")
    if args.init_from is not None and (args.init_from / "prior").is_dir():
        _go_on_from(args, prior, "prior")
    frames = args.world_loss.clip_frames
    samplers = {name: ClipSampler(data, modality_of(args, name), frames) for name, data in training.items()}
    deviations = {name: sampler.rows[sampler.known].std(0) for name, sampler in samplers.items()}
    model = WorldModel(transformer, heads, prior, deviations).to(args.device)
    if args.train_only:
        _freeze_all_but(model, args.train_only)
    stage = WorldStage(
        model,
        samplers,
        {name: ClipSampler(data, modality_of(args, name), frames) for name, data in validation.items()},
        autoencoder,
        args.world.steps,
        args.world_loss,
        args.flow,
        bf16=computes_in_bf16(args.device, args.bf16),
    )
    run_stage(stage, seeded(args, args.world), args.run, torch.device(args.device), encoder_fingerprint(autoencoder))
    _save(transformer, args.run / "transformer")
    _save(heads, args.run / "heads")
    if args.world_loss.nat_price:
        _save(prior, args.run / "prior")
    elif PartialState().is_main_process:
        shutil.rmtree(args.run / "prior", ignore_errors=True)
    if PartialState().is_main_process:
        write_json(args.run / SAMPLING, {"steps": args.world_loss.denoising_steps, "flow": vars(args.flow)})


def _freeze_all_but(model: torch.nn.Module, parts: tuple[str, ...]) -> None:
    """Let only those tensors learn whose name holds one of ``parts``.

    Raises:
        ValueError: if one of these is in no name.
    """
    names = [name for name, _ in model.named_parameters()]
    if unknown := [part for part in parts if not any(part in name for name in names)]:
        raise ValueError(f"train_only: no tensor's name holds {unknown[0]!r}; names are such as {names[:3]}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in name for part in parts))


def _new_world(
    args: TrainArgs, autoencoder: BlockAutoencoder, training: dict[str, LatentEpisodes]
) -> tuple[AstraTransformer, RewardHeads, NoisePrior]:
    size = args.transformer
    any_latents = next(iter(training.values())).latents
    transformer = AstraTransformer(
        in_channels=autoencoder.config.latent_channels,
        latent_size=tuple(any_latents.shape[-2:]),
        num_attention_heads=size.heads,
        attention_head_dim=size.head_dim,
        num_layers=size.layers,
        ffn_dim=size.ffn_dim,
        window=size.window,
        summary_window=size.summary_window,
        modalities={name: modality_of(args, name).row_dim for name in training},
        scenario_prompt=True,
        action_modulation=True,
        num_experts=size.experts,
        top_k=size.top_k,
    )
    heads = RewardHeads(
        feature_dim=2 * size.heads * size.head_dim,
        action_dim=transformer.config.action_dim,
        rewards={name: _reward_scale(data) for name, data in training.items()},
    )
    prior = NoisePrior(
        transformer.config.in_channels,
        transformer.config.latent_size,
        feature_dim=heads.config.feature_dim,
        action_dim=heads.config.action_dim,
    )
    return transformer, heads, prior


def _reward_scale(data: LatentEpisodes) -> tuple[float, float]:
    """Mean and standard deviation of the rewards that end no episode."""
    ordinary = data.rewards[~data.terminations & ~data.actions.isnan().any(-1)]
    return float(ordinary.mean()), float(ordinary.std()) or 1.0


def _write_bundle(
    args: TrainArgs,
    autoencoder: BlockAutoencoder,
    training: dict[str, LatentEpisodes],
    validation: dict[str, LatentEpisodes],
) -> None:
    transformer = _finished(args, AstraTransformer, "transformer")
    steps, flow = _sampling(args)
    has_prior = (_sources(args, "transformer")[0] / "prior").is_dir()
    endings = {name: data.rewards[data.terminations] for name, data in training.items()}
    config = WorldConfig(
        frames_per_block=autoencoder.config.frames_per_block,
        frame_size=8 * transformer.config.latent_size[0],
        num_inference_steps=steps,
        temperatures=args.temperatures,
        flow=flow,
        termination_rewards={name: float(e.mean()) for name, e in endings.items() if len(e)},
        own_scenarios={name: read_scenario(args.data / name / "train") for name in training if name not in MODALITIES},
    )
    length = transformer.config.window + transformer.config.summary_window
    bundle = Bundle(
        config=config,
        transformer=transformer,
        autoencoder=autoencoder.cpu(),
        heads=_finished(args, RewardHeads, "heads"),
        prior=_finished(args, NoisePrior, "prior") if has_prior else None,
        starts={
            name: make_start_bank(data, modality_of(args, name), args.starts, length)
            for name, data in validation.items()
        },
    )
    bundle.save(args.output or args.run / "bundle")


def make_start_bank(data: LatentEpisodes, modality: Modality, count: int, length: int) -> StartBank:
    """Starts of ``length`` blocks in the midst of episodes that go well.

    They are spread over the episodes and over the time within them. An episode goes well where no ending is near and
    its last ``length`` rewards add up to at least what they do at half of all such places.

    Raises:
        ValueError: if no place in the data goes well.
    """
    rows = data.rows(modality)
    places, earned = [], []
    for episode, (first, last) in enumerate(zip(data.offsets[:-1].tolist(), data.offsets[1:].tolist(), strict=True)):
        for place in range(first + length, last - BEFORE_END):
            places.append((episode, first, place))
            earned.append(float(data.rewards[place - length : place].sum()))
    if not places:
        raise ValueError(f"data: no episode goes on for {BEFORE_END} blocks after {length} others")
    enough = float(np.median(earned))
    candidates = [place for place, reward in zip(places, earned, strict=True) if reward >= enough]
    starts = []
    for k in range(min(count, len(candidates))):
        episode, first, place = candidates[int((k + 0.5) * len(candidates) / min(count, len(candidates)))]
        starts.append(
            Start(
                latents=data.latents[place - length : place],
                rows=rows[place - length : place],
                sim_seed=int(data.seeds[episode]),
                sim_actions=data.actions[first + 1 : place].numpy(),
            )
        )
    return StartBank.from_starts(starts)
