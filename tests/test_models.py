"""The networks and their memory: shapes, the adapter, the router, and one truth for training and inference."""

import pytest
import torch

from astra_gym.memory import HistoryMemory, corrupt, training_mask
from astra_gym.models.action_experts import RoutedActions, load_balancing_loss
from astra_gym.models.autoencoder import BlockAutoencoder, to_model, to_pixels
from astra_gym.models.transformer import AstraTransformer
from astra_gym.sampler import Dynamics, FlowConfig, predict_clean, schedule


@pytest.fixture
def transformer() -> AstraTransformer:
    """A small causal transformer without any weight left at zero."""
    torch.manual_seed(0)
    model = AstraTransformer(
        in_channels=4,
        num_attention_heads=2,
        attention_head_dim=24,
        num_layers=2,
        ffn_dim=64,
        freq_dim=32,
        window=3,
        summary_window=4,
        modalities={"drive": 4},
    )
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return model.eval().requires_grad_(False)


def frame(actions: RoutedActions, t: int) -> RoutedActions:
    return RoutedActions(*(tensor[:, t] for tensor in actions))


def test_training_in_one_pass_equals_stepping_with_cached_history(transformer):
    """The mask of training and the memory of inference must mean the same, also after frames have left the window."""
    clips, frames = 2, 10
    latents = torch.randn(clips, frames, 4, 8, 8)
    actions = transformer.action_encoder(torch.randn(clips, frames, 4), "drive")
    noise = torch.randn(2, *latents.shape)
    history_level, target_level = torch.full((clips, frames), 0.02), torch.full((clips, frames), 0.75)
    history, target = corrupt(latents, history_level, noise[0]), corrupt(latents, target_level, noise[1])
    previous = torch.cat([torch.zeros_like(history[:, :1]), history[:, :-1]], 1)
    times = torch.arange(frames).expand(clips, -1)
    whole = transformer(
        torch.cat([history, target], 1),
        torch.cat([history_level, target_level], 1),
        RoutedActions(*(torch.cat([tensor, tensor], 1) for tensor in actions)),
        torch.cat([times, times], 1),
        previous=torch.cat([previous, previous], 1),
        mask=training_mask(frames, transformer),
    )
    memory, dynamics = HistoryMemory(transformer, clips), Dynamics(transformer, FlowConfig())
    for t in range(frames):
        action = frame(actions, t)
        output, _ = dynamics._forward(memory, target[:, t], 0.75, action, previous[:, t])
        torch.testing.assert_close(output.sample[:, 0], whole.sample[:, frames + t], atol=1e-5, rtol=1e-4)
        _, features = dynamics.commit(memory, latents[:, t], action, previous[:, t], noise[0][:, t])
        torch.testing.assert_close(features, whole.features[:, t], atol=1e-5, rtol=1e-4)


def test_a_target_does_not_see_its_own_or_later_history(transformer):
    frames, tokens = 5, transformer.tokens_per_frame
    mask = training_mask(frames, transformer)
    third_target = mask[(frames + 2) * tokens]
    assert third_target[: 2 * tokens].all()
    assert not third_target[2 * tokens : (frames + 2) * tokens].any()
    assert third_target[(frames + 2) * tokens : (frames + 3) * tokens].all()


def test_history_beyond_the_summaries_is_forgotten_and_within_it_is_not(transformer):
    latents = torch.randn(1, 20, 4, 8, 8)
    rows = torch.zeros(1, 20, 4)

    def next_frame(changed: int | None) -> torch.Tensor:
        history = latents.clone()
        if changed is not None:
            history[:, changed] += 3.0
        memory, dynamics = HistoryMemory(transformer, 1), Dynamics(transformer, FlowConfig())
        actions = transformer.action_encoder(rows, "drive")
        previous = torch.zeros_like(latents[:, 0])
        for t in range(20):
            previous, _ = dynamics.commit(
                memory, history[:, t], frame(actions, t), previous, torch.zeros_like(previous)
            )
        return dynamics.generate(memory, frame(actions, 0), latents[:, 19], torch.ones_like(previous), steps=1)

    unchanged = next_frame(None)
    assert not torch.allclose(next_frame(14), unchanged, atol=1e-6)  # 5 frames back: by its summary token
    reach = transformer.config.num_layers * (transformer.config.window + transformer.config.summary_window)
    assert reach < 20
    torch.testing.assert_close(next_frame(0), unchanged, atol=1e-6, rtol=1e-6)


def test_memory_of_some_worlds_can_be_replaced(transformer):
    memory, other = HistoryMemory(transformer, 3), HistoryMemory(transformer, 1)
    dynamics = Dynamics(transformer, FlowConfig())
    actions = transformer.action_encoder(torch.zeros(3, 4), "drive")
    zeros = torch.zeros(3, 4, 8, 8)
    for _ in range(5):
        dynamics.commit(memory, torch.randn(3, 4, 8, 8), actions, zeros, zeros)
    dynamics.commit(other, torch.randn(1, 4, 8, 8), RoutedActions(*(a[:1] for a in actions)), zeros[:1], zeros[:1])
    before = memory.state()
    memory.put([1], other)
    assert memory.count.tolist() == [5, 1, 5]
    torch.testing.assert_close(memory.keys[:, 1], other.keys[:, 0])
    torch.testing.assert_close(memory.keys[:, 0], before["keys"][:, 0])
    memory.load_state(before)
    assert memory.count.tolist() == [5, 5, 5]


def test_adapter_reaches_every_block_and_its_projector_begins_as_identity(transformer):
    fresh = AstraTransformer(in_channels=4, num_attention_heads=2, attention_head_dim=24, modalities={"drive": 4})
    for block in fresh.blocks:
        torch.testing.assert_close(block.projector.weight, torch.eye(48))
    tokens = torch.randn(1, 1, 17, 48)
    block = transformer.blocks[0]
    _, modulation = transformer.time_embedding(torch.full((1, 1), 0.5))
    from astra_gym.models.transformer import Rotary

    rotary = Rotary.from_positions(transformer.positions(torch.zeros(1, 1)).flatten(1, 2), 24)
    outputs = [block(tokens, torch.full((1, 1, 1, 48), value), modulation, rotary) for value in (0.0, 1.0)]
    assert not torch.allclose(*outputs)


def test_router_chooses_top_k_and_balances(transformer):
    actions = transformer.action_encoder(torch.randn(64, 4), "drive")
    assert actions.weights.shape == (64, 4)
    assert ((actions.weights > 0).sum(-1) == 2).all()
    torch.testing.assert_close(actions.weights.sum(-1), torch.ones(64))
    even = torch.full((8, 4), 0.25)
    one = torch.nn.functional.one_hot(torch.zeros(8, dtype=torch.long), 4).float()
    assert load_balancing_loss(RoutedActions(even, even, even)).item() == pytest.approx(1.0)
    assert load_balancing_loss(RoutedActions(one, one, one)).item() == pytest.approx(4.0)
    with pytest.raises(ValueError, match="modality: got 'boat'"):
        transformer.action_encoder(torch.randn(1, 4), "boat")


def test_fixed_routing_sends_each_modality_to_its_own_expert():
    model = AstraTransformer(
        in_channels=4, num_layers=1, modalities={"a": 3, "b": 2}, num_experts=3, top_k=1, routing="fixed"
    )
    assert model.action_encoder(torch.randn(1, 3), "a").weights.tolist() == [[1.0, 0.0, 0.0]]
    assert model.action_encoder(torch.randn(1, 2), "b").weights.tolist() == [[0.0, 1.0, 0.0]]


def test_patches_round_trip(transformer):
    latents = torch.randn(2, 3, 4, 8, 8)
    torch.testing.assert_close(transformer._unpatchify(transformer._patchify(latents), (4, 4)), latents)


def test_an_untrained_prediction_repeats_the_previous_frame_at_full_noise():
    noisy, previous = torch.randn(2, 1, 4, 8, 8), torch.randn(2, 1, 4, 8, 8)
    output = torch.zeros_like(noisy)
    torch.testing.assert_close(predict_clean(output, noisy, torch.ones(2, 1), previous), previous)
    torch.testing.assert_close(predict_clean(output, noisy, torch.zeros(2, 1), previous), noisy)


def test_schedule_runs_from_noise_to_clean():
    assert schedule(2, 3.0) == pytest.approx([1.0, 0.75, 0.0])
    assert schedule(4, 1.0) == pytest.approx([1.0, 0.75, 0.5, 0.25, 0.0])


def test_guidance_moves_away_from_the_action_free_prediction(transformer):
    memory, dynamics = HistoryMemory(transformer, 1), Dynamics(transformer, FlowConfig())
    action = transformer.action_encoder(torch.ones(1, 4), "drive")
    free = transformer.action_encoder(torch.zeros(1, 4), "drive")
    previous, noise = torch.randn(2, 1, 4, 8, 8)
    plain = dynamics.generate(memory, action, previous, noise, 1)
    without = dynamics.generate(memory, free, previous, noise, 1)
    guided = dynamics.generate(memory, action, previous, noise, 1, 2.0, free)
    torch.testing.assert_close(guided, without + 2 * (plain - without))


def test_autoencoder_shapes_and_pixels():
    model = BlockAutoencoder(latent_channels=8).eval()
    blocks = torch.randint(0, 256, (2, 4, 64, 64, 3), dtype=torch.uint8)
    torch.testing.assert_close(to_pixels(to_model(blocks)), blocks)
    frames, latents = model(to_model(blocks))
    assert frames.shape == (2, 4, 3, 64, 64)
    assert latents.shape == (2, 8, 8, 8)
    torch.testing.assert_close(latents.square().mean(1), torch.ones(2, 8, 8), atol=1e-2, rtol=1e-2)


def test_save_and_load(transformer, tmp_path):
    transformer.save_pretrained(tmp_path)
    loaded = AstraTransformer.from_pretrained(tmp_path)
    for (name, a), b in zip(transformer.state_dict().items(), loaded.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, msg=name)
