"""What is seen of every Astra environment: rendering, recording, Gymnasium's keyboard play."""

import gymnasium as gym
import numpy as np
import pygame
import pytest
from gymnasium.utils.play import play
from gymnasium.wrappers import RecordVideo

from astra_gym.envs import FrameByFrame
from astra_gym.media import load_video
from tests.env_ids import IDS


@pytest.fixture(autouse=True)
def headless(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


# Rendering -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", IDS)
def test_rgb_array_is_the_newest_frame(env_id):
    env = gym.make(env_id, render_mode="rgb_array")
    env.reset(seed=0)
    observation = env.step(env.action_space.sample())[0]
    np.testing.assert_array_equal(env.render(), observation[-1])
    assert env.metadata["render_fps"] == round(env.unwrapped.fps / 4)


@pytest.mark.parametrize("env_id", IDS)
def test_rgb_array_list_is_the_newest_block(env_id):
    env = gym.make(env_id, render_mode="rgb_array_list")
    env.reset(seed=0)
    observation = env.step(env.action_space.sample())[0]
    frames = env.render()
    assert isinstance(frames, list)
    np.testing.assert_array_equal(np.stack(frames), observation)


@pytest.mark.parametrize("env_id", IDS)
def test_human_window_shows_every_frame(env_id, monkeypatch):
    env = gym.make(env_id, render_mode="human")
    shown = []
    screen = pygame.display.get_surface
    monkeypatch.setattr(pygame.display, "flip", lambda: shown.append(pygame.surfarray.array3d(screen())))
    observation, _ = env.reset(seed=0)
    env.step(env.action_space.sample())
    assert env.render() is None
    assert len(shown) == 8
    scale = shown[0].shape[0] // 64
    np.testing.assert_array_equal(shown[0][::scale, ::scale], observation[0].swapaxes(0, 1))
    env.close()
    env.close()
    assert not pygame.display.get_init()


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize(("mode", "steps"), [("rgb_array", 6), ("rgb_array_list", 6), ("every frame", 24)])
def test_record_video_plays_at_true_speed(env_id, mode, steps, tmp_path):
    every_frame = mode == "every frame"
    env = gym.make(env_id, render_mode="rgb_array" if every_frame else mode)
    env = RecordVideo(
        FrameByFrame(env) if every_frame else env, tmp_path / "videos", episode_trigger=lambda episode: True
    )
    env.reset(seed=0)
    for _ in range(steps):
        env.step(env.action_space.sample())
    env.close()
    frames = load_video(tmp_path / "videos" / "rl-video-episode-0.mp4", 64)
    assert abs(len(frames) - (steps + 1)) <= 1
    assert len(frames) / env.frames_per_sec == pytest.approx(6 * 4 / env.unwrapped.fps, rel=0.3)


@pytest.mark.parametrize("env_id", IDS)
def test_frame_by_frame_is_the_same_episode(env_id):
    env = gym.make(env_id, render_mode="rgb_array", max_episode_steps=2)
    observations, rewards = [env.reset(seed=4)[0]], []
    for _ in range(2):
        observation, reward, *_ = env.step(env.action_space.high)
        observations.append(observation)
        rewards.append(reward)

    slow = FrameByFrame(env)
    slow.reset(seed=4)
    frames, slow_rewards, truncations = [slow.render()], [], []
    for number in range(8):
        action = slow.action_space.high if number % 4 == 0 else slow.action_space.low
        _, reward, _, truncated, _ = slow.step(action)
        frames.append(slow.render())
        slow_rewards.append(reward)
        truncations.append(truncated)
    np.testing.assert_array_equal(np.stack(frames), np.concatenate(observations)[3:])
    assert slow_rewards == [0, 0, 0, rewards[0], 0, 0, 0, rewards[1]]
    assert truncations == [False] * 7 + [True]


def test_frame_by_frame_begins_with_a_reset():
    env = FrameByFrame(gym.make(IDS[0], render_mode="rgb_array"))
    with pytest.raises(gym.error.ResetNeeded):
        env.render()
    with pytest.raises(gym.error.ResetNeeded):
        env.step(env.action_space.sample())


def test_frame_by_frame_needs_pictures():
    with pytest.raises(ValueError, match="^env: .*rgb_array"):
        FrameByFrame(gym.make(IDS[0]))


# Play ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", IDS)
def test_keys_cover_every_combination(env_id):
    env = gym.make(env_id)
    table = env.unwrapped.get_keys_to_action()
    assert not table[""].any()
    for action in table.values():
        assert action in env.action_space


def test_drive_keys():
    table = gym.make("AstraDrive-v0").unwrapped.get_keys_to_action()
    np.testing.assert_array_equal(table[(pygame.K_LEFT,)], [-1, 0, 0])
    assert any(set(held) == {pygame.K_d, pygame.K_w} and action.tolist() == [1, 1, 0] for held, action in table.items())


@pytest.mark.parametrize("env_id", IDS)
@pytest.mark.parametrize("every_frame", [False, True])
def test_gymnasium_play_works_unmodified(env_id, every_frame):
    env = gym.make(env_id, render_mode="rgb_array")
    actions = []

    def quit_after_a_while(before, after, action, *_):
        actions.append(action)
        pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.K_UP))
        if len(actions) == 4:
            pygame.event.post(pygame.event.Event(pygame.QUIT))

    play(FrameByFrame(env) if every_frame else env, callback=quit_after_a_while, seed=0, zoom=2)
    assert not actions[0].any()
    np.testing.assert_array_equal(actions[-1], env.unwrapped.modality.from_keys({"up"}))
