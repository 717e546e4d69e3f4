"""The render stage: what it leaves on disk, when it is skipped, and what it says of a scene it cannot render."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_scene import make_synthetic_scene, write_synthetic_scene

from difix3d.atomic import write_json
from difix3d.errors import ConfigError, Difix3DError, FormatError, SceneError
from difix3d.events import Artifact, Done, Progress, Warned
from difix3d.formats.camera_path import read_camera_path, write_camera_path
from difix3d.formats.clip import Clip
from difix3d.formats.frames import read_frame
from difix3d.formats.ply import write_splats
from difix3d.geometry import look_at
from difix3d.metrics import psnr
from difix3d.scene import Scene
from difix3d.splatting.initialise import splats_from_points
from difix3d.stages.render import HELDOUT, RenderConfig, render, trajectory_name
from difix3d.trajectories import NAMES
from difix3d.types import Camera, Trajectory

SYNTHETIC = make_synthetic_scene()


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reconstructed scene with splats: the sparse points, so that renders resemble the photos."""
    scene = write_synthetic_scene(tmp_path_factory.mktemp("render") / "ball", SYNTHETIC)
    reconstruction = SYNTHETIC.reconstruction
    cameras = [view.camera for view in reconstruction.views]
    splats = splats_from_points(reconstruction.points, reconstruction.colors, cameras)
    solid = replace(splats, opacity_logits=np.full(len(splats), 3.0))
    write_splats(scene.splats_path, solid)
    write_json(scene.split_path, {"train": ["00001.png", "00002.png"], "heldout": ["00000.png", "00004.png"]})
    return scene.root


@pytest.fixture
def scene(template: Path, tmp_path: Path) -> Scene:
    shutil.copytree(template, tmp_path / "ball")
    return Scene(tmp_path / "ball")


def config(trajectory: str = "orbit", **settings) -> RenderConfig:
    return RenderConfig(**{"trajectory": trajectory, "frames": 5, "renderer": "cpu", **settings})


@pytest.mark.parametrize("name", NAMES)
def test_frames_cameras_and_video_agree(scene: Scene, name: str) -> None:
    *events, done = render(scene, config(name))
    assert isinstance(done, Done) and not done.skipped
    assert done.outputs == (f"trajectories/{name}.json", f"renders/{name}", f"videos/{name}.webm")
    assert done.figures["frames"] == 5 and done.figures["size"] == "64x48" and done.figures["ms_per_frame"] > 0
    assert 0 < done.figures["mean_alpha"] < 1 and json.loads(json.dumps(done.figures)) == done.figures
    trajectory = read_camera_path(scene.trajectory_path(name))
    assert len(trajectory) == 5 and trajectory.fps == 12
    folder = scene.renders_dir(name)
    assert len(list(folder.iterdir())) == 15
    with Clip(scene.video_path(name)) as clip:
        pictures = [picture for _, picture in clip.pictures(range(99))]
    assert len(pictures) == 5
    for index, camera in enumerate(trajectory.cameras):
        frame = read_frame(folder, name, index, camera)
        assert frame.depth.dtype == np.float32 and frame.depth.shape == frame.alpha.shape == (48, 64)
        seen = frame.alpha > 0.5
        assert seen.any() and np.all(frame.depth[frame.alpha == 0] == 0)
        assert 0.3 < np.median(frame.depth[seen]) < 2  # the ball is about 1 away
        assert psnr(pictures[index], frame.rgb) > 24
    assert [event.done for event in events if isinstance(event, Progress) and event.unit][1:] == [1, 2, 3, 4, 5]
    kinds = [event.kind for event in events if isinstance(event, Artifact)]
    assert kinds[0] == "frame" and kinds[-1] == "video"
    assert all((scene.root / event.path).is_file() for event in events if isinstance(event, Artifact))
    assert not [path for path in scene.root.rglob(".*") if "partial" in path.name]


def test_a_turntable_is_one_command_and_comes_as_mp4_too(scene: Scene) -> None:
    *_, done = render(scene, config("turntable", mp4=True))
    assert done.outputs[2:] == ("videos/turntable.webm", "videos/turntable.mp4")
    videos = []
    for output in done.outputs[2:]:
        with Clip(scene.root / output) as clip:
            videos.append([picture for _, picture in clip.pictures(range(99))])
    assert len(videos[0]) == len(videos[1]) == 5
    assert all(psnr(one, other) > 24 for one, other in zip(*videos))


def test_heldout_renders_the_cameras_of_the_photos_kept_out(scene: Scene) -> None:
    *_, done = render(scene, config(HELDOUT))
    assert done.figures["frames"] == 2
    trajectory = read_camera_path(scene.trajectory_path(HELDOUT))
    assert trajectory.view_names == ("00000.png", "00004.png")
    for index, name in enumerate(trajectory.view_names):
        view = SYNTHETIC.reconstruction.view(name)
        np.testing.assert_allclose(trajectory.cameras[index].cam_from_world, view.camera.cam_from_world, atol=1e-9)
        frame = read_frame(scene.renders_dir(HELDOUT), HELDOUT, index, trajectory.cameras[index])
        photos = dict(zip([v.name for v in SYNTHETIC.reconstruction.views], SYNTHETIC.photos))
        own = psnr(frame.rgb, photos[name])
        assert own > max(psnr(frame.rgb, photo) for other, photo in photos.items() if other != name)


def test_the_same_again_is_skipped_and_anything_else_is_not(scene: Scene) -> None:
    list(render(scene, config()))
    (again,) = render(scene, config())
    assert again.skipped and again.figures["frames"] == 5
    (other,) = [e for e in render(scene, config(frames=4)) if isinstance(e, Done)]
    assert not other.skipped and len(list(scene.renders_dir("orbit").glob("*_depth.npy"))) == 4
    list(render(scene, config("spiral")))  # another trajectory has a manifest of its own
    (again,) = render(scene, config(frames=4))
    assert again.skipped
    scene.splats_path.write_bytes(scene.splats_path.read_bytes())
    (again,) = render(scene, config(frames=4))
    assert again.skipped
    write_splats(scene.splats_path, splats_from_points(np.zeros((1, 3)), np.zeros((1, 3), np.uint8), [_camera()]))
    assert not list(render(scene, config(frames=4)))[-1].skipped


def test_closing_leaves_the_previous_frames_whole(scene: Scene) -> None:
    list(render(scene, config()))
    before = {
        path: path.read_bytes() for path in scene.root.rglob("*") if path.is_file() and "preview" not in str(path)
    }
    events = render(scene, config(frames=9))
    for event in events:
        if isinstance(event, Progress) and event.done == 4:
            break
    events.close()
    after = {path: path.read_bytes() for path in scene.root.rglob("*") if path.is_file() and "preview" not in str(path)}
    assert before == after
    (again,) = render(scene, config())
    assert again.skipped


def _camera(width: int = 40, height: int = 30, position=(0, -1.2, 0)) -> Camera:
    K = np.array([[40.0, 0, width / 2], [0, 40.0, height / 2], [0, 0, 1]])
    return Camera(K, width, height, look_at(position, (0, 0, 0)))


def test_a_users_splats_and_camera_path_need_no_capture(scene: Scene, tmp_path: Path) -> None:
    shutil.rmtree(scene.sparse_dir.parent)
    shutil.rmtree(scene.images_dir)
    scene.split_path.unlink()
    path = tmp_path / "my-walk.json"
    cameras = (_camera(), _camera(31, 30), _camera(40, 17))  # sizes of their own, odd ones too
    write_camera_path(path, Trajectory("any", cameras, 7.0))
    *_, done = render(scene, config(str(path)))
    assert done.outputs[1] == "renders/my-walk" and done.figures["size"] == "40x30"
    trajectory = read_camera_path(scene.trajectory_path("my-walk"))
    assert trajectory.fps == 7 and [(c.width, c.height) for c in trajectory.cameras] == [(40, 30), (31, 30), (40, 17)]
    for index, camera in enumerate(trajectory.cameras):
        assert read_frame(scene.renders_dir("my-walk"), "my-walk", index, camera).rgb.any()
    (again,) = render(scene, config(str(path)))
    assert again.skipped
    write_camera_path(path, Trajectory("any", cameras[:2], 7.0))
    assert list(render(scene, config(str(path))))[-1].figures["frames"] == 2


def test_frames_have_the_photos_size_at_most_960_unless_asked(scene: Scene) -> None:
    list(render(scene, config(long_side_px=32)))
    assert read_camera_path(scene.trajectory_path("orbit")).cameras[0].width == 32
    large = tuple(_camera(1500, 900) for _ in range(2))
    from difix3d.stages.render import _sized

    assert _sized(Trajectory("orbit", large), config()).cameras[0].width == 960
    assert _sized(Trajectory("orbit", large), config(long_side_px=1200)).cameras[0].height == 720
    assert _sized(Trajectory("a", large), config("a.json")).cameras[0].width == 1500


def test_a_path_away_from_everything_warns(scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "away.json"
    away = Camera(_camera().K, 40, 30, look_at((0, -1.2, 0), (0, -5, 0)))
    write_camera_path(path, Trajectory("away", (away,)))
    warned = [event for event in render(scene, config(str(path))) if isinstance(event, Warned)]
    assert len(warned) == 1 and "100%" in warned[0].message


def lacking_splats(scene: Scene) -> None:
    scene.splats_path.unlink()


def lacking_cameras(scene: Scene) -> None:
    shutil.rmtree(scene.sparse_dir)


def lacking_split(scene: Scene) -> None:
    scene.split_path.unlink()


def stale_split(scene: Scene) -> None:
    write_json(scene.split_path, {"train": [], "heldout": ["gone.png"]})


@pytest.mark.parametrize(
    ("trajectory", "spoil", "error", "words"),
    [
        ("orbit", lacking_splats, SceneError, "difix3d fit"),
        ("orbit", lacking_cameras, SceneError, "sparse/0"),
        (HELDOUT, lacking_split, SceneError, "--holdout 8"),
        (HELDOUT, stale_split, SceneError, "gone.png"),
        ("loop", None, ConfigError, "orbit, spiral, shift, interpolate, extrapolate, turntable, heldout"),
        ("none.json", None, FormatError, "could not read"),
    ],
)
def test_what_is_missing_is_said(scene: Scene, trajectory: str, spoil, error: type[Difix3DError], words: str) -> None:
    if spoil is not None:
        spoil(scene)
    with pytest.raises(error, match=words):
        list(render(scene, config(trajectory)))
    assert not (scene.root / "renders").exists() and not (scene.root / "stages").exists()


@pytest.mark.parametrize("trajectory", ["../orbit", "a b", "", "/tmp/../.json"])
def test_outputs_stay_inside_the_scene(scene: Scene, trajectory: str) -> None:
    with pytest.raises(SceneError, match="is no name"):
        list(render(scene, config(trajectory)))


def test_a_file_gives_its_name_to_the_trajectory() -> None:
    assert trajectory_name("some/where/loop.json") == "loop" and trajectory_name("orbit") == "orbit"
