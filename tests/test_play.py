"""The player: two worlds to drive in, and a window that always responds."""

import dataclasses
import os
import sys
import threading
import time
from collections.abc import Callable

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import gymnasium as gym
import imageio.v3 as iio
import numpy as np
import pygame
import pytest

from astra_gym.agents import hud
from astra_gym.agents.clip import save_clip
from astra_gym.agents.play import PlayArgs, play
from astra_gym.agents.player import COMMANDS, Player
from astra_gym.cli import main

DREAM = "AstraDrive-v0"
SIMULATOR = "AstraSim/Drive-v0"
FAST = {"fps": 1e6, "banner_seconds": 0.0}


def key(code: int, kind: int = pygame.KEYDOWN) -> None:
    pygame.event.post(pygame.event.Event(kind, key=code))


def until(player: Player, condition: Callable[[], bool]) -> None:
    """Let the player work until something happens."""
    give_up = time.monotonic() + 600
    while not condition():
        player.tick()
        time.sleep(0.001)  # leave the interpreter to the background thread
        if time.monotonic() > give_up:
            pytest.fail("it never happened")


def settle(player: Player) -> None:
    """Let the player work until nothing is under way."""
    until(player, lambda: player._job is None and not player._requests)
    for _ in range(20):
        player.tick()


@pytest.fixture
def make_player():
    """Make players that are closed after the test."""
    players = []

    def make(env_id: str = SIMULATOR, env_options: dict | None = None, **args) -> Player:
        env = gym.make(env_id, disable_env_checker=True, **(env_options or {}))
        players.append(Player(env, PlayArgs(env=env_id, **{**FAST, **args})))
        return players[-1]

    yield make
    for player in players:
        player.close()


class TestPlaying:
    def test_every_frame_of_every_block_is_shown_once_in_order(self, make_player):
        player = make_player(seed=3)
        key(pygame.K_UP)
        until(player, lambda: player.blocks == 6 and not player._frames)
        player.paused = True  # two simulators that draw at once in one process spoil each other's pictures
        settle(player)
        env = gym.make(SIMULATOR, disable_env_checker=True)
        truth = list(env.reset(seed=3)[0])
        for action in player.twin.actions:
            truth += list(env.step(action)[0])
        env.close()
        shown = list(player.clip.frames)
        assert len(shown) >= 4 * 7
        np.testing.assert_array_equal(shown, truth[: len(shown)])

    def test_next_block_is_computed_while_one_is_shown(self, make_player):
        player = make_player(fps=0.001)
        until(player, lambda: player._ready is not None and len(player.clip.frames) == 1)
        assert len(player._frames) == 3
        settle(player)
        assert len(player.twin.actions) == 1  # one step ahead and no more

    def test_held_keys_drive(self, make_player):
        player = make_player()
        until(player, lambda: player.blocks == 1)
        key(pygame.K_a)
        key(pygame.K_UP)
        settled = len(player.twin.actions)
        until(player, lambda: player.blocks == settled + 6)
        steer, gas = np.array(player.twin.actions)[:, :2].T
        assert (steer[:settled] == 0).all()
        assert steer[-1] == -1 and gas[-1] == 1
        assert (np.diff(steer) <= 0).all() and np.diff(steer).min() == pytest.approx(-0.25)
        key(pygame.K_a, pygame.KEYUP)
        until(player, lambda: player.hud_state().action[0] == 0)
        assert player.hud_state().action[1] == 1
        pygame.event.post(pygame.event.Event(pygame.WINDOWFOCUSLOST))
        until(player, lambda: not player.hud_state().action.any())

    def test_return_adds_up(self, make_player):
        player = make_player()
        key(pygame.K_UP)
        until(player, lambda: player.blocks == 5)
        assert player.rewards == player.twin.rewards[:5]
        assert player.hud_state().rewards == player.rewards

    def test_restart_and_new_start(self, make_player):
        player = make_player(seed=5)
        key(pygame.K_UP)
        until(player, lambda: player.blocks == 3)
        first = player.clip.frames[0]
        starts = []
        for code in (pygame.K_r, pygame.K_n, pygame.K_r):
            player.clip.frames.clear()
            key(code)
            until(player, lambda: player._moment.begins and player.clip.frames and not player._frames)
            assert player.rewards == []
            starts.append(player.clip.frames[-1])
            until(player, lambda: len(player.rewards) == 2)
        np.testing.assert_array_equal(starts[0], first)
        assert (starts[1] != first).any()
        np.testing.assert_array_equal(starts[2], starts[1])

    @pytest.mark.parametrize("code", [pygame.K_p, pygame.K_SPACE, pygame.K_h])
    def test_pause_stops_stepping(self, make_player, code):
        player = make_player()
        until(player, lambda: player.blocks == 2)
        key(code)
        player.tick()
        settle(player)
        steps, shown = len(player.twin.actions), len(player.clip.frames)
        for _ in range(300):
            player.tick()
        assert (len(player.twin.actions), len(player.clip.frames)) == (steps, shown)
        key(code)
        until(player, lambda: len(player.twin.actions) > steps + 1)

    def test_reset_while_paused_goes_on(self, make_player):
        player = make_player()
        until(player, lambda: player.blocks == 1)
        key(pygame.K_p)
        key(pygame.K_n)
        until(player, lambda: player.blocks == 3)

    def test_time_limit_shows_a_banner_and_a_new_start(self, make_player):
        player = make_player(env_options={"max_episode_blocks": 3}, banner_seconds=1e6)
        until(player, lambda: player.ended and not player._frames)
        assert player.blocks == 3
        player._draw()
        with_banner = pygame.surfarray.array3d(player.screen)
        player._moment.truncated = False
        player._draw()
        assert (pygame.surfarray.array3d(player.screen) != with_banner).any()
        player._moment.truncated = True
        player._ended_until = 0.0
        before = player.twin._seed
        until(player, lambda: player.blocks == 4)
        assert player.twin._seed == before + 1
        assert len(player.rewards) == 1

    def test_clip_is_saved_while_play_goes_on(self, make_player, tmp_path):
        player = make_player(clips=tmp_path, clip_seconds=0.4)
        until(player, lambda: player.blocks == 6)
        key(pygame.K_c)
        player.tick()
        expected = list(player.clip.frames)
        until(player, lambda: player.message.startswith("Saved"))
        (path,) = tmp_path.glob("*.mp4")
        video = iio.imread(path)
        assert len(video) == len(expected) == 20
        assert np.abs(video[-1][4::8, 4::8].astype(int) - expected[-1]).mean() < 10

    def test_clip_asked_for_at_the_end_is_whole(self, make_player, tmp_path):
        player = make_player(clips=tmp_path)
        until(player, lambda: player.blocks == 2)
        key(pygame.K_c)
        key(pygame.K_ESCAPE)
        player.run()
        (path,) = tmp_path.glob("*.mp4")
        assert len(iio.imread(path)) >= 8

    def test_clip_that_cannot_be_saved(self, make_player, tmp_path):
        (tmp_path / "file").touch()
        player = make_player(clips=tmp_path / "file")
        until(player, lambda: player.blocks == 1)
        key(pygame.K_c)
        until(player, lambda: player.message.startswith("The clip could not be saved"))

    @pytest.mark.parametrize("agent", ["random", "scripted"])
    def test_autopilot(self, make_player, agent):
        player = make_player(agent=agent)
        until(player, lambda: player.blocks == 2)
        key(pygame.K_t)
        until(player, lambda: player.autopilot)
        steps = len(player.twin.actions)
        until(player, lambda: len(player.twin.actions) >= steps + 6)
        assert np.any(player.twin.actions[steps + 1 :])
        key(pygame.K_t)
        player.tick()
        assert not player.autopilot
        settle(player)
        until(player, lambda: not player.hud_state().action.any())  # nobody holds a key

    def test_autopilot_from_the_start(self, make_player):
        player = make_player(agent="random", autopilot=True)
        until(player, lambda: player.blocks == 1)
        assert np.any(player.twin.actions[0])

    def test_unknown_agent_is_told(self, make_player):
        player = make_player(agent="nobody")
        key(pygame.K_t)
        until(player, lambda: "nobody" in player.message and player.message.startswith("Not possible"))
        until(player, lambda: player.blocks == 3)
        assert not player.autopilot

    def test_planner_in_a_world_that_is_missing(self, make_player, tmp_path):
        (tmp_path / "planner.json").write_text('{"world": "nowhere"}')
        player = make_player(agent=str(tmp_path / "planner.json"))
        key(pygame.K_t)
        until(player, lambda: player.message.startswith("Not possible: world: 'nowhere'"))
        until(player, lambda: player.blocks == 3)

    @pytest.mark.parametrize("event", [(pygame.KEYDOWN, {"key": pygame.K_ESCAPE}), (pygame.QUIT, {})])
    def test_quitting_ends_the_threads(self, make_player, event):
        player = make_player()
        until(player, lambda: player._job is not None and player.blocks == 2)
        pygame.event.post(pygame.event.Event(event[0], **event[1]))
        player.run()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("astra-")]
        assert not pygame.display.get_init()

    def test_error_in_the_background_ends_play(self):
        class Failing(gym.Wrapper):
            def step(self, action):
                raise OSError("no more road")

        player = Player(Failing(gym.make(SIMULATOR, disable_env_checker=True)), PlayArgs(**FAST))
        with pytest.raises(OSError, match="no more road"):
            player.run()
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("astra-")]

    @pytest.mark.parametrize("env_id", [SIMULATOR, DREAM])
    def test_play_by_arguments(self, env_id):
        play(PlayArgs(env=env_id, agent="random", autopilot=True, blocks=3, scale=2, smooth=True, **FAST))
        assert not pygame.display.get_init()

    def test_command_line_begins_from_a_video(self, tmp_path):
        path = save_clip([np.full((64, 64, 3), 90, np.uint8)] * 8, 50, tmp_path / "road.mp4")
        assert main(["play", "--video", str(path), "--blocks", "2", "--fps", "1000"]) == 0

    def test_command_line_tells_what_is_wrong(self, capsys):
        assert main(["play", "--start", "123456", "--blocks", "1"]) == 2
        assert "start: got 123456" in capsys.readouterr().err
        assert main(["play", "--agent", "scriptd"]) == 2
        assert "agent: got 'scriptd', allowed are 'random'" in capsys.readouterr().err

    def test_scenario_of_a_world_of_several(self, joint_world, capsys):
        args = {"world": str(joint_world), "agent": "random", "autopilot": True, "blocks": 2, **FAST}
        play(PlayArgs(env="AstraWorld-v0", scenario="camera", **args))
        with pytest.raises(ValueError, match="^scenario: got None, the world .* name one of them"):
            play(PlayArgs(env="AstraWorld-v0", **args))

    @pytest.mark.parametrize("wrong", [{"scale": 0}, {"fps": -1.0}, {"clip_seconds": 0.0}, {"blocks": 0}])
    def test_wrong_numbers(self, wrong):
        with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: got"):
            PlayArgs(**wrong)

    def test_one_beginning_only(self, tmp_path):
        with pytest.raises(ValueError, match="only one"):
            PlayArgs(start=1, image=tmp_path)

    def test_environment_without_blocks(self):
        with pytest.raises(ValueError, match="^env: got observations of shape"):
            play(PlayArgs(env="CartPole-v1"))


class TestSwapping:
    """The key that changes over between the dream and the simulator."""

    def test_keys(self, make_player):
        player = make_player(DREAM, {"info_routing": True}, seed=1)
        key(pygame.K_UP)
        until(player, lambda: player.blocks == 3)
        assert not player.hud_state().in_simulator
        assert player.hud_state().routing.sum() == pytest.approx(1, abs=1e-3)
        return_so_far = sum(player.rewards)
        key(pygame.K_TAB)
        until(player, lambda: player.hud_state().in_simulator and player._moment.action is not None)
        assert player.message.startswith("Replayed")
        assert player.hud_state().routing is None
        assert player.hud_state().action[1] == 1  # the key is still held
        assert sum(player.rewards[:3]) == return_so_far
        key(pygame.K_TAB)
        until(player, lambda: not player.hud_state().in_simulator and player._moment.action is not None)
        assert player.message.startswith("The dream goes on")

    def test_simulator_that_is_not_installed(self, make_player, monkeypatch):
        monkeypatch.setitem(sys.modules, "Box2D", None)
        player = make_player(DREAM)
        key(pygame.K_TAB)
        until(player, lambda: "pip install" in player.message)
        blocks = player.blocks
        until(player, lambda: player.blocks == blocks + 3)
        assert not player.in_simulator

    def test_simulator_has_nothing_to_swap_with(self, make_player):
        player = make_player()
        key(pygame.K_TAB)
        until(player, lambda: player.message == "Not possible: this environment is a simulator already.")
        until(player, lambda: player.blocks == 2)


class TestHud:
    def test_panel_shows_everything_beside_the_picture(self, make_player, tmp_path):
        player = make_player(DREAM, {"info_routing": True})
        key(pygame.K_UP)
        until(player, lambda: player.blocks == 3)
        player.say("")
        player.tick()
        pygame.image.save(player.screen, tmp_path / "hud.png")
        screen = iio.imread(tmp_path / "hud.png")
        assert screen.shape == (640, 940, 3)
        picture = screen[5:640:10, 5:640:10]
        np.testing.assert_array_equal(picture, player.clip.frames[-1])

        area = pygame.Rect(player.picture.right, 0, hud.WIDTH, 640)
        changes = {
            "action": np.array([-1, 1, 1], np.float32),
            "rewards": [5.0] * 100,
            "routing": np.array([1.0, 0, 0, 0]),
            "fps": 12.0,
            "in_simulator": True,
            "autopilot": True,
            "paused": True,
            "message": "Hello " * 20,
        }
        images = set()
        for name, value in {"title": player.title, **changes}.items():
            state = dataclasses.replace(player.hud_state(), fps=50.0)
            player._hud.draw(player.screen, area, dataclasses.replace(state, **{name: value}))
            images.add(pygame.image.tobytes(player.screen.subsurface(area), "RGB"))
        assert len(images) == len(changes) + 1

    def test_help_names_every_key(self, make_player):
        player = make_player(scale=1)
        text = " ".join(keys for keys, _ in player._hud.help_lines)
        assert all(name in text.split() for name in (*player.keyboard.keys, *COMMANDS))
        assert player.screen.get_size() == (64 + hud.WIDTH, hud.HEIGHT)
        key(pygame.K_h)
        until(player, lambda: player.showing_help)
