"""Camera paths: what a row says of two poses, and the files they come from."""

import json

import numpy as np
import pytest

from astra_gym.camera import load_poses, nuscenes_rows, path_rows, preset_rows, rows_to_poses, yaw_matrix


def test_unknown_preset_is_named():
    with pytest.raises(ValueError, match=r"preset: got 8, allowed are 1 \(forward\)"):
        preset_rows(8, 4)


def test_a_path_of_extrinsics_is_walked_again():
    step = yaw_matrix(0.02)
    step[:3, 3] = (0.1, 0.0, -0.2)
    poses = np.stack([np.linalg.matrix_power(step, i) for i in range(13)])
    rows = path_rows(poses)
    assert rows.shape == (3, 13) and not rows[:, -1].any()
    pose = poses[0]
    for relative in rows_to_poses(rows):
        pose = relative @ pose
    assert np.allclose(pose, poses[12], atol=1e-5)


def test_a_path_in_opencv_axes_has_the_signs_of_the_presets():
    """World to camera, x right, y down, z forward: what lies ahead comes nearer, and goes right in a turn left."""
    forward, left = np.tile(np.eye(4), (2, 5, 1, 1))
    forward[:, 2, 3] = -0.03 / 4 * np.arange(5)
    for pose, angle in zip(left, 0.03 / 4 * np.arange(5), strict=True):
        ahead = (np.sin(angle), 0, np.cos(angle))
        pose[:3, :3] = np.stack([(np.cos(angle), 0, -np.sin(angle)), (0, 1, 0), ahead], 1)
    assert np.allclose(path_rows(forward), preset_rows(1, 1), atol=1e-3)
    assert np.allclose(path_rows(left), preset_rows(2, 1), atol=1e-3)


def test_seven_vectors():
    half = np.pi / 4  # a quarter turn about y, quaternion x, y, z, w
    vectors = np.array([[0, 0, 0, 0, 0, 0, 1], [1, 2, 3, 0, np.sin(half), 0, np.cos(half)], [1, 2, 4, 0, 0, 0, 2.0]])
    first, second = rows_to_poses(path_rows(vectors))
    assert np.allclose(first[:3, :3], yaw_matrix(np.pi / 2)[:3, :3], atol=1e-6)
    assert np.allclose(first[:3, 3], (1, 2, 3))
    assert np.allclose(second[:3, :3], yaw_matrix(-np.pi / 2)[:3, :3], atol=1e-6)
    assert np.allclose(second[:3, 3], yaw_matrix(np.pi / 2)[:3, :3].T @ (0, 0, 1), atol=1e-6)


def test_pose_files(tmp_path):
    poses = np.stack([np.eye(4)] * 5)
    np.save(tmp_path / "a.npy", poses)
    np.savez(tmp_path / "b.npz", extrinsic=poses, intrinsic=np.eye(3))
    (tmp_path / "c.json").write_text(json.dumps(poses.tolist()))
    (tmp_path / "d.json").write_text(json.dumps({"camera": poses.tolist()}))
    assert all(np.array_equal(load_poses(path), poses) for path in tmp_path.iterdir())


@pytest.mark.parametrize("content", ['{"a": [], "b": []}', "[[1, 2], [3]]", "no json", '["x"]'])
def test_bad_pose_files(content, tmp_path):
    (tmp_path / "poses.json").write_text(content)
    with pytest.raises(ValueError, match="poses: cannot read"):
        load_poses(tmp_path / "poses.json")
    with pytest.raises(ValueError, match="poses: cannot read .*allowed are .npy, .npz and .json"):
        load_poses(tmp_path / "poses.txt")


REFLECTION = np.diag([1.0, 1, -1, 1])


@pytest.mark.parametrize(
    ("poses", "message"),
    [
        (np.stack([np.eye(4), REFLECTION]), "pose 1 is not rigid"),
        (np.stack([np.eye(4), 1.01 * np.eye(4)]), "pose 1 is not rigid"),
        (np.stack([np.eye(4), np.full((4, 4), np.inf)]), "pose 1 is not finite"),
        (np.zeros((3, 7)), "pose 0 is not rigid"),
        (np.eye(4)[None], "at least 2 poses"),
        (np.zeros((5, 3, 3)), r"got shape \(5, 3, 3\)"),
        ([["a"]], "no array of numbers"),
    ],
)
def test_bad_poses(poses, message):
    with pytest.raises(ValueError, match=f"poses: .*{message}"):
        path_rows(poses)


def test_nuscenes_rows():
    keyframes = [
        {"translation": [5, 6, 7], "rotation": [1, 0, 0, 0]},
        {"translation": [6, 6, 7], "rotation": [0, 0, 0, 1]},
    ]
    assert nuscenes_rows(keyframes).tolist() == [[0, 0, 0, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 1, 0]]
    for bad, message in (
        ([], "there are none"),
        ([{"translation": [1, 2, 3]}], "entry 0 has no translation and rotation"),
        ([{"translation": [1, 2, np.nan], "rotation": [1, 0, 0, 0]}], "entry 0 is not 3 and 4 finite numbers"),
    ):
        with pytest.raises(ValueError, match=f"keyframe_poses: {message}"):
            nuscenes_rows(bad)
