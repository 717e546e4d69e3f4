"""Cameras brought along: files read, photos found by name, lenses straightened, points made where there are none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from colmap_writer import write_reconstruction
from courtyard import TRANSFORMS, disagreement, photo_paths, true_poses
from generators import returned
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial import cKDTree

from difix3d.errors import ConfigError, FormatError, ReconstructionError
from difix3d.formats.colmap import read_reconstruction
from difix3d.formats.image import read_rgb, write_rgb
from difix3d.geometry import look_at
from difix3d.sfm.base import Photo, PhotoSet, SfmResult, SfmSettings
from difix3d.sfm.known_poses import KnownPosesBackend, match_names
from difix3d.sfm.pose_files import files_of, find_poses, read_transforms
from difix3d.types import Camera, Reconstruction, View

IDENTITY = np.eye(4).tolist()


def written(folder: Path, data: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "transforms.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def courtyard_photos(folder: Path, every: int = 3, size: tuple[int, int] | None = None) -> PhotoSet:
    """Stored as a capture stores them, under names that say nothing; size: to resize to."""
    folder.mkdir(parents=True)
    photos = []
    for index, path in enumerate(photo_paths(every), start=1):
        rgb = read_rgb(path, size)
        name = f"{100 + index:05d}.png"
        write_rgb(folder / name, rgb)
        photos.append(Photo(name, rgb.shape[1], rgb.shape[0], path.name))
    return PhotoSet(folder, tuple(photos), ordered=True)


def run(photos: PhotoSet, poses: Path, workspace: Path) -> SfmResult:
    workspace.mkdir(exist_ok=True)
    settings = SfmSettings(known_poses=str(poses), threads=2)
    return returned(KnownPosesBackend().reconstruct(photos, workspace, settings))


# transforms.json


def test_axes_of_a_transforms_json(tmp_path: Path) -> None:
    """OpenGL's camera looks along its own -z with y up: at the world's origin it must see what lies at z = -3."""
    path = written(tmp_path, {"fl_x": 100, "w": 80, "h": 60, "frames": [
        {"file_path": "images/a.jpg", "transform_matrix": IDENTITY}]})  # fmt: skip
    (frame,) = read_transforms(path)
    np.testing.assert_allclose(frame.cam_from_world @ [0.5, 0.25, -3, 1], [0.5, -0.25, 3, 1], atol=1e-12)
    assert (frame.name, frame.model, frame.width, frame.height) == ("images/a.jpg", "PINHOLE", 80, 60)
    assert frame.params == (100, 100, 40, 30)


def test_each_frame_may_have_its_own_lens(tmp_path: Path) -> None:
    shared = {"fl_x": 100, "fl_y": 110, "cx": 41, "cy": 29, "w": 80, "h": 60, "k1": 0.1, "k2": 0.02, "p1": 0.003}
    frames = [
        {"file_path": "a"},
        {"file_path": "b", "fl_x": 200, "k1": 0, "k2": 0, "p1": 0},
        {"file_path": "c", "camera_model": "OPENCV_FISHEYE", "k3": 0.5, "k4": 0.6},
        {"file_path": "d", "k3": 0.7},
    ]
    path = written(tmp_path, {**shared, "frames": [{**frame, "transform_matrix": IDENTITY} for frame in frames]})
    a, b, c, d = read_transforms(path)
    assert (a.model, a.params) == ("OPENCV", (100, 110, 41, 29, 0.1, 0.02, 0.003, 0))
    assert (b.model, b.params) == ("PINHOLE", (200, 110, 41, 29))
    assert (c.model, c.params) == ("OPENCV_FISHEYE", (100, 110, 41, 29, 0.1, 0.02, 0.5, 0.6))
    assert (d.model, d.params[4:9]) == ("FULL_OPENCV", (0.1, 0.02, 0.003, 0, 0.7)) and len(d.params) == 12


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("{", "expected JSON"),
        ([], 'expected a list "frames"'),
        ({"frames": []}, 'expected a list "frames"'),
        ({"frames": [{"transform_matrix": IDENTITY}]}, 'frame 0: expected "file_path"'),
        ({"frames": [{"file_path": "a.jpg"}], "fl_x": 1, "w": 2, "h": 2}, r"a.jpg: expected .transform_matrix"),
        ({"frames": [{"file_path": "a", "transform_matrix": [[1, 2], [3, 4]]}], "fl_x": 1, "w": 2, "h": 2}, "4 rows"),
        ({"frames": [{"file_path": "a", "transform_matrix": [["x"] * 4] * 4}], "fl_x": 1, "w": 2, "h": 2}, "4 rows"),
        ({"frames": [{"file_path": "a", "transform_matrix": [[1.0] * 4] * 4}], "fl_x": 1, "w": 2, "h": 2}, "rotation"),
        ({"frames": [{"file_path": "a", "transform_matrix": IDENTITY}]}, "focal length"),
        ({"frames": [{"file_path": "a", "transform_matrix": IDENTITY}], "fl_x": "wide"}, "expected a number"),
        ({"frames": [{"file_path": "a", "transform_matrix": IDENTITY}], "fl_x": 5}, "above 0"),
        (
            {"frames": [{"file_path": "a", "transform_matrix": IDENTITY, "camera_model": "EQUIRECTANGULAR"}],
             "fl_x": 5, "w": 8, "h": 4},
            "EQUIRECTANGULAR cannot be straightened",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_transforms_json_is_said(tmp_path: Path, data: Any, words: str) -> None:
    with pytest.raises(FormatError, match=words):
        read_transforms(written(tmp_path, data))


def test_poses_are_found_where_people_put_them(tmp_path: Path) -> None:
    camera = Camera(np.diag([50.0, 50, 1]), 8, 8, np.eye(4))
    model = Reconstruction((View("a.jpg", camera),), np.zeros((0, 3)), np.zeros((0, 3), np.uint8))
    write_reconstruction(tmp_path / "project/sparse/0", model)
    write_reconstruction(tmp_path / "text", model, ".txt")
    json_path = written(tmp_path / "nerf", {"frames": []})
    assert find_poses(tmp_path / "project") == tmp_path / "project/sparse/0"
    assert find_poses(tmp_path / "text") == tmp_path / "text"
    assert find_poses(tmp_path / "nerf") == json_path == find_poses(json_path)
    assert [Path(name).name for name in files_of(tmp_path / "text")] == ["cameras.txt", "images.txt", "points3D.txt"]
    for path, words in ((tmp_path / "no", "no such file"), (tmp_path, "holds no poses"), (Path(__file__), "no poses")):
        with pytest.raises(ConfigError, match=words):
            find_poses(path)


# Which photo is which

NAMES = st.lists(st.from_regex(r"[A-Z]{1,3}_[0-9]{1,4}", fullmatch=True), min_size=1, max_size=20, unique=True)


@given(stems=NAMES, data=st.data())
def test_photos_are_found_by_name_with_or_without_folders_and_suffix(stems: list[str], data: st.DataObject) -> None:
    stored = [Photo(f"{row:05d}.jpg", 8, 8, f"{stem}.JPG") for row, stem in enumerate(stems)]
    wrap = data.draw(st.sampled_from(["images/{}.JPG", "{}.JPG", "./train/{}", "C:\\photos\\{}.png"]))
    given_names = data.draw(st.permutations([wrap.format(stem) for stem in stems]))
    found = match_names(given_names, PhotoSet(Path(), tuple(stored)))
    assert {name: photo.source for name, photo in found.items()} == {wrap.format(stem): f"{stem}.JPG" for stem in stems}


def test_names_that_fit_two_photos_or_none_are_left_out() -> None:
    photos = PhotoSet(Path(), (Photo("1.jpg", 8, 8, "a.jpg"), Photo("2.jpg", 8, 8, "a.png"), Photo("3.jpg", 8, 8, "b")))
    assert {name: photo.name for name, photo in match_names(["x/A", "b", "c"], photos).items()} == {"b": "3.jpg"}
    assert match_names(["c.jpg"], photos) == {}
    assert {name: photo.name for name, photo in match_names(["1.jpg", "3.jpg"], photos).items()} == {
        "1.jpg": "1.jpg",
        "3.jpg": "3.jpg",
    }


# The whole way


@pytest.mark.slow
def test_a_lens_with_distortion_is_straightened(tmp_path: Path) -> None:
    """Courtyard photos bent by a known lens, with its numbers in the file: straight again, cameras where they were."""
    photos = courtyard_photos(tmp_path / "bent")
    data = json.loads(TRANSFORMS.read_text()) | {"k1": 0.08, "k2": -0.02, "p1": 0.001, "p2": -0.002}
    lens = np.array([data["k1"], data["k2"], data["p1"], data["p2"]])
    K = np.array([[data["fl_x"], 0, data["cx"] - 0.5], [0, data["fl_y"], data["cy"] - 0.5], [0, 0, 1]])
    pixels = np.stack(np.meshgrid(np.arange(640.0), np.arange(360.0)), axis=-1).reshape(-1, 1, 2)
    source = cv2.undistortPoints(pixels, K, lens, P=K).reshape(360, 640, 2).astype(np.float32)
    straight = {}
    for photo in photos.photos:
        straight[photo.name] = read_rgb(photos.folder / photo.name)
        bent = cv2.remap(straight[photo.name], source[..., 0], source[..., 1], cv2.INTER_CUBIC)
        write_rgb(photos.folder / photo.name, np.asarray(bent, dtype=np.uint8))
    result = run(photos, written(tmp_path, data), tmp_path / "work")
    assert result.figures["points_from"] == "matches" and result.figures["reprojection_px"] < 1
    found = read_reconstruction(result.sparse_dir, result.images_dir)
    assert len(found.views) == len(photos.photos) and not result.left_out
    away, angle_deg, _ = disagreement({photos.source_of(v.name): v.camera for v in found.views}, true_poses())
    assert away < 1e-6 and angle_deg < 1e-4
    for view in found.views[::4]:
        # Look up each new pixel's ray in the photo as it was before it was bent.
        camera, true = view.camera, straight[view.name]
        x, y = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
        rays_x, rays_y = (x - camera.K[0, 2]) / camera.K[0, 0], (y - camera.K[1, 2]) / camera.K[1, 1]
        map_x = (rays_x * data["fl_x"] + data["cx"] - 0.5).astype(np.float32)
        map_y = (rays_y * data["fl_y"] + data["cy"] - 0.5).astype(np.float32)
        expected = cv2.remap(true, map_x, map_y, cv2.INTER_CUBIC).astype(float)
        inside = (map_x > 4) & (map_x < 635) & (map_y > 4) & (map_y < 355)
        error = (read_rgb(view.image_path).astype(float) - expected)[inside]
        assert inside.mean() > 0.8 and 10 * np.log10(255**2 / (error**2).mean()) > 30


@pytest.mark.slow
def test_a_colmap_model_keeps_its_points_at_any_size_of_the_photos(tmp_path: Path) -> None:
    """First poses without points, then what came out as a COLMAP model (text) for photos of half the size."""
    photos = courtyard_photos(tmp_path / "full")
    first = read_reconstruction(run(photos, TRANSFORMS, tmp_path / "first").sparse_dir)
    named = tuple(View(photos.source_of(v.name), v.camera, None, v.point_indices) for v in first.views)
    write_reconstruction(tmp_path / "model/sparse/0", Reconstruction(named, first.points, first.colors), ".txt")

    half = courtyard_photos(tmp_path / "half", size=(320, 180))
    result = run(half, tmp_path / "model", tmp_path / "second")
    assert result.figures["points_from"] == "model" and result.figures["seconds_match"] == 0
    assert result.figures["reprojection_px"] < 0.01  # the observations written are exact projections
    second = read_reconstruction(result.sparse_dir, result.images_dir)
    np.testing.assert_allclose(second.points, first.points, atol=1e-9)
    np.testing.assert_array_equal(second.colors, first.colors)
    for before, after in zip(first.views, second.views, strict=True):
        np.testing.assert_array_equal(after.point_indices, before.point_indices)
        np.testing.assert_allclose(after.camera.cam_from_world, before.camera.cam_from_world, atol=1e-9)
        np.testing.assert_allclose(after.camera.K, before.camera.sized(320, 180).K, atol=1e-9)
        assert (after.camera.width, after.camera.height) == (320, 180)

    few = PhotoSet(half.folder, half.photos[:8], ordered=True)
    fewer = read_reconstruction(run(few, tmp_path / "model", tmp_path / "third").sparse_dir)
    assert len(fewer.views) == 8 and 100 < len(fewer.points) < len(first.points)
    seen = np.bincount(np.concatenate([view.point_indices for view in fewer.views]), minlength=len(fewer.points))
    assert seen.min() >= 2


@pytest.mark.slow
def test_few_points_become_many_and_cameras_stay(tmp_path: Path) -> None:
    """A COLMAP model of features alone, thinned: its points are kept, and hundreds more lie where the scene is."""
    photos = courtyard_photos(tmp_path / "photos")
    whole = read_reconstruction(run(photos, TRANSFORMS, tmp_path / "first").sparse_dir)
    kept = np.arange(0, len(whole.points), 4)
    row = np.full(len(whole.points), -1)
    row[kept] = np.arange(len(kept))
    views = []
    for view in whole.views:
        rows = row[view.point_indices]
        views.append(View(photos.source_of(view.name), view.camera, None, rows[rows >= 0]))
    thin = Reconstruction(tuple(views), whole.points[kept], whole.colors[kept])
    write_reconstruction(tmp_path / "model", thin)
    result = run(photos, tmp_path / "model", tmp_path / "second")
    assert result.figures["points_from"] == "model" and result.figures["points"] > 2 * len(kept)
    found = read_reconstruction(result.sparse_dir, result.images_dir)
    np.testing.assert_allclose(found.points[: len(kept)], thin.points, atol=1e-9)
    for before, after in zip(whole.views, found.views, strict=True):
        np.testing.assert_allclose(after.camera.cam_from_world, before.camera.cam_from_world, atol=1e-9)
    away, _ = cKDTree(whole.points).query(found.points[len(kept) :])
    extent = np.linalg.norm(np.ptp([view.camera.position for view in whole.views], axis=0))
    assert np.median(away) < 0.01 * extent and np.quantile(away, 0.9) < 0.05 * extent


@pytest.mark.slow
def test_poses_of_other_photos_are_found_out(tmp_path: Path) -> None:
    photos = courtyard_photos(tmp_path / "photos")
    data = json.loads(TRANSFORMS.read_text())
    rng = np.random.default_rng(0)
    for frame in data["frames"]:
        cam_from_world = look_at(rng.uniform(-3, 3, 3), rng.uniform(-1, 1, 3))
        frame["transform_matrix"] = (np.linalg.inv(cam_from_world) @ np.diag([1.0, -1, -1, 1])).tolist()
    with pytest.raises(ReconstructionError, match=r"agree on only .* belong to other photos"):
        run(photos, written(tmp_path, data), tmp_path / "work")


def test_photos_of_another_shape_or_name_are_refused(tmp_path: Path) -> None:
    photos = courtyard_photos(tmp_path / "tall", every=6, size=(360, 640))
    with pytest.raises(FormatError, match=r"00001.jpg is 360x640 pixels, its camera is for 640x360"):
        run(photos, TRANSFORMS, tmp_path / "work")
    others = tuple(Photo(p.name, 640, 360, f"DSC_{p.name}") for p in photos.photos)
    with pytest.raises(ReconstructionError, match=r"name 0 of the 6 photos.*called DSC_.*poses are for 00001.jpg"):
        run(PhotoSet(photos.folder, others), TRANSFORMS, tmp_path / "work")


def test_a_broken_colmap_model_is_a_format_error(tmp_path: Path) -> None:
    photos = courtyard_photos(tmp_path / "photos", every=6)
    camera = Camera(np.diag([50.0, 50, 1]), 8, 8, np.eye(4))
    views = tuple(View(photo.source, camera) for photo in photos.photos)
    write_reconstruction(tmp_path / "model", Reconstruction(views, np.zeros((0, 3)), np.zeros((0, 3), np.uint8)))
    shutil.copytree(tmp_path / "model", tmp_path / "broken")
    (tmp_path / "broken/images.bin").write_bytes((tmp_path / "model/images.bin").read_bytes()[:100])
    with pytest.raises(FormatError, match="COLMAP model, could not read it"):
        run(photos, tmp_path / "broken", tmp_path / "work")
