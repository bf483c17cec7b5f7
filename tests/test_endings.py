"""Ends that the shipped world learns to see from real crashes: they alone change."""

import filecmp
import io
import shutil
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("mujoco")

from astra_gym.bundles import PRETRAINED, WorldConfig, load_bundle  # noqa: E402
from astra_gym.cli import main  # noqa: E402
from astra_gym.data.collect import CollectArgs, collect  # noqa: E402
from astra_gym.data.episodes import Episode, read_episodes  # noqa: E402
from astra_gym.models.heads import RewardHeads  # noqa: E402
from astra_gym.training.endings import EndingsArgs, fit, train_endings, with_endings, write_bundle  # noqa: E402
from astra_gym.training.seen_episodes import SeenEpisodes, clips_to_dream, look_at  # noqa: E402


@pytest.fixture(scope="module")
def crashes(tmp_path_factory) -> Path:
    """Folder with four flights to learn from and three others, most of which crash."""
    folder = tmp_path_factory.mktemp("crashes")
    for split, episodes, seed in (("train", 4, 80_000), ("val", 3, 1_000_000)):
        collect(
            CollectArgs(
                env="AstraSim/Drone-v0",
                policy="crashing-racer",
                output=folder / "drone" / split,
                episodes=episodes,
                blocks=40,
                first_seed=seed,
            )
        )
    return folder


@pytest.fixture(scope="module")
def lesson(crashes, tmp_path_factory) -> tuple[Path, list[str]]:
    """The world that has learned from them, and the lines that the command printed."""
    run, printed = tmp_path_factory.mktemp("run"), io.StringIO()
    arguments = ["--data", str(crashes), "--scenarios", "drone", "--run", str(run), "--steps", "60", "--dreams"]
    with redirect_stdout(printed):
        assert main(["train-endings", *arguments]) == 0
    return run / "bundle", printed.getvalue().splitlines()


@pytest.fixture
def taught(lesson) -> Path:
    return lesson[0]


def test_all_but_the_heads_is_copied_byte_for_byte(taught):
    compared = filecmp.dircmp(PRETRAINED / "small", taught)
    assert compared.diff_files == compared.left_only == compared.right_only == []
    changed = [name for name, part in compared.subdirs.items() if part.diff_files]
    assert changed == ["heads"]


def test_only_the_ends_of_the_scenario_are_seen_differently(taught):
    before, after = load_bundle("small").heads, load_bundle(taught).heads
    features, code = torch.randn(20, before.config.feature_dim), torch.randn(20, before.config.action_dim)
    for name in before.scenarios:
        rewards, ends = before(features, code, [name] * 20)
        rewards_after, ends_after = after(features, code, [name] * 20)
        torch.testing.assert_close(rewards_after, rewards, rtol=0, atol=0)
        assert torch.equal(ends_after, ends) == (name != "drone")


def test_what_was_seen_before_and_now_is_told(lesson):
    world, (true, dreams, last) = lesson
    for frames, line in (("true frames", true), ("dreams", dreams)):
        assert line.startswith(f"drone, {frames}: held-out ends before, ")
        assert "false alarms, F1" in line.split("; now, ")[1]
    assert last == str(world)


def test_dreams_go_from_true_frames_to_the_end(crashes, taught):
    """What was kept of the data of the lesson."""
    folder = crashes / "drone" / "train"
    true, dreams = look_at(load_bundle("small"), "drone", folder, taught.parent, dreams=True)
    assert sum(true.lengths) == sum(len(episode.actions) for episode in read_episodes(folder)) == len(true.features)
    assert sum(dreams.lengths) == len(dreams.features) == len(dreams.to_end)
    assert any(end is not None for end in dreams.ends)
    for length, end in zip(dreams.lengths, dreams.ends, strict=True):
        assert length == (16 if end is None else end + 3)
    (alone,) = look_at(load_bundle("small"), "drone", folder, taught.parent, dreams=False)
    assert not alone.dreamt and torch.equal(alone.features, true.features)


def test_what_has_been_looked_at_is_kept(crashes, taught, tmp_path, monkeypatch):
    monkeypatch.setattr("astra_gym.training.seen_episodes._watch", lambda *_: pytest.fail("looked again"))
    again = EndingsArgs(("drone",), data=crashes, run=taught.parent, output=tmp_path / "world", steps=60, dreams=True)
    assert not filecmp.dircmp(train_endings(again) / "heads", taught / "heads").diff_files


def small_heads(*scenarios: str) -> RewardHeads:
    return RewardHeads(feature_dim=8, action_dim=4, hidden_dim=16, rewards=dict.fromkeys(scenarios, (0.0, 1.0)))


def test_a_rare_end_is_learned():
    """Of 3,000 blocks 20 end their episode, those with a large first feature."""
    torch.manual_seed(0)
    heads = with_endings(small_heads("drone", "drive"), ["drone"], 16)
    seen = SeenEpisodes("drone", torch.randn(3000, 8), torch.randn(3000, 4), [150] * 20, [149] * 20)
    last = torch.arange(149, 3000, 150)
    seen.features[:, 0] = -1
    seen.features[last, 0] = 3
    fit(heads, [seen], EndingsArgs(("drone",), steps=300, lr=1e-2))
    _, logits = heads(seen.features, seen.code, ["drone"] * 3000)
    assert torch.equal((logits > 0).nonzero().flatten(), last)


def test_new_heads_say_what_the_old_ones_said():
    heads = small_heads("zoo")
    extended = with_endings(heads, ["zoo"], 12)
    seen = torch.randn(5, 8), torch.randn(5, 4), ["zoo"] * 5
    for one, other in zip(heads(*seen), extended(*seen), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_what_is_taught_again_begins_anew():
    heads = with_endings(small_heads("zoo", "sea"), ["zoo", "sea"], 12)
    for parameter in heads.endings.parameters():
        torch.nn.init.normal_(parameter)
    again = with_endings(heads, ["zoo"], 20)
    assert again.config.ending_dims == {"zoo": 20, "sea": 12}
    seen = torch.randn(5, 8), torch.randn(5, 4)
    assert torch.equal(again(*seen, ["sea"] * 5)[1], heads(*seen, ["sea"] * 5)[1])
    assert torch.equal(again(*seen, ["zoo"] * 5)[1], without_endings(heads)(*seen, ["zoo"] * 5)[1])


def without_endings(heads: RewardHeads) -> RewardHeads:
    plain = RewardHeads.from_config(heads.config, ending_dims=None)
    plain.load_state_dict({name: tensor for name, tensor in heads.state_dict().items() if "endings" not in name})
    return plain


def test_blocks_before_an_end_are_counted():
    seen = SeenEpisodes("drone", torch.zeros(6, 1), torch.zeros(6, 1), [4, 2], [2, None])
    assert seen.to_end.tolist()[:4] == [2, 1, 0, 0] and seen.to_end[4:].min() > 0


def flight(blocks: int, ends: bool) -> Episode:
    terminations = np.zeros(blocks, bool)
    terminations[-1] = ends
    frames = np.zeros((blocks + 1, 4, 8, 8, 3), np.uint8)
    return Episode(0, frames, np.zeros((blocks, 4), np.float32), np.zeros(blocks, np.float32), terminations)


def test_dreams_are_of_an_end_and_of_what_goes_on():
    """16 blocks of context and 1 to 16 of dream; where nothing ends, neither does anything soon after."""
    short, crash, long = flight(16, True), flight(17, True), flight(40, True)
    clips = clips_to_dream([short, crash, long, flight(32, False), flight(31, False)], 16)
    assert [clip.future for clip in clips] == sorted(clip.future for clip in clips)
    assert sorted(len(clip.episode.actions) for clip in clips if clip.ends) == [17, 40]
    assert sorted(len(clip.episode.actions) for clip in clips if not clip.ends) == [32, 40]
    for clip in clips:
        assert clip.first >= 1 and clip.context == 16 and 1 <= clip.future <= 16
        near_an_end = 3 if clip.episode is long and not clip.ends else 0
        assert clip.now + clip.future <= len(clip.episode.actions) - near_an_end


def test_what_could_not_end_before_can_now(tmp_path):
    """A world whose own data had no end of a scenario does not look for one until it is taught."""
    source = shutil.copytree(PRETRAINED / "small", tmp_path / "before")
    config = WorldConfig.load(source)
    ending = config.termination_rewards.pop("drone")
    config.save(source)
    bundle = load_bundle(source)
    after = write_bundle(bundle.heads, {"drone": ending - 1, "drive": 0.0}, source, tmp_path / "after")
    assert WorldConfig.load(after).termination_rewards == config.termination_rewards | {"drone": ending - 1}


BAD = {
    "scenarios: got ['sea']": {"scenarios": ("sea",)},
    "scenarios: got []": {"scenarios": ()},
    "steps: got 0": {"steps": 0},
    "output: .* is not an empty folder": {"output": PRETRAINED},
    "world: 'none'": {"world": "none"},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_arguments_are_refused_by_name(message, tmp_path):
    arguments = {"scenarios": ("drone",), "data": tmp_path, "run": tmp_path / "run"} | BAD[message]
    with pytest.raises((ValueError, OSError), match=message.replace("[", r"\[").replace("]", r"\]")):
        train_endings(EndingsArgs(**arguments))
    assert not (tmp_path / "run").exists()


def test_data_without_ends_are_refused(tmp_path):
    for split in ("train", "val"):
        collect(
            CollectArgs(env="AstraSim/Drone-v0", output=tmp_path / "drone" / split, episodes=1, blocks=4, workers=1)
        )
    with pytest.raises(ValueError, match="^data: no episode in .* ends by itself"):
        train_endings(EndingsArgs(("drone",), data=tmp_path, run=tmp_path / "run"))
