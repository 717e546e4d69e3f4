"""Points far behind a subject: a painted wall 30 away, behind a board at 4 that cameras turn around."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from generators import returned

from difix3d.geometry import project
from difix3d.sfm.far import FarPoints, Features, _believed, _clear_best, _features, _pairs, _possible, far_depths
from difix3d.sfm.refine import _tracks
from difix3d.sfm.tracks import Tracks
from difix3d.types import Camera, Reconstruction, View

WIDTH, HEIGHT = 480, 320
BOARD, WALL = 4.0, 30.0
"""z of both; the board is 2 wide and high."""
K = np.array([[420.0, 0, WIDTH / 2], [0, 420.0, HEIGHT / 2], [0, 0, 1]])


def camera_at(turned_deg: float) -> Camera:
    """4 away from the middle of the board, which it looks at."""
    sine, cosine = np.sin(np.radians(turned_deg)), np.cos(np.radians(turned_deg))
    world_from_cam = np.eye(4)
    world_from_cam[:3, :3] = [[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]
    world_from_cam[:3, 3] = np.array([0, 0, BOARD]) - BOARD * world_from_cam[:3, 2]
    return Camera(K, WIDTH, HEIGHT, np.linalg.inv(world_from_cam))


CAMERAS = [camera_at(turned_deg) for turned_deg in (-18, -9, 0, 9, 18)]


def paint(seed: int) -> np.ndarray:
    """[1024, 1024], noise of many sizes, 1 of spread."""
    rng = np.random.default_rng(seed)
    noise = sum(
        cv2.resize(rng.standard_normal((size, size)).astype(np.float32), (1024, 1024), interpolation=cv2.INTER_CUBIC)
        for size in (32, 100, 256)
    )
    return noise / noise.std()


def on_plane(camera: Camera, z: float) -> np.ndarray:
    """[H, W, 3] where pixels see the plane at this z, world."""
    x, y = np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5)
    rays = np.stack([x, y, np.ones_like(x)], axis=-1) @ np.linalg.inv(camera.K).T @ camera.world_from_cam[:3, :3].T
    return camera.position + rays * ((z - camera.position[2]) / rays[..., 2:])


def photo(camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """([H, W] uint8, [H, W] whether it shows the board)."""
    seen = []
    for z, side, seed in ((BOARD, 2.0, 1), (WALL, 120.0, 2)):
        at = (on_plane(camera, z)[..., :2] / side * 1024 + 512).astype(np.float32)
        seen.append(cv2.remap(paint(seed), at, None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_WRAP))
    board = (np.abs(on_plane(camera, BOARD)[..., :2]) < 1).all(axis=-1)
    return np.clip(128 + 45 * np.where(board, *seen), 0, 255).astype(np.uint8), board


def scene_of(far_share: float) -> Reconstruction:
    """400 points on the board and the wall, all of which all cameras see."""
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-0.9, 0.9, (400, 2)), np.full(400, BOARD)])
    far = np.arange(400) < far_share * 400
    points[far] = np.column_stack([rng.uniform(-3, 3, (far.sum(), 2)), np.full(far.sum(), WALL)])
    views = tuple(View(f"{index}.png", camera, None, np.arange(400)) for index, camera in enumerate(CAMERAS))
    return Reconstruction(views, points, np.zeros((400, 3), np.uint8))


FAR = dict.fromkeys(range(5), 8.0)


def found(depths: Sequence[np.ndarray | None]) -> Tracks:
    """depths: what is known of each photo's."""
    far = FarPoints(scene_of(0.2), FAR)
    for index, (camera, depth) in enumerate(zip(CAMERAS, depths)):
        far.find(index, photo(camera)[0], depth)
    for index in FAR:
        far.compare(index)
    return far.tracks()


def board_depths(wall: float = 0.0) -> list[np.ndarray]:
    """Of small pictures; `wall`: what is known of the wall."""
    return [np.where(photo(camera)[1][::2, ::2], BOARD, wall).astype(np.float32) for camera in CAMERAS]


@pytest.fixture(scope="module")
def tracks() -> Tracks:
    return found([*board_depths()[:4], None])  # nobody says where the last one's board is


def on_wall(tracks: Tracks) -> np.ndarray:
    return np.abs(tracks.points[:, 2] / WALL - 1) < 0.1


def test_points_lie_on_the_wall_and_are_seen_where_it_says(tracks: Tracks) -> None:
    assert len(tracks.points) > 100
    away = np.abs(tracks.points[:, 2] / WALL - 1)
    assert np.median(away) < 0.01 and np.quantile(away, 0.95) < 0.06  # a pixel, between photos side by side
    for index, camera in enumerate(CAMERAS):
        rows = tracks.photo == index
        assert rows.sum() > 20
        where, _ = project(camera, tracks.points[tracks.point[rows]])
        assert np.median(np.linalg.norm(where - tracks.pixel[rows], axis=1)) < 0.3


def test_near_things_are_left_out_whether_their_depth_is_known_or_not() -> None:
    for depths, right in (([None] * 5, 0.95), (board_depths(), 0.98), (board_depths(WALL), 0.98)):
        tracks = found(depths)
        assert len(tracks.points) > 100 and on_wall(tracks).mean() > right
    everywhere = [np.full((HEIGHT // 2, WIDTH // 2), BOARD, np.float32)] * 5
    assert not len(found(everywhere).points)


def test_nothing_is_far_where_there_is_no_background() -> None:
    everybody = {index: [each for each in range(5) if each != index] for index in range(5)}
    assert far_depths(scene_of(0.0), everybody) is None and far_depths(scene_of(0.03), everybody) is None
    depths = far_depths(scene_of(0.1), everybody)
    assert depths is not None and all(1.5 * BOARD < depth < WALL for depth in depths)
    blind = View("0.png", CAMERAS[0], None, np.empty(0, np.int64))
    assert far_depths(Reconstruction((blind,) * 5, np.empty((0, 3)), np.empty((0, 3), np.uint8)), everybody) is None


def test_nothing_is_looked_for_where_photos_hardly_turn() -> None:
    """9 degrees to the next one, of 59."""
    assert far_depths(scene_of(0.2), {0: [1], 1: [0, 2], 2: [1, 3], 3: [2, 4], 4: [3]}) is None
    assert far_depths(scene_of(0.2), {0: [2], 1: [3], 2: [0, 4], 3: [1], 4: [2]}) is not None
    assert far_depths(scene_of(0.2), {}) is None


def test_refining_looks_for_them_as_well(tmp_path: Path) -> None:
    paths = [tmp_path / f"{index}.png" for index in range(5)]
    for path, camera in zip(paths, CAMERAS):
        cv2.imwrite(str(path), photo(camera)[0])
    _, far = returned(_tracks(scene_of(0.2), paths, 2, ""))
    assert len(far.points) > 100 and on_wall(far).mean() > 0.98
    _, far = returned(_tracks(scene_of(0.0), paths, 2, ""))
    assert not len(far.points)


def test_a_photo_held_upside_down_sees_points_where_the_others_say() -> None:
    upside_down = np.diag([-1.0, -1.0, 1.0, 1.0]) @ CAMERAS[2].cam_from_world
    cameras = [*CAMERAS[:2], replace(CAMERAS[2], cam_from_world=upside_down), *CAMERAS[3:]]
    views = tuple(replace(view, camera=camera) for view, camera in zip(scene_of(0.2).views, cameras))
    far = FarPoints(replace(scene_of(0.2), views=views), FAR)
    for index, camera in enumerate(cameras):
        far.find(index, photo(camera)[0], None)
    for index in FAR:
        far.compare(index)
    tracks = far.tracks()
    for index, camera in enumerate(cameras):
        rows = tracks.photo == index
        where, _ = project(camera, tracks.points[tracks.point[rows]])
        assert rows.sum() > 20
        assert np.median(np.linalg.norm(where - tracks.pixel[rows], axis=1)) < 0.1


def test_a_busy_subject_takes_nothing_from_a_calm_background(monkeypatch: pytest.MonkeyPatch) -> None:
    grey = np.clip(128 + 60 * paint(1)[:300, :400], 0, 255).astype(np.uint8)
    grey[:, 300:] = 128 + 0.2 * (grey[:, 300:] - 128.0)
    where = np.zeros((30, 40), bool)
    where[:, 31:] = True
    every = _features(grey, where)
    assert len(every.pixels) > 40 and every.pixels[:, 0].min() > 300
    monkeypatch.setattr("difix3d.sfm.far._FEATURES", 20)
    few = _features(grey, where)
    assert len(few.pixels) == 20
    assert {tuple(each) for each in few.pixels.tolist()} <= {tuple(each) for each in every.pixels.tolist()}


def test_photos_are_paired_that_look_the_same_way_from_nearby_but_not_from_the_same_place() -> None:
    def along(x: float) -> Camera:
        moved = np.eye(4)
        moved[0, 3] = -x
        return replace(CAMERAS[2], cam_from_world=moved)

    row = {index: along(0.5 * index) for index in range(40)}
    pairs = _pairs(row, dict.fromkeys(row, 8.0))
    assert {(index, index + 1) for index in range(39)} <= set(pairs)
    assert max(second - first for first, second in pairs) <= 8
    turned = dict(enumerate(CAMERAS))
    assert set(_pairs(turned, FAR)) == {(i, j) for i in range(5) for j in range(i + 1, 5)}
    assert not _pairs({0: along(0.0), 1: along(0.1), 2: along(0.0)}, dict.fromkeys(range(3), 8.0))
    assert not _pairs({}, {}) and not _pairs({4: along(0)}, {4: 8.0})


def test_no_two_points_are_seen_at_the_same_places(tracks: Tracks) -> None:
    seen = [
        tuple(sorted((photo, *pixel) for photo, pixel in zip(tracks.photo[rows], tracks.pixel[rows].tolist())))
        for rows in (np.flatnonzero(tracks.point == point) for point in range(len(tracks.points)))
    ]
    assert len(set(seen)) == len(seen)


def test_no_photo_shows_a_point_twice(tracks: Tracks) -> None:
    assert np.bincount(tracks.point, minlength=len(tracks.points)).min() >= 2
    pairs = np.column_stack([tracks.point, tracks.photo])
    assert len(np.unique(pairs, axis=0)) == len(pairs)


def test_same_photos_same_tracks_whatever_the_order(tracks: Tracks) -> None:
    far = FarPoints(scene_of(0.2), FAR)
    for index, depth in reversed([*enumerate([*board_depths()[:4], None])]):  # as threads may
        far.find(index, photo(CAMERAS[index])[0], depth)
    for index in reversed(range(5)):
        far.compare(index)
    for again in (far.tracks(), far.tracks()):
        np.testing.assert_array_equal(tracks.pixel, again.pixel)
        np.testing.assert_array_equal(tracks.points, again.points)


def test_blank_photos_and_too_few_of_them_have_no_points() -> None:
    for chosen in ((), (0,), (0, 1, 2)):
        far = FarPoints(scene_of(0.2), dict.fromkeys(chosen, 8.0))
        for index in chosen:
            far.find(index, np.full((HEIGHT, WIDTH), 128, np.uint8), None)
        for index in chosen:
            far.compare(index)
        assert not len(far.tracks().points)


def test_a_large_photo_is_looked_at_smaller_and_told_in_its_own_pixels() -> None:
    scene = scene_of(0.2)
    views = tuple(replace(view, camera=view.camera.sized(4 * WIDTH, 4 * HEIGHT)) for view in scene.views)
    far = FarPoints(Reconstruction(views, scene.points, scene.colors), FAR)
    for index, (camera, depth) in enumerate(zip(CAMERAS, board_depths())):
        large = cv2.resize(photo(camera)[0], (4 * WIDTH, 4 * HEIGHT), interpolation=cv2.INTER_CUBIC)
        far.find(index, large, depth)
    for index in FAR:
        far.compare(index)
    tracks = far.tracks()
    assert len(tracks.points) > 100 and tracks.pixel.max() > WIDTH * 3
    assert np.median(np.abs(tracks.points[:, 2] / WALL - 1)) < 0.005


def test_possible_is_what_lies_on_the_line_beyond_both_depths_and_is_turned_as_the_camera_is() -> None:
    roll = np.eye(4)
    roll[:3, :3] = cv2.Rodrigues(np.array([0, 0, 0.5]))[0]
    first = CAMERAS[1]
    second = replace(CAMERAS[3], cam_from_world=roll @ CAMERAS[3].cam_from_world)
    points = np.array([[0.5, 0.3, BOARD], [1.0, -1.5, WALL], [-2.0, 1.0, 200.0]])
    tips = points + np.array([0.02, 0.05, 0]) * points[:, 2:]  # as long in pixels wherever they are
    ours, theirs = (
        Features(at, project(camera, tips)[0] - at, np.zeros((3, 128), np.float32))
        for camera, at in ((camera, project(camera, points)[0]) for camera in (first, second))
    )

    def kept(theirs: Features, depth: float, other_depth: float) -> list[int]:
        rows, columns = _possible(first, ours, depth, second, theirs, other_depth)
        return rows[rows == columns].tolist()

    assert kept(theirs, 10.0, 10.0) == [1, 2]
    assert kept(theirs, 100.0, 1.0) == kept(theirs, 1.0, 100.0) == [2]
    assert kept(theirs, 1.0, 1.0) == [0, 1, 2]
    assert not kept(replace(theirs, pixels=theirs.pixels + np.array([0.0, 12.0])), 1.0, 1.0)
    assert not kept(replace(theirs, arrows=ours.arrows), 1.0, 1.0)
    assert not kept(replace(theirs, arrows=2 * theirs.arrows), 1.0, 1.0)


def test_two_photos_are_believed_where_what_is_around_is_as_deep() -> None:
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(-3, 3, (60, 2)), np.full(60, WALL)])
    points[:5, 2] = (8.0, 12.0, 17.0, 60.0, 100.0)  # each alone in its depth
    everything = np.arange(60)
    photos = [project(camera, points)[0] for camera in CAMERAS[1:4]]
    two = Tracks(points, np.repeat([1, 2], 60), np.tile(everything, 2), np.concatenate(photos[:2]))
    np.testing.assert_array_equal(_believed(two, CAMERAS), everything >= 5)
    three = Tracks(points, np.repeat([1, 2, 3], 60), np.tile(everything, 3), np.concatenate(photos))
    assert _believed(three, CAMERAS).all()
    kept = two.only(_believed(two, CAMERAS))
    assert len(kept.points) == 55
    np.testing.assert_array_equal(kept.points[kept.point], points[two.point[two.point >= 5]])
    alone = Tracks(points[:1], np.array([1, 2]), np.array([0, 0]), np.array([photos[0][0], photos[1][0]]))
    assert not _believed(alone, CAMERAS).any() and not len(_believed(Tracks.none(), CAMERAS))


def test_only_a_clear_best_is_taken() -> None:
    group = np.array([0, 0, 0, 1, 2, 2, 3, 3])
    alike = np.array([0.95, 0.5, 0.6, 0.9, 0.90, 0.89, 0.9, 0.9], np.float32)
    assert _clear_best(group, alike).tolist() == [True, False, False, True, False, False, False, False]
    shuffled = np.random.default_rng(0).permutation(8)
    np.testing.assert_array_equal(_clear_best(group[shuffled], alike[shuffled]), _clear_best(group, alike)[shuffled])
    assert not len(_clear_best(np.empty(0, np.int64), np.empty(0, np.float32)))
