"""Pictures and videos become square frames, and what cannot is refused by name."""

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image

from astra_gym.media import load_image, load_video, resize_frame


def gradient_video(frames: int, height: int = 48, width: int = 80) -> np.ndarray:
    """Smooth frames that brighten with time, ``uint8 (frames, height, width, 3)``."""
    video = np.zeros((frames, height, width, 3), np.uint8)
    video[..., 0] = np.linspace(0, 120, width, dtype=np.uint8)
    video[..., 1] = np.linspace(0, 250, frames, dtype=np.uint8)[:, None, None]
    return video


def test_resize_frame_takes_the_central_square_and_averages():
    frame = np.zeros((8, 16, 3), np.uint8)
    frame[:, :4] = frame[:, 12:] = 255
    frame[::2, 4:12] = 100
    np.testing.assert_array_equal(resize_frame(frame, 4), 50)
    np.testing.assert_array_equal(resize_frame(frame, 2, crop=(0, 0, 4, 8)), 255)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_image_file_equals_its_array(tmp_path, mode):
    image = Image.fromarray(gradient_video(1)[0]).convert(mode)
    image.save(tmp_path / "image.png")
    expected = load_image(np.asarray(image.convert("RGB")), 16)
    assert expected.shape == (16, 16, 3) and expected.dtype == np.uint8
    np.testing.assert_array_equal(load_image(tmp_path / "image.png", 16), expected)
    np.testing.assert_array_equal(load_image(str(tmp_path / "image.png"), 16), expected)


@pytest.mark.parametrize("name", ["video.mp4", "video.gif"])
def test_video_file_is_about_its_array(tmp_path, name):
    video = gradient_video(12)
    first, *others = map(Image.fromarray, video)
    if name.endswith(".gif"):
        first.save(tmp_path / name, save_all=True, append_images=others, duration=40)
    else:
        iio.imwrite(tmp_path / name, video, fps=25, plugin="FFMPEG")
    frames = load_video(tmp_path / name, 16)
    expected = load_video(video, 16)
    assert frames.shape == expected.shape == (12, 16, 16, 3)
    assert np.abs(frames.astype(int) - expected).mean() < 8


@pytest.mark.parametrize(
    ("load", "name", "array"),
    [
        (load_image, "image", np.zeros((8, 8), np.uint8)),
        (load_image, "image", np.zeros((8, 8, 4), np.uint8)),
        (load_image, "image", np.zeros((8, 8, 3), np.float32)),
        (load_image, "image", np.zeros((0, 8, 3), np.uint8)),
        (load_image, "image", 3),
        (load_video, "video", np.zeros((8, 8, 3), np.uint8)),
        (load_video, "video", np.zeros((4, 8, 8, 3), np.int64)),
        (load_video, "video", [1, 2]),
        (load_video, "video", np.zeros((0, 8, 8, 3), np.uint8)),
    ],
)
def test_wrong_arrays_are_refused(load, name, array):
    with pytest.raises(ValueError, match=rf"^{name}: got"):
        load(array, 16)


@pytest.mark.parametrize(("load", "name"), [(load_image, "image"), (load_video, "video")])
def test_unreadable_files_are_refused(tmp_path, load, name):
    with pytest.raises(ValueError, match=rf"^{name}: there is no file"):
        load(tmp_path / "missing.mp4", 16)
    for suffix in (".png", ".mp4"):
        broken = tmp_path / f"broken{suffix}"
        broken.write_bytes(b"neither a picture nor a video")
        with pytest.raises(ValueError, match=rf"^{name}: cannot read"):
            load(broken, 16)


def test_short_video_is_refused():
    with pytest.raises(ValueError, match="^video: got 3 frames, at least 4"):
        load_video(gradient_video(3), 16, min_frames=4)
