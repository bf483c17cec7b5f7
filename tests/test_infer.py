"""astra-gym infer: every kind of beginning and motion makes a video of the right length; what is wrong is named."""

import json
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
import torch
from PIL import Image

from astra_gym.camera import preset_rows, still_rows, yaw_matrix
from astra_gym.cli import main
from astra_gym.conditions import load_encoded_clip
from astra_gym.convert import ConvertArgs, convert
from astra_gym.overlay import draw_keys, held_keys
from tests import tiny_astra

NEW_FRAMES = 2 * 4
"""Of one block of two latent frames."""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder with a model and one file of each kind that infer reads."""
    root = tmp_path_factory.mktemp("infer")
    wan = tiny_astra.write_original(root / "wan")
    convert(ConvertArgs(tiny_astra.ASTRA_CHECKPOINT, wan, root / "model", num_heads=tiny_astra.NUM_HEADS))
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(root / "garden.png")
    iio.imwrite(root / "video.mp4", random.integers(0, 256, (12, 32, 48, 3), dtype=np.uint8), fps=20, plugin="FFMPEG")
    poses = np.stack([np.linalg.matrix_power(yaw_matrix(0.01), i) for i in range(17)])
    np.save(root / "poses.npy", poses)
    (root / "poses.json").write_text(json.dumps({"extrinsic": poses.tolist()}))
    keyframes = [{"translation": [0.5 * i, 0, 0], "rotation": [1, 0, 0, 0]} for i in range(4)]
    (root / "scene.json").write_text(json.dumps({"keyframe_poses": keyframes}))
    clip = {
        "latents": torch.randn(16, 2, 4, 6),
        "cam_emb": {"extrinsic": poses.astype(np.float32), "intrinsic": np.eye(3)},
        "prompt_emb": {"context": torch.randn(1, 5, tiny_astra.TEXT_DIM)},
    }
    torch.save(clip, root / "clip.pth")
    return root


def infer(root: Path, *arguments: str) -> int:
    quick = ["--num-inference-steps", "1", "--num-blocks", "1", "--frames-per-block", "2", "--dtype", "float32"]
    size = ["--height", "32", "--width", "48", "--device", "cpu"]
    named = [str(root / argument[1:]) if argument.startswith("@") else argument for argument in arguments]
    return main(["infer", "--model", str(root / "model"), "--output", str(root / "out.mp4"), *quick, *size, *named])


VIDEOS = {
    "image and preset": (["--image", "@garden.png", "--preset", "4", "--prompt", "a garden"], 1),
    "image and poses": (["--image", "@garden.png", "--poses", "@poses.npy"], 1),
    "image and poses as json": (["--image", "@garden.png", "--poses", "@poses.json", "--modality", "openx"], 1),
    "another camera for a video": (
        ["--video", "@video.mp4", "--preset", "2", "--condition-frames", "3", "--overlay"],
        9,
    ),
    "clip with its own poses": (["--clip", "@clip.pth", "--condition-frames", "2", "--guidance-scale", "2"], 5),
    "driving scene": (["--image", "@garden.png", "--modality", "nuscenes", "--scene", "@scene.json"], 1),
}


@pytest.mark.parametrize("name", VIDEOS)
def test_video(root, name, capsys):
    arguments, condition_frames = VIDEOS[name]
    assert infer(root, *arguments) == 0, capsys.readouterr().err
    assert iio.imread(root / "out.mp4").shape == (condition_frames + NEW_FRAMES, 32, 48, 3)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"beginning: {condition_frames} frame") and lines[1].startswith(
        "block 1: 8 frames, denoise"
    )
    assert lines[-1] == str(root / "out.mp4")
    assert not list(root.glob(".*"))


BAD = {
    "preset: got 9": ["--image", "@garden.png", "--preset", "9"],
    "preset, poses, scene: got none": ["--image", "@garden.png"],
    "preset, poses, scene: got preset and poses": ["--clip", "@clip.pth", "--preset", "1", "--poses", "@poses.npy"],
    "image, video, clip: got none": ["--preset", "1"],
    "image: there is no file": ["--image", "@nothing.png", "--preset", "1"],
    "image: cannot read": ["--image", "@garden.npy", "--preset", "1"],
    "video: cannot read": ["--video", "@garden.npy", "--preset", "1"],
    "clip: cannot read": ["--clip", "@video.mp4", "--preset", "1"],
    "poses: cannot read": ["--image", "@garden.png", "--poses", "@video.mp4"],
    "scene:": ["--image", "@garden.png", "--modality", "nuscenes", "--scene", "@poses.json"],
    "height, width: got 30x48": ["--image", "@garden.png", "--preset", "1", "--height", "30"],
    "video: it has 12 frames": ["--video", "@video.mp4", "--preset", "1", "--condition-frames", "4"],
    "model:": ["--image", "@garden.png", "--preset", "1", "--model", "@nothing"],
    "overlay:": ["--image", "@garden.png", "--modality", "nuscenes", "--scene", "@scene.json", "--overlay"],
    "output: got": ["--image", "@garden.png", "--preset", "1", "--output", "@out.gif"],
    "device: got 'cuda:99'": ["--image", "@garden.png", "--preset", "1", "--device", "cuda:99"],
    "num_blocks: got 2": ["--image", "@garden.png", "--poses", "@poses.npy", "--num-blocks", "2"],
}


KNOWN_BY_THE_MODEL = ("num_blocks",)
"""What only the model can say is wrong; the rest is refused before it is loaded, which takes a minute."""


@pytest.mark.parametrize("message", BAD)
def test_bad_input(root, message, capsys, monkeypatch):
    if not message.startswith(KNOWN_BY_THE_MODEL):
        monkeypatch.setattr("astra_gym.infer._load_pipeline", lambda args: pytest.fail("the model was loaded"))
    (root / "garden.npy").write_text("no video")
    assert infer(root, *BAD[message]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("astra-gym")]
    assert line.startswith(f"astra-gym infer: {message}"), line


def test_encoded_clip(root):
    clip = load_encoded_clip(root / "clip.pth")
    assert clip.latents.shape == (1, 2, 16, 4, 6)
    assert clip.extrinsics.shape == (17, 4, 4) and clip.prompt_embeds.shape == (1, 5, tiny_astra.TEXT_DIM)


def test_held_keys():
    keys = {1: {"W"}, 2: {"left"}, 3: {"right"}, 4: {"W", "left"}, 5: {"W", "right"}}
    assert {preset: held_keys(preset_rows(preset, 2)[0]) for preset in keys} == keys
    assert held_keys(still_rows(1)[0]) == set()


def test_held_keys_are_bright():
    frame = np.full((120, 208, 3), 90, np.uint8)
    still, forward = draw_keys(frame, still_rows(1)[0]), draw_keys(frame, preset_rows(1, 1)[0])
    changed = np.argwhere((still != forward).any(-1))
    assert np.array_equal(frame, np.full_like(frame, 90))
    assert changed[:, 1].max() < 104 and forward[tuple(changed.T)].mean() > still[tuple(changed.T)].mean() + 50
