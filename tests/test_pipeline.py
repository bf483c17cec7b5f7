"""The pipeline on a tiny converted model: streaming without seams, actions that count, errors in one line."""

import numpy as np
import pytest
import torch
from PIL import Image

from astra_gym.camera import pose_rows, preset_rows, relative_poses, yaw_matrix
from astra_gym.convert import ConvertArgs, convert
from astra_gym.models.video_codec import StreamingDecoder, encode_video
from astra_gym.pipeline import AstraPipeline
from tests import tiny_astra

HEIGHT, WIDTH = 32, 48
QUICK = {"num_inference_steps": 2, "frames_per_block": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("astra")
    wan = tiny_astra.write_original(root / "wan")
    convert(ConvertArgs(tiny_astra.ASTRA_CHECKPOINT, wan, root / "astra", num_heads=tiny_astra.NUM_HEADS))
    return root / "astra"


@pytest.fixture(scope="module")
def pipe(folder):
    pipe = AstraPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def video():
    return np.random.default_rng(1).integers(0, 256, (11, HEIGHT, WIDTH, 3), dtype=np.uint8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_output(pipe, image):
    output = pipe("a garden", image=image, preset=4, num_blocks=2, generator=seeded(), **QUICK)
    assert output.frames.shape == (1 + 2 * 2 * 4, HEIGHT, WIDTH, 3) and output.frames.dtype == np.uint8
    assert output.latents.shape == (1, 4, 16, HEIGHT // 8, WIDTH // 8)
    assert output.beginning_frames == 1
    assert np.array_equal(output.rows, preset_rows(4, 4))
    assert [sorted(seconds) for seconds in output.timings] == [["decode", "encode"]] + [["decode", "denoise"]] * 2
    again = pipe("a garden", image=image, preset=4, num_blocks=2, generator=seeded(), return_dict=False, **QUICK)
    assert np.array_equal(again[0], output.frames)


def test_offload_that_cannot_be_is_refused(pipe):
    with pytest.raises(RuntimeError, match="use enable_model_cpu_offload"):
        pipe.enable_sequential_cpu_offload()


def test_everything_conditions(pipe, image):
    def frames(prompt="a garden", seed=0, **arguments):
        arguments = {"image": image, "preset": 1, **arguments}
        return pipe(prompt, num_blocks=1, generator=seeded(seed), **arguments, **QUICK).latents

    reference = frames()
    assert torch.equal(reference, frames())
    others = [
        frames(seed=1),
        frames(prompt="a street"),
        frames(preset=2),
        frames(image=255 - image),
        frames(guidance_scale=2.0),
        frames(text_guidance_scale=3.0),
        frames(modality="openx"),
    ]
    assert all((reference - other).abs().max() > 1e-4 for other in others)


def test_blocks_have_no_seams(pipe, video):
    """Streamed frames are those of the whole video decoded at once by diffusers."""
    latents = encode_video(pipe.vae, video[:9])
    decoder = StreamingDecoder(pipe.vae)
    streamed = np.concatenate([decoder.decode(latents[:, :2]), decoder.decode(latents[:, 2:])])
    mean, std = (
        torch.tensor(values).view(-1, 1, 1, 1) for values in (pipe.vae.config.latents_mean, pipe.vae.config.latents_std)
    )
    with torch.no_grad():
        whole = pipe.vae.decode(latents.transpose(1, 2) * std + mean).sample[0].permute(1, 2, 3, 0)
    assert streamed.shape == (9, HEIGHT, WIDTH, 3)
    assert np.abs(streamed.astype(int) - ((whole + 1) * 127.5).round().numpy().astype(int)).max() == 0


def test_first_latent_frame_is_that_of_the_picture_repeated(pipe, image):
    repeated = encode_video(pipe.vae, np.stack([image] * 9))
    assert torch.allclose(encode_video(pipe.vae, image[None]), repeated[:, :1], atol=1e-5)


def test_stream_is_lazy_and_calls_back(pipe, image):
    steps = []

    def callback(pipeline, step, timestep, tensors):
        steps.append((step, round(timestep)))
        return {"latents": tensors["latents"] * 0} if step == 1 else {}

    blocks = pipe.stream("", image=image, preset=1, num_blocks=2, callback_on_step_end=callback, **QUICK)
    assert len(next(blocks).frames) == 1 and steps == []
    assert next(blocks).latents.abs().max() == 0
    assert steps == [(0, 1000), (1, 833)]


def test_reshooting_a_video(pipe, video):
    output = pipe(video=video, start_frame=1, preset=3, num_blocks=1, **QUICK)
    assert output.beginning_frames == 9  # of the 10 frames from frame 1 on, 1 + 2 * 4 make whole latent frames
    one = pipe(video=video, condition_frames=1, preset=3, num_blocks=1, **QUICK)
    assert one.beginning_frames == 1


def test_poses(pipe, image):
    poses = np.stack([np.linalg.matrix_power(yaw_matrix(0.01), i) for i in range(17)])
    beginning, new = pipe.action_rows("sekai", 1, poses=poses)
    assert len(beginning) == 1 and len(new) == 3
    assert np.allclose(new, pose_rows(np.stack([yaw_matrix(0.04)] * 3)), atol=1e-6)
    assert pipe(image=image, poses=poses, **QUICK).frames.shape[0] == 1 + 3 * 4
    assert np.allclose(relative_poses(poses), yaw_matrix(0.04))


def test_more_history_than_the_window(pipe, image):
    episode = pipe.begin(image=image, num_inference_steps=1)
    rows = preset_rows(1, 12)
    for _ in range(3):
        block = episode.step(rows)
    assert episode.latents.shape[1] == 37 and torch.isfinite(block.latents).all()


def test_snapshot(pipe, image):
    episode = pipe.begin(image=image, num_inference_steps=1, generator=seeded())
    state = episode.state()
    first = episode.step(preset_rows(1, 2)).frames
    episode.load_state(state)
    assert np.array_equal(episode.step(preset_rows(1, 2)).frames, first)


def test_pictures_are_fitted(pipe, image, tmp_path):
    Image.fromarray(np.repeat(np.repeat(image, 3, 0), 2, 1)).save(tmp_path / "garden.png")
    output = pipe(image=tmp_path / "garden.png", height=HEIGHT, width=WIDTH, preset=1, num_blocks=1, **QUICK)
    assert output.frames.shape[1:3] == (HEIGHT, WIDTH)


def test_half_precision(folder, image):
    pipe = AstraPipeline.from_pretrained(folder, dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    assert pipe.transformer.dtype == torch.bfloat16
    assert pipe("a", image=image, preset=1, num_blocks=1, guidance_scale=2.0, **QUICK).frames.shape[0] == 9


BAD = {
    "image: got 30x48": {"image": np.zeros((30, 48, 3), np.uint8), "preset": 1},
    "image: got float64": {"image": np.zeros((32, 48, 3)), "preset": 1},
    "image: there is no file": {"image": "nowhere.png", "preset": 1},
    "height, width: got 33x48": {"image": np.zeros((32, 48, 3), np.uint8), "preset": 1, "height": 33, "width": 48},
    "image, video, latents: got none": {"preset": 1},
    "video: it has 3 frames": {"video": np.zeros((3, 32, 48, 3), np.uint8), "preset": 1, "condition_frames": 2},
    "latents: got shape (1, 16, 2, 4, 6)": {"latents": torch.zeros(1, 16, 2, 4, 6), "preset": 1},
    "condition_frames: got 3": {"latents": torch.zeros(1, 2, 16, 4, 6), "condition_frames": 3, "preset": 1},
    "preset: got 8": {"preset": 8},
    "actions, preset, poses: got none": {},
    "actions: got shape": {"actions": np.zeros((2, 12))},
    "poses: pose 1 is not finite": {"poses": np.stack([np.eye(4), np.full((4, 4), np.nan)])},
    "poses: pose 0 is not rigid": {"poses": np.stack([2 * np.eye(4)] * 9)},
    "poses: got 5, enough for 1 latent frames; 2 are needed": {"poses": np.stack([np.eye(4)] * 5)},
    "modality: got 'walk'": {"preset": 1, "modality": "walk"},
    "modality: presets and poses": {"preset": 1, "modality": "nuscenes"},
    "num_inference_steps: got 0": {"preset": 1, "num_inference_steps": 0},
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input(pipe, image, message):
    arguments = {"image": image, **BAD[message]}
    if message.startswith(("image, video", "video", "latents", "condition_frames")):
        del arguments["image"]
    with pytest.raises(ValueError) as error:
        pipe(**arguments)
    assert str(error.value).startswith(message), error.value
