"""Which photos help at a novel camera: shared points first, then pose, and the same answer every time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from synthetic_scene import make_synthetic_scene

from difix3d.geometry import look_at, transform_camera, transform_reconstruction
from difix3d.references import choose_references, rank_references
from difix3d.types import Camera, Reconstruction, View

K = np.array([[80.0, 0, 50], [0, 80.0, 40], [0, 0, 1]])


def camera(position, target) -> Camera:
    return Camera(K, 100, 80, look_at(position, target))


def points_around(centre, count: int = 60, seed: int = 0) -> np.ndarray:
    return np.asarray(centre) + np.random.default_rng(seed).normal(0, 0.1, (count, 3))


def scene(views: list[View], points: np.ndarray) -> Reconstruction:
    return Reconstruction(tuple(views), points, np.zeros((len(points), 3), np.uint8))


def names(ranked) -> list[str]:
    return [one.name for one in ranked]


def without_points(reconstruction: Reconstruction) -> Reconstruction:
    views = tuple(replace(view, point_indices=np.empty(0, np.int64)) for view in reconstruction.views)
    return replace(reconstruction, views=views)


@settings(max_examples=30, deadline=None)
@given(index=st.integers(0, 11), seed=st.integers(0, 5), points=st.booleans())
def test_a_photos_own_camera_ranks_it_first_and_its_neighbours_next(index: int, seed: int, points: bool) -> None:
    reconstruction = make_ring(seed) if points else without_points(make_ring(seed))
    view = reconstruction.views[index]
    ranked = rank_references(view.camera, reconstruction)
    assert ranked[0].name == view.name and ranked[0].distance < 1e-9 and ranked[0].angle_deg < 1e-6
    assert {one.name for one in ranked[1:3]} == {reconstruction.views[(index + step) % 12].name for step in (-1, 1)}
    assert sorted(names(ranked)) == sorted(one.name for one in reconstruction.views)
    assert all(0 <= one.score <= 1 for one in ranked)


def make_ring(seed: int) -> Reconstruction:
    """Twelve cameras around a ball whose photos see the half of it that faces them."""
    reconstruction = make_synthetic_scene_once(seed)
    views = []
    for view in reconstruction.views:
        facing = reconstruction.points @ view.camera.position > 0
        views.append(replace(view, point_indices=np.flatnonzero(facing)))
    return replace(reconstruction, views=tuple(views))


_scenes: dict[int, Reconstruction] = {}


def make_synthetic_scene_once(seed: int) -> Reconstruction:
    if seed not in _scenes:
        _scenes[seed] = make_synthetic_scene(views=12, width=16, height=12, seed=seed).reconstruction
    return _scenes[seed]


def test_what_was_seen_counts_more_than_standing_near() -> None:
    """The nearest camera looks the other way; one further off shows the subject."""
    points = np.concatenate([points_around((0, 0, 0)), points_around((0, -2.2, 0))])
    subject, behind = np.arange(60), np.arange(60, 120)
    near = View("a_near.jpg", camera((0, -1.0, 0), (0.0, -2.2, 0)), None, behind)
    far = View("b_far.jpg", camera((0.5, -0.9, 0), (0, 0, 0)), None, subject)
    ranked = rank_references(camera((0, -1.02, 0), (0, 0, 0)), scene([near, far], points))
    assert names(ranked) == ["b_far.jpg", "a_near.jpg"]
    assert ranked[0].shared == 60 and ranked[1].shared == 0 and ranked[1].score == 0


def test_a_photo_shows_more_than_was_found_in_it() -> None:
    """Points are looked for in a few photos each: two thirds of the subject's were not looked for in the nearest."""
    points = np.concatenate([points_around((0, 0, 0)), points_around((0, 1.5, 0))])
    near = View("near.jpg", camera((0.05, -1.0, 0), (0, 0, 0)), None, np.arange(0, 60, 3))
    far = View("far.jpg", camera((0.5, -0.9, 0), (0, 0, 0)), None, np.arange(60))
    beyond = View("beyond.jpg", camera((0, 3.0, 0), (0, 1.5, 0)), None, np.arange(60, 120))
    ranked = rank_references(camera((0, -1, 0), (0, 0, 0)), scene([far, near, beyond], points))
    assert names(ranked)[0] == "near.jpg" and ranked[0].shared > 40
    assert ranked[0].shared < 80, "what lies behind the subject was found in no photo from this side"


def test_of_two_that_saw_the_same_the_one_from_the_same_side_comes_first() -> None:
    points, everything = points_around((0, 0, 0)), np.arange(60)
    aside = View("a.jpg", camera((0.9, -0.4, 0), (0, 0, 0)), None, everything)
    same = View("b.jpg", camera((0.1, -1.0, 0), (0, 0, 0)), None, everything)
    far_off = View("c.jpg", camera((0.3, -3.0, 0), (0, 0, 0)), None, everything)
    ranked = rank_references(camera((0, -1, 0), (0, 0, 0)), scene([aside, same, far_off], points))
    assert names(ranked)[0] == "b.jpg" and [one.shared for one in ranked] == [60] * 3
    assert ranked[0].score > 2 * ranked[1].score


def test_depth_hides_what_is_behind_the_surface() -> None:
    points = np.concatenate([points_around((0, 0, 0), seed=1), points_around((0, 3, 0), 200, seed=2)])
    front = View("front.jpg", camera((0.2, -1, 0), (0, 0, 0)), None, np.arange(60))
    through = View("through.jpg", camera((-0.2, -1, 0), (0, 0, 0)), None, np.arange(60, 260))
    novel, reconstruction = camera((0, -1, 0), (0, 0, 0)), scene([front, through], points)
    assert names(rank_references(novel, reconstruction)) == ["through.jpg", "front.jpg"]
    wall = np.full((80, 100), 1.2, np.float32)
    ranked = rank_references(novel, reconstruction, depth=wall)
    assert names(ranked) == ["front.jpg", "through.jpg"] and ranked[1].shared == 0
    unknown = rank_references(novel, reconstruction, depth=np.zeros((80, 100), np.float32))
    assert unknown == rank_references(novel, reconstruction)


def test_only_the_named_photos_are_ranked() -> None:
    reconstruction = make_ring(0)
    novel = reconstruction.views[4].camera
    allowed = [view.name for view in reconstruction.views if view.name != "00004.png"]
    ranked = rank_references(novel, reconstruction, allowed)
    assert "00004.png" not in names(ranked) and len(ranked) == 11
    assert rank_references(novel, reconstruction, []) == []
    assert len(rank_references(novel, reconstruction, ["00001.png", "00001.png"])) == 1
    with pytest.raises(KeyError, match="no view"):
        rank_references(novel, reconstruction, ["none.png"])


def test_ties_are_broken_by_name_whatever_the_order_of_the_views() -> None:
    points, everything = points_around((0, 0, 0)), np.arange(60)
    views = [View(name, camera((0.1, -1, 0), (0, 0, 0)), None, everything) for name in ("c", "a", "b")]
    novel = camera((0, -1, 0), (0, 0, 0))
    assert names(rank_references(novel, scene(views, points))) == ["a", "b", "c"]
    assert names(rank_references(novel, scene(views[::-1], points), ["b", "c", "a"])) == ["a", "b", "c"]


@settings(max_examples=20, deadline=None)
@given(scale=st.floats(0.1, 10), offset=st.tuples(*[st.floats(-5, 5)] * 3), index=st.integers(0, 11))
def test_the_order_does_not_depend_on_the_worlds_scale_or_origin(scale: float, offset, index: int) -> None:
    similarity = np.diag([scale, scale, scale, 1.0])
    similarity[:3, 3] = offset
    reconstruction = make_ring(1)
    novel = reconstruction.views[index].camera
    pose = novel.cam_from_world.copy()
    pose[0, 3] += 0.07
    novel = novel.moved(pose)
    here = rank_references(novel, reconstruction)
    there = rank_references(transform_camera(novel, similarity), transform_reconstruction(reconstruction, similarity))
    np.testing.assert_allclose([one.score for one in here], [one.score for one in there], atol=1e-6)
    assert names(here)[:3] == names(there)[:3]


def test_a_camera_that_sees_nothing_still_has_its_nearest() -> None:
    points = points_around((0, 0, 0))
    views = [View(f"{x}.jpg", camera((x, -1, 0), (x, 0, 0)), None, np.arange(60)) for x in (0, 1, 2)]
    ranked = rank_references(camera((1.9, -1, 0), (1.9, -2, 0)), scene(views, points))
    assert [one.score for one in ranked] == [0, 0, 0] and names(ranked) == ["2.jpg", "1.jpg", "0.jpg"]


def wall_of_points() -> np.ndarray:
    """A wall 2 wide in x, at y = 0, in rows of 40."""
    across = np.linspace(-0.95, 0.95, 40)
    return np.array([(x, 0.0, z) for z in np.linspace(-0.3, 0.3, 6) for x in across])


def of_the_wall(name: str, x: float, points: np.ndarray, sees) -> View:
    return View(name, camera((x, -2, 0), (x, 0, 0)), None, np.flatnonzero(sees(points[:, 0])))


def test_photos_are_chosen_that_together_show_the_most() -> None:
    """Two photos of the middle rank before those of the sides, and add nothing to each other."""
    points = wall_of_points()
    middle, twin, left, right = (
        of_the_wall("middle", 0.0, points, lambda x: abs(x) < 0.8),
        of_the_wall("twin", 0.1, points, lambda x: abs(x) < 0.8),
        of_the_wall("left", -0.7, points, lambda x: x < -0.2),
        of_the_wall("right", 0.7, points, lambda x: x > 0.4),
    )
    novel, reconstruction = camera((0, -1.9, 0), (0, 0, 0)), scene([right, left, twin, middle], points)
    assert names(rank_references(novel, reconstruction)) == ["middle", "twin", "left", "right"]
    assert names(choose_references(novel, reconstruction, most=4)) == ["middle", "left", "right"]
    assert names(choose_references(novel, reconstruction, most=2)) == ["middle", "left"]
    assert names(choose_references(novel, reconstruction, ["twin", "right"], most=4)) == ["twin", "right"]
    assert (
        choose_references(novel, reconstruction, most=0) == choose_references(novel, reconstruction, [], most=4) == []
    )
    with pytest.raises(ValueError, match="not -1"):
        choose_references(novel, reconstruction, most=-1)
    with pytest.raises(KeyError, match="no view"):
        choose_references(novel, reconstruction, ["none"], most=4)


def test_one_photo_is_enough_where_it_shows_all_there_is() -> None:
    points, everything = points_around((0, 0, 0)), np.arange(60)
    views = [View(f"{step}", camera((0.05 * step, -1, 0), (0, 0, 0)), None, everything) for step in range(5)]
    assert names(choose_references(camera((0, -1, 0), (0, 0, 0)), scene(views, points), most=4)) == ["0"]


@settings(max_examples=20, deadline=None)
@given(index=st.integers(0, 11), aside=st.floats(-0.5, 0.5), most=st.integers(1, 4))
def test_choosing_more_keeps_what_was_chosen_first(index: int, aside: float, most: int) -> None:
    reconstruction = make_ring(2)
    pose = reconstruction.views[index].camera.cam_from_world.copy()
    pose[0, 3] += aside
    novel = reconstruction.views[index].camera.moved(pose)
    ranked = rank_references(novel, reconstruction)
    chosen = choose_references(novel, reconstruction, most=most)
    assert chosen[0] == ranked[0] and len(set(names(chosen))) == len(chosen) <= most
    assert choose_references(novel, reconstruction, reversed(names(ranked)), most=most) == chosen
    assert choose_references(novel, reconstruction, most=12)[: len(chosen)] == chosen


def test_without_points_photos_are_chosen_by_pose() -> None:
    reconstruction = without_points(make_ring(0))
    novel = reconstruction.views[4].camera
    ranked = rank_references(novel, reconstruction)
    assert choose_references(novel, reconstruction, most=3) == ranked[:3]
    hidden = np.full((novel.height, novel.width), 1e-3, np.float32)  # a surface before everything: no point is seen
    assert names(choose_references(novel, make_ring(0), most=2, depth=hidden)) == names(ranked)[:2]
