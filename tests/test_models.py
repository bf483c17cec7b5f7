"""The networks and their memory: shapes, the adapter, the router, and one truth for training and inference."""

import pytest
import torch

from astra_gym.memory import HistoryMemory, corrupt, training_mask
from astra_gym.models.action_experts import RoutedActions, load_balancing_loss, specialisation_loss
from astra_gym.models.attention import attend
from astra_gym.models.autoencoder import BlockAutoencoder, to_model, to_pixels
from astra_gym.models.heads import RewardHeads
from astra_gym.models.layers import Conv2d, Linear, can_quantize
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
        level = torch.full((clips, 1), 0.75)
        action = RoutedActions(*(tensor[:, t, None] for tensor in actions))
        conditioning = transformer.condition(level, action, memory.count[:, None])
        output = dynamics._forward(memory, target[:, t], conditioning, previous[:, t])
        torch.testing.assert_close(output.sample[:, 0], whole.sample[:, frames + t], atol=1e-5, rtol=1e-4)
        plan = dynamics.plan(memory, frame(actions, t))
        _, features = dynamics.commit(memory, latents[:, t], plan, previous[:, t], noise[0][:, t])
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
            plan = dynamics.plan(memory, frame(actions, t))
            previous, _ = dynamics.commit(memory, history[:, t], plan, previous, torch.zeros_like(previous))
        plan = dynamics.plan(memory, frame(actions, 0), steps=1)
        return dynamics.generate(memory, plan, latents[:, 19], torch.ones_like(previous))

    unchanged = next_frame(None)
    assert not torch.allclose(next_frame(14), unchanged, atol=1e-6)  # 5 frames back: by its summary token
    reach = transformer.config.num_layers * (transformer.config.window + transformer.config.summary_window)
    assert reach < 20
    torch.testing.assert_close(next_frame(0), unchanged, atol=1e-6, rtol=1e-6)


def commit_all(dynamics, memory, latents, actions, worlds: slice = slice(None)):
    """Commit frames one by one, without noise."""
    previous = torch.zeros_like(latents[worlds, 0])
    for t in range(latents.shape[1]):
        plan = dynamics.plan(memory, RoutedActions(*(tensor[worlds, t] for tensor in actions)))
        previous, _ = dynamics.commit(memory, latents[worlds, t], plan, previous, torch.zeros_like(previous))
    return previous


@pytest.mark.parametrize("frames", [1, 3, 6, 12])
def test_a_history_taken_in_at_once_equals_one_taken_in_frame_by_frame(transformer, frames):
    latents = torch.randn(2, frames, 4, 8, 8)
    actions = transformer.action_encoder(torch.randn(2, frames, 4), "drive")
    slow, fast = HistoryMemory(transformer, 2), HistoryMemory(transformer, 2)
    dynamics = Dynamics(transformer, FlowConfig())
    previous = commit_all(dynamics, slow, latents, actions)
    begun, _ = dynamics.begin(fast, latents, actions, torch.zeros_like(latents), None)
    torch.testing.assert_close(begun, previous)
    plan, noise = dynamics.plan(slow, frame(actions, 0), steps=2), torch.randn_like(previous)
    expected = dynamics.generate(slow, plan, previous, noise)
    torch.testing.assert_close(dynamics.generate(fast, plan, previous, noise), expected, atol=1e-5, rtol=1e-4)


def test_worlds_of_a_batch_may_take_different_numbers_of_steps(transformer):
    latents, noise = torch.randn(2, 3, 4, 8, 8), torch.randn(2, 4, 8, 8)
    actions = transformer.action_encoder(torch.randn(2, 3, 4), "drive")
    memory, dynamics = HistoryMemory(transformer, 2), Dynamics(transformer, FlowConfig())
    previous = commit_all(dynamics, memory, latents, actions)
    made = {
        steps: dynamics.generate(memory, dynamics.plan(memory, frame(actions, 0), steps=steps), previous, noise)
        for steps in (1, 3, (1, 3))
    }
    torch.testing.assert_close(made[1, 3], torch.stack([made[1][0], made[3][1]]), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(made[1][1], made[3][1], atol=1e-3)


@pytest.mark.parametrize("lengths", [(5, 1), (2, 9), (9, 4)])
def test_memory_of_some_worlds_can_be_replaced(transformer, lengths):
    """A world that got another's history goes on exactly as that other one, and its neighbours do not notice."""
    frames, others = lengths
    dynamics = Dynamics(transformer, FlowConfig())
    latents, new = torch.randn(3, frames, 4, 8, 8), torch.randn(1, others, 4, 8, 8)
    actions = transformer.action_encoder(torch.zeros(3, frames + others, 4), "drive")
    memory, untouched, other = (HistoryMemory(transformer, count) for count in (3, 3, 1))
    for each in (memory, untouched):
        commit_all(dynamics, each, latents, actions)
    commit_all(dynamics, other, new, actions, slice(0, 1))
    before = memory.state()
    memory.put([1], other)
    assert memory.count.tolist() == [frames, others, frames]
    previous, noise = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    for _ in range(6):  # until the first frames have left the window
        made = []
        for each, worlds in ((memory, slice(0, 3)), (untouched, slice(0, 3)), (other, slice(1, 2))):
            plan = dynamics.plan(each, RoutedActions(*(tensor[worlds, 0] for tensor in actions)), steps=1)
            made.append(dynamics.generate(each, plan, previous[worlds], noise[worlds]))
            dynamics.commit(each, previous[worlds], plan, previous[worlds], noise[worlds])
        torch.testing.assert_close(made[0][[0, 2]], made[1][[0, 2]], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(made[0][1:2], made[2], atol=1e-5, rtol=1e-4)
    memory.load_state(before)
    assert memory.count.tolist() == [frames] * 3


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("gelu", [False, True])
def test_packed_layer_computes_the_same(gelu, dtype, tolerance):
    layer = Linear(24, 40, gelu=gelu).to(dtype).requires_grad_(False)
    x = torch.randn(2, 5, 24).to(dtype)
    plain = layer(x)
    layer.pack()
    torch.testing.assert_close(layer(x), plain, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
@pytest.mark.parametrize("silu", [False, True])
@pytest.mark.parametrize(("kernel_size", "groups"), [(3, 1), (3, 24), (1, 1)])
def test_packed_convolution_computes_the_same(kernel_size, groups, silu, dtype, tolerance):
    layer = Conv2d(24, 24, kernel_size, padding=kernel_size // 2, groups=groups, silu=silu)
    layer = layer.to(dtype).requires_grad_(False)
    x, base = torch.randn(2, 3, 24, 6, 6).to(dtype).unbind()
    x = x.to(memory_format=torch.channels_last)
    plain, added = layer(x), layer(x, base=base)
    torch.testing.assert_close(added, base + plain)
    layer.pack()
    torch.testing.assert_close(layer(x), plain, atol=tolerance, rtol=tolerance)
    for layout in (torch.contiguous_format, torch.channels_last):
        again = base.clone(memory_format=layout)
        torch.testing.assert_close(layer(x, base=again), added, atol=tolerance, rtol=tolerance)


def test_a_packed_convolution_takes_pictures_of_any_size_and_number():
    layer = Conv2d(24, 24, 3, padding=1).requires_grad_(False)
    pictures = [torch.randn(count, 24, size, size) for count in (1, 2, 9) for size in (4, 6)]
    plain = [layer(x) for x in pictures]
    layer.pack()
    for _ in range(2):  # more sizes than it keeps weights for
        for x, expected in zip(pictures, plain, strict=True):
            torch.testing.assert_close(layer(x), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("worlds", [1, 8])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_of_few_queries_differs_by_rounding_alone(masked, worlds):
    q = torch.randn(worlds, 2, 17, 64).bfloat16()
    k, v = torch.randn(2, worlds, 2, 40, 64).bfloat16().unbind()
    mask = torch.zeros(worlds, 1, 1, 40).masked_fill(torch.rand(worlds, 1, 1, 40) < 0.3, -torch.inf) if masked else None
    with torch.inference_mode():
        result = attend(q, k, v, None if mask is None else mask.bfloat16())
    exact = torch.nn.functional.scaled_dot_product_attention(
        q.double(), k.double(), v.double(), None if mask is None else mask.double()
    )
    torch.testing.assert_close(result.double(), exact, atol=2e-2, rtol=2e-2)


def test_attention_of_a_clip_in_training_has_the_right_gradients():
    values = torch.randn(3, 2, 2, 51, 64).bfloat16()
    mask = torch.zeros(51, 51).masked_fill(torch.rand(51, 51).fill_diagonal_(1) < 0.3, -torch.inf)
    gradients = {}
    for dtype, function in (
        (torch.bfloat16, attend),
        (torch.double, torch.nn.functional.scaled_dot_product_attention),
    ):
        q, k, v = (each.to(dtype).requires_grad_() for each in values)
        function(q, k, v, mask.to(dtype)).square().sum().backward()
        gradients[function] = torch.stack([q.grad, k.grad, v.grad]).double()
    plain, exact = gradients.values()
    assert (plain - exact).norm() < 0.02 * exact.norm()


@pytest.mark.skipif(not can_quantize(), reason="this PyTorch has no product of 8-bit integers")
@pytest.mark.parametrize("gelu", [False, True])
def test_layer_in_8_bit_integers_computes_nearly_the_same(gelu):
    layer = Linear(96, 64, gelu=gelu).requires_grad_(False)
    x = torch.randn(2, 17, 96)
    plain = layer(x)
    layer.pack(int8=True)
    error = (layer(x) - plain).norm() / plain.norm()
    assert 1e-4 < error < 0.03


def test_only_wanted_frames_are_predicted_and_all_are_described(transformer):
    latents, previous = torch.randn(2, 1, 3, 4, 8, 8).unbind()
    actions, times = transformer.action_encoder(torch.randn(1, 3, 4), "drive"), torch.arange(3)[None]
    every, last, none = (
        transformer(latents, torch.ones(1, 3), actions, times, previous, wanted=wanted) for wanted in (None, 1, 0)
    )
    torch.testing.assert_close(last.sample, every.sample[:, -1:])
    assert none.sample.shape == (1, 0, 4, 8, 8)
    torch.testing.assert_close(last.features, every.features)
    torch.testing.assert_close(none.features, every.features)


def test_fused_attention_computes_the_same(transformer):
    latents, actions = torch.randn(1, 1, 4, 8, 8), transformer.action_encoder(torch.randn(1, 1, 4), "drive")
    level, times = torch.full((1, 1), 0.5), torch.zeros(1, 1, dtype=torch.long)
    plain = transformer(latents, level, actions, times, previous=latents)
    fused = transformer.fuse()(latents, level, actions, times, previous=latents)
    torch.testing.assert_close(fused.sample, plain.sample, atol=1e-5, rtol=1e-4)


def test_adapter_reaches_every_block_and_its_projector_begins_as_identity(transformer):
    fresh = AstraTransformer(in_channels=4, num_attention_heads=2, attention_head_dim=24, modalities={"drive": 4})
    for block in fresh.blocks:
        torch.testing.assert_close(block.projector.weight, torch.eye(48))
    tokens = torch.randn(1, 1, 17, 48)
    block = transformer.blocks[0]
    _, modulation = transformer.time_embedding(torch.full((1, 1), 0.5))
    from astra_gym.models.attention import Rotary

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
    assert specialisation_loss(RoutedActions(even, even, even)).item() == pytest.approx(1.0)
    assert specialisation_loss(RoutedActions(one, one, one)).item() == pytest.approx(0.0, abs=1e-6)
    only = torch.ones(8, 1)
    assert specialisation_loss(RoutedActions(only, only, only)).item() == 0.0
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


def test_guidance_moves_away_from_the_action_free_prediction(transformer, monkeypatch):
    monkeypatch.setattr("astra_gym.sampler.unit_rms", lambda latents: latents)  # which comes after guidance
    memory, dynamics = HistoryMemory(transformer, 1), Dynamics(transformer, FlowConfig())
    action = transformer.action_encoder(torch.ones(1, 4), "drive")
    free = transformer.action_encoder(torch.zeros(1, 4), "drive")
    previous, noise = torch.randn(2, 1, 4, 8, 8)
    with_action, hidden = dynamics.plan(memory, action, steps=1), dynamics.plan(memory, free, steps=1)
    plain = dynamics.generate(memory, with_action, previous, noise)
    without = dynamics.generate(memory, hidden, previous, noise)
    guided = dynamics.generate(memory, with_action, previous, noise, 2.0, hidden)
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
    loaded.save_pretrained(tmp_path / "again")
    assert str(tmp_path) not in (tmp_path / "again" / "config.json").read_text()


def test_what_belongs_to_a_modality_still_does_after_loading(tmp_path):
    """Saved configs are sorted by name; neither fixed experts nor prompts nor heads may follow that order."""
    modalities = {"zoo": 3, "ant": 2}
    sizes = {"in_channels": 4, "num_layers": 1, "num_attention_heads": 2, "attention_head_dim": 24}
    model = AstraTransformer(**sizes, modalities=modalities, routing="fixed", top_k=1, scenario_prompt=True)
    torch.nn.init.normal_(model.scenario_embedding.weight)
    heads = RewardHeads(feature_dim=8, action_dim=4, rewards={"zoo": (1.0, 2.0), "ant": (3.0, 4.0)})
    model.save_pretrained(tmp_path / "transformer")
    heads.save_pretrained(tmp_path / "heads")
    again = AstraTransformer.from_pretrained(tmp_path / "transformer")
    heads_again = RewardHeads.from_pretrained(tmp_path / "heads")
    features, code = torch.randn(1, 8), torch.randn(1, 4)
    for name, row_dim in modalities.items():
        rows = torch.randn(1, row_dim)
        for before, after in zip(model.action_encoder(rows, name), again.action_encoder(rows, name), strict=True):
            torch.testing.assert_close(after, before)
        torch.testing.assert_close(again.prompt([name]), model.prompt([name]))
        torch.testing.assert_close(heads_again(features, code, [name]), heads(features, code, [name]))
