"""Third stage: the transformer with its action experts, and the heads, on cached latents.

A clip is trained in one pass as two streams (:func:`astra_gym.memory.training_mask`): its frames as history, each
corrupted by its own noise level, and the same frames as targets of flow matching. Later in training part of the history
is what the model itself generated from the clip's beginning, so that it learns to go on from its own mistakes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from astra_gym.memory import additive_mask, corrupt, history_noise_levels, training_mask
from astra_gym.models.action_experts import RoutedActions, load_balancing_loss, specialisation_loss
from astra_gym.models.autoencoder import BlockAutoencoder, unit_rms
from astra_gym.models.heads import RewardHeads
from astra_gym.models.noise_prior import NoisePrior
from astra_gym.models.transformer import AstraTransformer
from astra_gym.sampler import FlowConfig, predict_clean, shift_levels
from astra_gym.training.clips import ClipSampler, draw_jointly
from astra_gym.training.coupling import NoiseEncoder, coupled_noise, nats_and_surprise
from astra_gym.training.critic import LatentCritic, critic_loss, detail_loss, towards_real
from astra_gym.training.parallel import Draws
from astra_gym.training.pixels import pixel_loss
from astra_gym.training.reader import ActionReader, reader_losses
from astra_gym.training.rollout import RollOut, clip_fidelity


class WorldModel(nn.Module):
    """The transformer, the heads, the prior of noise, and what they are trained with: critic, reader, encoder of noise.

    Args:
        transformer, heads, prior: what becomes of the world.
        deviations: for each scenario, the standard deviation of each number of its rows of actions.
    """

    def __init__(
        self, transformer: AstraTransformer, heads: RewardHeads, prior: NoisePrior, deviations: dict[str, Tensor]
    ):
        super().__init__()
        self.transformer, self.heads, self.prior = transformer, heads, prior
        channels, names = transformer.config.in_channels, transformer.scenarios
        self.critic = LatentCritic(channels, len(names))
        self.reader = ActionReader(channels, transformer.config.latent_size, [deviations[name] for name in names])
        self.noise_encoder = NoiseEncoder(channels, transformer.config.latent_size, len(names))

    def scenario_numbers(self, scenarios: Sequence[str], shape: Sequence[int]) -> Tensor:
        """Which of the model's scenarios these are, for clips of ``shape (B, F)``."""
        names = self.transformer.scenarios
        numbers = torch.tensor([names.index(name) for name in scenarios], device=self.transformer.device)
        return numbers[:, None].expand(*shape)


@dataclass
class WorldLossConfig:
    """What is sampled and how it is weighed."""

    clip_frames: int = 8
    """Latent frames a clip."""
    batch_size: int = 16
    """Clips a step, each from a scenario drawn by chance."""
    scenario_weights: dict[str, float] = field(default_factory=dict)
    """How often a scenario is drawn, beside 1 for each that is not named: more where a world does badly."""
    good_share: float = 0.5
    """Share of the clips drawn from those that go well (reward above the mean) rather than from all."""
    ending_share: float = 0.06
    """Share of the clips drawn from those that end an episode, where the scenario has such, since they are rare."""
    action_dropout: float = 0.1
    """Share of the targets (and half of it of the history) whose action is hidden, for action-free guidance."""
    denoising_steps: int = 1
    """Steps from noise to a frame: of own history, of validation, and by default of the trained world."""
    pure_noise_share: float = 0.6
    """Share of the targets that are pure noise, from which a world that takes one denoising step makes its frames."""
    critic_weight: float = 2.0
    """How hard the critic pulls, when it is sure, at each number of a frame made from pure noise, where a squared
    error pulls twice as hard as the number is wrong; 0 for no critic. Each of several processes
    is as sure as its own share of the batch allows."""
    detail_weight: float = 0.25
    """How much it counts that such frames have as much detail as real ones, see
    :func:`astra_gym.training.critic.detail_loss`; without a critic it is not asked for."""
    reader_weight: float = 0.3
    """How much it counts that a reader of actions reads from frames made from pure noise what it reads from the true
    ones, see :mod:`astra_gym.training.reader`; 0 for no reader."""
    pixel_weight: float = 0.03
    """How much it counts that frames made from pure noise are decoded to the pixels that the true latents are decoded
    to, see :mod:`astra_gym.training.pixels`; 0 for not at all."""
    pixel_frames: int = 2
    """Frames that are decoded for it, times the clips of a batch."""
    pixel_window: int | None = None
    """Side in pixels of the windows whose errors it compares one by one, so that small things count; None compares
    whole frames."""
    pixel_age: int = 4
    """It counts where at most so many frames of the model's own come before: later the truth is no longer what follows,
    and in its mean things fade."""
    nat_price: float = 0.0
    """What a nat costs that the noise tells of the true frame, see :mod:`astra_gym.training.coupling`; 0 for
    independent noise."""
    nat_prices: dict[str, float] = field(default_factory=dict)
    """The same for scenarios in which it costs something else: more where little is left to chance."""
    prior_weight: float = 0.01
    """How much it counts that the prior expects the noise."""
    low_noise_share: float = 0.08
    """Share of the targets whose noise level is uniform; the others lie towards 1."""
    own_history_from: float = 0.5
    """Share of training after which part of the history is the model's own."""
    own_history_share: float = 0.5
    """Share of the steps that use own history from then on."""
    own_history_frames: int = 24
    """Longest run of own frames before a target, or as long as half of the episodes allow; it may be longer than a
    clip."""
    own_history_trust: float = 8.0
    """After so many own frames the error against the true next one counts half, after three times as many a quarter:
    the truth is then no longer what would have come, and its mean is blurred. The critic's pull stays."""
    head_weight: float = 0.1
    balance_weight: float = 0.02
    specialisation_weight: float = 0.02
    prompt_dropout: float = 0.2
    """Share of the clips whose scenario prompt is hidden, so that a world also goes on without one."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name.endswith("_share") and not 0 <= value <= 1:
                raise ValueError(f"{name}: got {value}, must be from 0 to 1")
        for name, least in (("clip_frames", 2), ("batch_size", 1), ("denoising_steps", 1), ("own_history_frames", 1)):
            if (number := getattr(self, name)) < least:
                raise ValueError(f"{name}: got {number}, allowed are whole numbers from {least}")
        if self.nat_prices and not self.nat_price:
            raise ValueError("nat_prices: got some with a nat_price of 0, which is for independent noise")

    def has_own_history(self, step: int, steps: int) -> bool:
        """Whether ``step`` of a training of ``steps`` goes on from the model's own history."""
        share = self.own_history_share
        return step / steps >= self.own_history_from and math.floor((step + 1) * share) > math.floor(step * share)


class _Made(NamedTuple):
    """What one pass has made of clips."""

    clean: Tensor
    """Predicted latents ``(B, F, C, h, w)``."""
    previous: Tensor
    """The frame before each, zeros where there is none to be used."""
    features: Tensor
    """``(B, 2 F, dim)``."""
    actions: RoutedActions
    """Tensors ``(B, 2 F, ...)``."""


class WorldStage:
    """Trains a :class:`WorldModel` for its scenarios jointly.

    Args:
        model: what to train.
        train, validation: for each scenario, clips of training and of held-out episodes.
        autoencoder: for the loss on pixels, and to validate in them.
        total_steps: of the whole training, for the schedule of own history.
        config, flow: settings.
        bf16: run the network in bfloat16 (autocast).
    """

    name = "world"

    def __init__(
        self,
        model: WorldModel,
        train: dict[str, ClipSampler],
        validation: dict[str, ClipSampler],
        autoencoder: BlockAutoencoder,
        total_steps: int,
        config: WorldLossConfig,
        flow: FlowConfig,
        bf16: bool = True,
    ):
        side, window = 8 * model.transformer.config.latent_size[0], config.pixel_window  # frames are square
        if window is not None and (window < 1 or side % window):
            raise ValueError(f"world_loss.pixel_window: got {window}, must divide a frame's side of {side} pixels")
        self.model, self.train, self.validation, self.autoencoder = model, train, validation, autoencoder
        self.total_steps, self.config, self.flow, self.bf16 = total_steps, config, flow, bf16
        # A clip with own history keeps a true frame before it and one after it.
        frames = max(config.clip_frames, config.own_history_frames + 2)
        frames = min(frames, *(sampler.usual_length for sampler in train.values()))
        self.train_long = {name: ClipSampler(each.data, each.modality, frames) for name, each in train.items()}
        device = model.transformer.device
        prices = [config.nat_prices.get(name, config.nat_price) for name in model.transformer.scenarios]
        self.nat_prices = torch.tensor(prices, device=device)
        mask = training_mask(config.clip_frames, model.transformer).to(device)
        self.mask = additive_mask(mask, torch.bfloat16 if bf16 else torch.float32)
        self.roll_out = RollOut(model, flow, config.denoising_steps, config.nat_price > 0, bf16)

    def _autocast(self):
        return torch.autocast(self.model.transformer.device.type, torch.bfloat16, enabled=self.bf16)

    def loss(self, step: int, draws: Draws) -> tuple[Tensor, dict[str, Tensor]]:
        config = self.config
        own = config.has_own_history(step, self.total_steps)
        clip, history, age = self._draw_own_history(draws) if own else self._draw(self.train, draws)
        truth = clip["latents"]
        shape = truth.shape[:2]

        history_level = history_noise_levels(draws.rand((*shape, 2)), self.flow.history_noise)
        uniform = draws.rand(shape)
        low = draws.rand(shape) < config.low_noise_share
        target_level = torch.where(low, uniform, shift_levels(uniform, self.flow.training_shift)).clamp(1e-3, 1.0)
        pure = draws.rand(shape) < config.pure_noise_share
        target_level = torch.where(pure, 1.0, target_level)
        hide = torch.cat([draws.rand(shape) < config.action_dropout / 2, draws.rand(shape) < config.action_dropout], 1)
        rows = torch.cat([clip["rows"], clip["rows"]], 1) * ~hide[..., None]
        scenario = self.model.scenario_numbers(clip["scenarios"], shape)
        usable = F.pad((history_level < self.flow.previous_limit)[:, :-1], (1, 0))
        if config.nat_price:
            before = _one_before(history)
            with self._autocast():
                noise, density = coupled_noise(self.model.noise_encoder, truth, before, scenario, usable, draws)
        else:
            noise = draws.randn(truth.shape)
        made = self._make(history, history_level, usable, truth, target_level, noise, rows, clip["scenarios"], draws)

        error = (made.clean - truth).square().mean((2, 3, 4))
        trust = 1 / (1 + age / config.own_history_trust)
        flow_loss = (error / (target_level**2 + 0.02) * trust).mean()
        reward_loss, termination_loss = self._head_losses(clip, made.features, made.actions, history_level)
        balance, entropy = load_balancing_loss(made.actions), specialisation_loss(made.actions)
        total = (
            flow_loss
            + config.head_weight * (reward_loss + termination_loss)
            + config.balance_weight * balance
            + config.specialisation_weight * entropy
        )
        numbers = {
            "flow": flow_loss,
            "error": error.mean(),
            "reward": reward_loss,
            "termination": termination_loss,
            "balance": balance,
            "entropy": entropy,
        }
        if config.nat_price:
            numbers |= self._price_noise(noise, density, made, scenario, usable)
            total = total + numbers["cost"] + config.prior_weight * numbers["surprise"]
        if config.critic_weight:
            # After frames of the model's own, the true next one is not what follows from the one before.
            shown = (draws.rand(shape) < 0.5) & (age == 0)
            judged = pure & usable
            numbers |= self._criticise(made, truth, scenario, judged, shown, draws)
            total = total + numbers["critic"] + config.detail_weight * numbers["detail"]
        if config.pixel_weight:
            numbers["pixels"] = self._compare_pixels(made.clean, truth, trust, pure & (age <= config.pixel_age), draws)
            total = total + config.pixel_weight * numbers["pixels"]
        if config.reader_weight:
            readable = pure & clip["known"] & ~hide[:, shape[1] :]
            numbers |= self._read_actions(made, history, clip, scenario, readable, draws)
            total = total + numbers["reader"] + config.reader_weight * numbers["obedience"]
        return total, numbers

    def _price_noise(
        self, noise: Tensor, density: Tensor, made: _Made, scenario: Tensor, told: Tensor
    ) -> dict[str, Tensor]:
        """What the noise of the frames ``told (B, F)`` costs, and how much it surprises the prior; ``scenario (B, F)``
        are numbers."""
        features = _one_before(made.features[:, : told.shape[1]])[told]
        code = made.actions.code[:, told.shape[1] :][told]
        seen, price = (features, made.previous[told], code), self.nat_prices[scenario[told]]
        with self._autocast():
            return nats_and_surprise(self.model.prior, noise[..., 0, 0][told], density[told], seen, price)

    def _make(
        self,
        history: Tensor,
        history_level: Tensor,
        usable: Tensor,
        truth: Tensor,
        target_level: Tensor,
        noise: Tensor,
        rows: Tensor,
        scenarios: list[str],
        draws: Draws,
    ) -> _Made:
        """Predict clips ``(B, F, C, h, w)`` from their corrupted selves and from corrupted histories, all frames in one
        pass; ``rows (B, 2 F, row_dim)`` are of history and of targets."""
        transformer, (clips, frames) = self.model.transformer, history_level.shape
        noisy_history = corrupt(history, history_level, draws.randn(truth.shape))
        noisy_target = corrupt(truth, target_level, noise)
        previous = _one_before(noisy_history) * usable[..., None, None, None]
        times = torch.arange(frames, device=truth.device).repeat(2).expand(clips, -1)
        told = draws.rand((clips,)) >= self.config.prompt_dropout
        prompts = [name if tell else None for name, tell in zip(scenarios, told.tolist(), strict=True)]
        with self._autocast():
            actions = transformer.action_encoder(rows, scenarios)
            output = transformer(
                torch.cat([noisy_history, noisy_target], 1),
                torch.cat([history_level, target_level], 1),
                actions,
                times,
                previous=torch.cat([previous, previous], 1),
                mask=self.mask,
                prompt=transformer.prompt(prompts),
                wanted=frames,
            )
        clean = predict_clean(output.sample, noisy_target, target_level, previous)
        return _Made(clean, previous, output.features, actions)

    def _criticise(
        self, made: _Made, truth: Tensor, scenario: Tensor, judged: Tensor, shown: Tensor, draws: Draws
    ) -> dict[str, Tensor]:
        """The critic's own loss with the transformer's for frames ``judged (B, F)`` that do not look real, and the loss
        for their detail.

        ``scenario (B, F)`` are numbers; ``shown (B, F)`` is where the critic also sees the frame before. The second
        loss has gradients of one size, ``critic_weight`` times how well the critic can tell: it cannot run away, and
        who cannot tell does not pull.
        """
        noise = draws.randn((*truth.shape[:2], 3, *truth.shape[2:]))[judged]
        if not judged.any():
            return dict.fromkeys(("critic", "detail"), made.clean.sum() * 0.0)
        previous = (made.previous * shown[..., None, None, None])[judged]
        frames, critic, scenario = unit_rms(made.clean[judged]), self.model.critic, scenario[judged]
        with self._autocast():
            loss, sure = critic_loss(critic, truth[judged], frames, previous, scenario, noise)
            direction = towards_real(critic, frames, previous, scenario)
        pull = -self.config.critic_weight * sure * (direction * frames).mean()
        return {
            "critic": loss + judged.float().mean() * pull,
            "detail": detail_loss(frames, truth[judged], scenario),
        }

    def _compare_pixels(self, clean: Tensor, truth: Tensor, trust: Tensor, judged: Tensor, draws: Draws) -> Tensor:
        """The loss on the pixels of some of the frames ``judged (B, F)``; ``trust (F,)`` weighs."""
        if not judged.any():
            return clean.sum() * 0.0
        count = min(self.config.pixel_frames * len(judged), int(judged.sum()))
        chosen = (draws.rand(judged.shape) * judged).flatten().topk(count).indices
        generated, real = (latents.flatten(0, 1)[chosen] for latents in (clean, truth))
        with self._autocast():
            weight = trust.expand_as(judged).flatten()[chosen]
            return pixel_loss(self.autoencoder, generated, real, weight, self.config.pixel_window)

    def _read_actions(
        self, made: _Made, history: Tensor, clip: dict[str, Any], scenario: Tensor, readable: Tensor, draws: Draws
    ) -> dict[str, Tensor]:
        """The reader's own loss, and that of frames ``readable (B, F)`` in which it reads something else than in true
        ones; ``history (B, F, C, h, w)`` is what was before it was corrupted."""
        truth, frames = clip["latents"], readable[:, 1:]  # the first of a clip has none before it
        noise = draws.randn((*truth.shape[:2], 2, *truth.shape[2:]))[:, 1:][frames]
        if not frames.any():
            return dict.fromkeys(("reader", "obedience"), made.clean.sum() * 0.0)
        with self._autocast():
            own, obedience = reader_losses(
                self.model.reader,
                (truth[:, :-1][frames], truth[:, 1:][frames]),
                (history[:, :-1][frames], unit_rms(made.clean[:, 1:][frames])),
                clip["rows"][:, 1:][frames],
                scenario[:, 1:][frames],
                noise,
            )
        return {"reader": own, "obedience": obedience}

    def _head_losses(self, clip: dict[str, Any], features: Tensor, actions: RoutedActions, level: Tensor):
        """Losses of the heads on the history frames that are clear enough to be read."""
        heads, frames = self.model.heads, level.shape[1]
        with self._autocast():
            reward, ending = heads(features[:, :frames], actions.code[:, :frames], clip["scenarios"])
        clear = (level < self.flow.previous_limit) & clip["known"]
        mean, std = heads.reward_scale(clip["scenarios"], clip["rewards"])
        target = (clip["rewards"] - mean) / std
        goes_on = clear & ~clip["terminations"]
        reward_loss = (F.huber_loss(reward.float(), target, reduction="none") * goes_on).sum() / goes_on.sum().clamp(
            min=1
        )
        ending_loss = F.binary_cross_entropy_with_logits(ending.float(), clip["terminations"].float(), reduction="none")
        return reward_loss, (ending_loss * clear).sum() / clear.sum().clamp(min=1)

    def _draw(self, samplers: dict[str, ClipSampler], draws: Draws) -> tuple[dict[str, Any], Tensor, Tensor]:
        """Clips, their latents as history, and how many frames of its own come before each of them ``(F,)``: none."""
        config = self.config
        clip = draw_jointly(
            samplers, config.batch_size, draws, config.good_share, config.ending_share, config.scenario_weights
        )
        return clip, clip["latents"], torch.zeros(clip["latents"].shape[1], device=draws.device)

    @torch.no_grad()
    def _draw_own_history(self, draws: Draws) -> tuple[dict[str, Any], Tensor, Tensor]:
        """Clips, as history their latents with those before the last replaced by what the model makes of what came
        before and of the actions, and how many such frames come before each of them ``(F,)``."""
        frames = self.config.clip_frames
        clip, truth, _ = self._draw(self.train_long, draws)
        own = 1 + draws.integer(min(self.config.own_history_frames, truth.shape[1] - 2))
        context = truth.shape[1] - 1 - own
        first = max(0, context - frames)
        made = self.roll_out(
            truth[:, first:],
            clip["rows"][:, first:],
            clip["scenarios"],
            context - first,
            own,
            draws,
            informed=self.config.nat_price > 0,
        )
        history = torch.cat([truth[:, :context], made, truth[:, -1:]], 1)
        newest = {key: value[:, -frames:] if isinstance(value, Tensor) else value for key, value in clip.items()}
        age = torch.arange(truth.shape[1], device=truth.device).sub(context).clamp(0, own)
        return newest, history[:, -frames:], age[-frames:]

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """For each scenario, what :func:`astra_gym.training.rollout.clip_fidelity` returns for held-out clips, and
        ``seen_n``, its ``world_n`` for clips to learn from: where these are nearer to the truth by much, it takes more
        episodes, not more steps."""
        results: dict[str, float] = {}
        frames = self.config.clip_frames
        for name, sampler in self.validation.items():
            held_out = clip_fidelity(self.roll_out, self.autoencoder, sampler, name, frames)
            seen = clip_fidelity(self.roll_out, self.autoencoder, self.train[name], name, frames, compare=False)
            held_out |= {key.replace("world", "seen"): seen[key] for key in seen if key.startswith("world")}
            results |= {f"{name}/{key}": number for key, number in held_out.items()}
        return results


def _one_before(frames: Tensor) -> Tensor:
    """For each of ``frames (B, F, ...)`` the one before it, zeros before the first."""
    return torch.cat([torch.zeros_like(frames[:, :1]), frames[:, :-1]], 1)
