"""camera_path.json: exact round trips, nerfstudio's own files, and bad ones refused in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from difix3d.errors import FormatError
from difix3d.formats.camera_path import MAX_CAMERAS, read_camera_path, write_camera_path
from difix3d.geometry import quat_to_rotation
from difix3d.types import Camera, Trajectory

finite = st.floats(-100, 100)


@st.composite
def cameras(draw: st.DrawFn) -> Camera:
    quat = np.array(draw(st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda q: np.linalg.norm(q) > 0.1)))
    cam_from_world = np.eye(4)
    cam_from_world[:3, :3] = quat_to_rotation(quat)
    cam_from_world[:3, 3] = draw(st.tuples(finite, finite, finite))
    width, height = draw(st.integers(1, 4000)), draw(st.integers(1, 4000))
    fx, fy = draw(st.floats(10, 5000)), draw(st.floats(10, 5000))
    cx, cy = draw(st.floats(0, 4000)), draw(st.floats(0, 4000))
    return Camera(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), width, height, cam_from_world)


@given(path_cameras=st.lists(cameras(), min_size=1, max_size=5), fps=st.floats(0.5, 120), named=st.booleans())
def test_a_written_path_reads_back_exactly(tmp_path_factory, path_cameras, fps: float, named: bool) -> None:
    names = tuple(f"{index}.jpg" for index in range(len(path_cameras))) if named else ()
    path = tmp_path_factory.getbasetemp() / "loop.json"
    write_camera_path(path, Trajectory("loop", path_cameras, fps, names))
    read = read_camera_path(path)
    assert (read.name, read.fps, read.view_names) == ("loop", fps, names)
    for before, after in zip(path_cameras, read.cameras, strict=True):
        np.testing.assert_array_equal(after.K, before.K)
        assert (after.width, after.height) == (before.width, before.height)
        np.testing.assert_allclose(after.cam_from_world, before.cam_from_world, atol=1e-12)


def viewer_file(**changes) -> dict:
    """What nerfstudio's viewer saves: camera at (1, 2, 3), not turned, so it looks along its own -z."""
    pose = [1.0, 0, 0, 1.0, 0, 1.0, 0, 2.0, 0, 0, 1.0, 3.0, 0, 0, 0, 1.0]
    entry = {"camera_to_world": pose, "fov": 90.0, "aspect": 1.5}
    data = {
        "default_fov": 75.0,
        "keyframes": [{"matrix": "[1, 0]", "fov": 75}],
        "camera_type": "perspective",
        "render_height": 400,
        "render_width": 600,
        "fps": 30,
        "seconds": 0.1,
        "is_cycle": False,
        "smoothness_value": 0.5,
        "camera_path": [entry, {**entry, "fov": 60.0}, entry],
        "crop": None,
    }
    return {**data, **changes}


def write(folder: Path, data) -> Path:
    path = folder / "path.json"
    path.write_text(data if isinstance(data, str) else json.dumps(data))
    return path


def test_a_file_of_nerfstudios_viewer(tmp_path: Path) -> None:
    read = read_camera_path(write(tmp_path, viewer_file()))
    assert (read.name, len(read), read.fps, read.view_names) == ("path", 3, 30.0, ())
    camera = read.cameras[0]
    np.testing.assert_allclose(camera.K, [[200, 0, 300], [0, 200, 200], [0, 0, 1]])  # 90 degrees: f = height / 2
    np.testing.assert_allclose(camera.position, (1, 2, 3))
    np.testing.assert_allclose(camera.forward, (0, 0, -1))
    np.testing.assert_allclose(-camera.cam_from_world[1, :3], (0, 1, 0))  # the picture's top is y
    assert read.cameras[1].K[1, 1] == pytest.approx(200 / np.tan(np.radians(30)))


def test_what_we_write_has_what_nerfstudio_reads(tmp_path: Path) -> None:
    K = np.array([[300.0, 0, 310], [0, 305.0, 190], [0, 0, 1]])
    camera = read_camera_path(write(tmp_path, viewer_file())).cameras[0]
    write_camera_path(tmp_path / "out.json", Trajectory("out", (Camera(K, 600, 400, camera.cam_from_world),), 12.0))
    data = json.loads((tmp_path / "out.json").read_text())
    assert {"camera_type", "render_width", "render_height", "fps", "seconds", "camera_path"} <= set(data)
    (entry,) = data["camera_path"]
    np.testing.assert_allclose(entry["camera_to_world"], viewer_file()["camera_path"][0]["camera_to_world"])
    assert entry["fov"] == pytest.approx(np.degrees(2 * np.arctan(200 / 305))) and entry["aspect"] == 1.5
    assert data["seconds"] == pytest.approx(1 / 12)


def test_an_edited_fov_overrules_the_lens_beside_it(tmp_path: Path) -> None:
    K = np.array([[300.0, 0, 310], [0, 305.0, 190], [0, 0, 1]])
    write_camera_path(tmp_path / "a.json", Trajectory("a", (Camera(K, 600, 400, np.eye(4)),)))
    data = json.loads((tmp_path / "a.json").read_text())
    data["camera_path"][0]["fov"] = 90.0
    np.testing.assert_allclose(
        read_camera_path(write(tmp_path, data)).cameras[0].K, [[200, 0, 300], [0, 200, 200], [0, 0, 1]]
    )


def test_fewer_digits_become_the_nearest_rotation(tmp_path: Path) -> None:
    pose = np.eye(4)
    pose[:3, :3] = quat_to_rotation([0.9, 0.1, -0.3, 0.2])
    data = viewer_file()
    data["camera_path"] = [{"camera_to_world": np.round(pose, 5).tolist(), "fov": 50}]  # nested rows too
    R = read_camera_path(write(tmp_path, data)).cameras[0].cam_from_world[:3, :3]
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-12)


def test_the_rate_comes_from_seconds_where_it_is_not_written(tmp_path: Path) -> None:
    data = viewer_file(seconds=1.5)
    del data["fps"]
    assert read_camera_path(write(tmp_path, data)).fps == 2.0
    del data["seconds"]
    assert read_camera_path(write(tmp_path, data)).fps == 24.0


def with_entry(**changes) -> dict:
    data = viewer_file()
    data["camera_path"][1].update(changes)
    return data


POSE = viewer_file()["camera_path"][0]["camera_to_world"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("", "in JSON"),
        ("[" * 100_000, "in JSON"),
        ("[1, 2]", "a list of 2"),
        ({}, "camera_path"),
        (viewer_file(camera_path=[]), "a list of 0"),
        (viewer_file(camera_path={"a": 1}), "an object of 1"),
        (viewer_file(camera_path=[7]), "camera 0: expected an object"),
        (viewer_file(camera_path=[{}] * (MAX_CAMERAS + 1)), "10,001 cameras; at most 10,000"),
        (viewer_file(camera_type="fisheye"), "'fisheye'"),
        (viewer_file(fps=0), "fps"),
        (viewer_file(fps=float("nan")), "fps"),
        (viewer_file(fps="fast"), "fps"),
        (viewer_file(render_width=0), "width"),
        (viewer_file(render_width=600.5), "width"),
        (viewer_file(render_height=10**9), "height"),
        (viewer_file(render_height=float("nan")), "height"),
        (viewer_file(render_height=float("inf")), "height"),
        (viewer_file(render_height=None), "height"),
        (with_entry(fov=0), "camera 1: fov"),
        (with_entry(fov=180), "camera 1: fov"),
        (with_entry(fov=-20), "camera 1: fov"),
        (with_entry(fov=float("nan")), "camera 1: fov"),
        (with_entry(fov=None), "camera 1: fov"),
        (with_entry(fov=True), "camera 1: fov"),
        (with_entry(camera_to_world=POSE[:12]), "16 finite numbers"),
        (with_entry(camera_to_world=[float("nan"), *POSE[1:]]), "16 finite numbers"),
        (with_entry(camera_to_world="identity"), "16 finite numbers"),
        (with_entry(camera_to_world=[2 * x for x in POSE[:12]] + POSE[12:]), "no rigid pose"),
        (with_entry(camera_to_world=[-1.0, *POSE[1:]]), "no rigid pose"),
        (with_entry(camera_to_world=[*POSE[:15], 2.0]), "no rigid pose"),
        (with_entry(camera_to_world=np.array(POSE).reshape(4, 4).T.ravel().tolist()), "no rigid pose"),
    ],
)
def test_bad_files_are_refused_in_words(tmp_path: Path, data, words: str) -> None:
    with pytest.raises(FormatError, match=words) as caught:
        read_camera_path(write(tmp_path, data))
    assert "path.json" in caught.value.message


@pytest.mark.parametrize("lens", [None, 3, {"K": "wide"}, {"K": [[1, 2], [3, 4]]}, {"K": [[0] * 3] * 3}, {"view": 4}])
def test_a_broken_extra_key_is_as_good_as_none(tmp_path: Path, lens) -> None:
    read = read_camera_path(write(tmp_path, with_entry(difix3d=lens)))
    assert read.cameras[1].K[1, 1] == pytest.approx(200 / np.tan(np.radians(30))) and read.view_names == ()


def test_a_missing_file_and_an_empty_trajectory(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="could not read"):
        read_camera_path(tmp_path / "none.json")
    with pytest.raises(FormatError, match="no cameras"):
        write_camera_path(tmp_path / "a.json", Trajectory("a", ()))
    assert not list(tmp_path.iterdir())
