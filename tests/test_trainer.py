"""The fit on a tiny scene with known cameras: it learns, repeats itself, keeps its limits, and stops when told."""

from __future__ import annotations

import contextlib
import itertools
import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_scene import SyntheticScene, make_synthetic_scene

from difix3d.errors import ConfigError, ReconstructionError
from difix3d.splatting.initialise import scene_depth, shell_splats, splats_from_points
from difix3d.splatting.schedule import Clock, is_lost, learning_rate_factor, settled, splat_count
from difix3d.splatting.trainer import Photo, Trainer, TrainSettings, _halved


@pytest.fixture(scope="module")
def scene() -> SyntheticScene:
    return make_synthetic_scene()


def trainer_for(scene: SyntheticScene, **settings) -> Trainer:
    views = scene.reconstruction.views
    photos = [Photo(view.name, view.camera, rgb) for view, rgb in zip(views, scene.photos)]
    settings = {"seconds": 0, "max_steps": 200, "max_splats": 2500, **settings}
    return Trainer(
        TrainSettings(**settings),
        [p for i, p in enumerate(photos) if i % 4],
        photos[::4],
        scene.reconstruction.points,
        scene.reconstruction.colors,
    )


def heldout_psnr(trainer: Trainer) -> float:
    return float(np.mean([trainer.score(photo)[0] for photo in trainer.heldout]))


def test_a_short_fit_learns_held_out_views(scene: SyntheticScene) -> None:
    trainer = trainer_for(scene, max_steps=250)
    before = heldout_psnr(trainer)
    updates = list(trainer.run())
    after = heldout_psnr(trainer)
    assert after > before + 5, (before, after)
    assert trainer.steps == 250 and trainer.count <= 2500
    scored = [update.psnr for update in updates if update.psnr is not None]
    assert len(scored) >= 5 and scored[-1] > scored[0]
    splats = trainer.splats()
    assert len(splats) == trainer.count and splats.sh_degree == 3
    assert all(np.isfinite(getattr(splats, name)).all() for name in ("means", "quats", "log_scales", "sh"))


def test_the_same_seed_and_steps_give_the_same_splats(scene: SyntheticScene) -> None:
    first, second, other = (trainer_for(scene, max_steps=60, seed=seed) for seed in (1, 1, 2))
    for trainer in (first, second, other):
        list(trainer.run())
    a, b, c = first.splats(), second.splats(), other.splats()
    assert np.array_equal(a.means, b.means) and np.array_equal(a.sh, b.sh)
    assert len(c) != len(a) or not np.array_equal(a.means, c.means)


@pytest.mark.parametrize("sh_degree", [0, 1])
def test_the_sh_degree_and_the_cap_are_limits(scene: SyntheticScene, sh_degree: int) -> None:
    trainer = trainer_for(scene, max_steps=80, sh_degree=sh_degree, max_splats=600)
    assert trainer.count <= 600
    list(trainer.run())
    assert trainer.splats().sh_degree == sh_degree
    assert trainer.count <= 600


def test_two_photos_or_one_point_do_not_break_it(scene: SyntheticScene) -> None:
    views = scene.reconstruction.views
    photos = [Photo(views[i].name, views[i].camera, scene.photos[i]) for i in range(2)]
    settings = TrainSettings(seconds=0, max_steps=40, max_splats=300)
    trainer = Trainer(settings, photos, [], scene.reconstruction.points[:1], scene.reconstruction.colors[:1])
    updates = list(trainer.run())
    assert all(update.psnr is None for update in updates)
    assert np.isfinite(trainer.render(views[0].camera)).all()


def test_a_time_budget_is_kept_and_closing_stops(scene: SyntheticScene) -> None:
    trainer = trainer_for(scene, seconds=1.5, max_steps=0)
    started = time.monotonic()
    updates = list(trainer.run())
    assert updates and all(a.fraction <= b.fraction for a, b in itertools.pairwise(updates))
    assert time.monotonic() - started >= 1.5  # an upper bound would measure the machine
    run = trainer_for(scene, seconds=1000, max_steps=0).run()
    next(run)
    run.close()


def test_nothing_to_fit_is_said(scene: SyntheticScene) -> None:
    points, colors = scene.reconstruction.points, scene.reconstruction.colors
    view = scene.reconstruction.views[0]
    photo = Photo(view.name, view.camera, scene.photos[0])
    with pytest.raises(ConfigError, match="photo"):
        Trainer(TrainSettings(), [], [photo], points, colors)
    with pytest.raises(ConfigError, match="budget"):
        Trainer(TrainSettings(seconds=0), [photo], [], points, colors)
    with pytest.raises(ReconstructionError, match="in front"):
        Trainer(TrainSettings(), [photo], [], points[:0], colors[:0])


def test_first_splats_take_place_size_and_colour_from_the_points(scene: SyntheticScene) -> None:
    reconstruction = scene.reconstruction
    cameras = [view.camera for view in reconstruction.views]
    splats = splats_from_points(reconstruction.points, reconstruction.colors, cameras, sh_degree=2)
    assert np.allclose(splats.means, reconstruction.points) and splats.sh.shape[1] == 9
    assert np.allclose(0.5 + 0.28209479 * splats.sh[:, 0], reconstruction.colors / 255, atol=1e-5)
    distances = np.linalg.norm(reconstruction.points[:, None] - reconstruction.points[None], axis=2)
    nearest = np.sort(distances, axis=1)[:, 1:4]
    # no larger than a tenth of the distance to the nearest camera, so that an isolated point does not cover its view
    from_cameras = np.min([np.linalg.norm(reconstruction.points - c.position, axis=1) for c in cameras], axis=0)
    expected = np.minimum(np.sqrt((nearest**2).mean(1)), 0.1 * from_cameras)
    assert 0 < np.mean(expected < 0.0999 * from_cameras) < 1  # both cases are there
    assert np.allclose(np.exp(splats.log_scales), expected[:, None], rtol=1e-4)
    assert len(splats_from_points(reconstruction.points, reconstruction.colors, cameras, max_count=50)) == 50
    assert 0.8 < scene_depth(reconstruction.points, cameras) < 1.2


def test_the_shell_is_behind_everything_and_has_the_photos_colours(scene: SyntheticScene) -> None:
    cameras = [view.camera for view in scene.reconstruction.views]
    sky = [np.full((48, 64, 3), (40, 120, 200), np.uint8)] * len(cameras)
    shell = shell_splats(scene.reconstruction.points, cameras, sky)
    assert len(shell) > 100
    assert np.allclose(0.5 + 0.28209479 * shell.sh[:, 0], np.array([40, 120, 200]) / 255, atol=1e-3)
    depths = [shell.means @ c.cam_from_world[2, :3] + c.cam_from_world[2, 3] for c in cameras]
    assert (np.max(depths, axis=0) > 4).all()


@pytest.mark.parametrize("most", [1, 7, 100])
def test_a_shell_of_few_splats_covers_what_one_of_many_does(scene: SyntheticScene, most: int) -> None:
    cameras = [view.camera for view in scene.reconstruction.views]
    whole, few = (
        shell_splats(scene.reconstruction.points, cameras, scene.photos, max_count=count) for count in (3000, most)
    )
    assert len(whole) > 100 and 0.3 * most <= len(few) <= most
    areas = [float(np.exp(2 * shell.log_scales[:, 0]).sum()) for shell in (whole, few)]
    assert 0.5 < areas[1] / areas[0] < 2


@pytest.mark.parametrize("size", [(64, 48), (63, 47), (1, 1)])
def test_half_a_photo_shows_the_same_at_half_the_size(scene: SyntheticScene, size: tuple[int, int]) -> None:
    width, height = size
    rgb = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    half = _halved(Photo("a", scene.reconstruction.views[0].camera.sized(width, height), rgb))
    assert half.rgb.shape == (half.camera.height, half.camera.width, 3) == (max(1, height // 2), max(1, width // 2), 3)
    if width % 2 == height % 2 == 0:
        blocks = rgb.reshape(height // 2, 2, width // 2, 2, 3).mean((1, 3))
        assert np.abs(half.rgb - blocks).max() <= 1  # along each axis it is rounded
    assert abs(half.rgb.mean() - rgb.mean()) < 3


@given(st.floats(1, 1e7))
def test_the_learning_rate_factor_falls_with_the_length_of_a_run(steps: float) -> None:
    assert 1 <= learning_rate_factor(steps) <= 8
    assert learning_rate_factor(2 * steps) <= learning_rate_factor(steps)


@given(st.floats(0, 1), st.integers(1, 1000), st.integers(0, 100_000))
def test_the_number_of_splats_rises_to_the_cap_and_never_falls(fraction: float, first: int, more: int) -> None:
    most = first + more
    count = splat_count(fraction, first, most)
    assert first <= count <= most
    assert splat_count(min(1.0, fraction + 0.1), first, most) >= count
    assert splat_count(0.6, first, most) == most


@given(st.integers(1, 99))
def test_hurrying_is_continuous_and_ends_sooner(percent: int) -> None:
    clock = Clock(0, 1000)
    at = 10 * percent
    before = clock.fraction(at)
    clock.hurry(at)
    assert math.isclose(clock.fraction(at), before)
    assert clock.fraction(min(1000, math.ceil(1.25 * at) + 1)) >= 1 - 1e-9
    assert clock.fraction(1000) >= 1 - 1e-9


def test_a_fit_goes_on_from_an_earlier_share_of_its_schedule() -> None:
    clock = Clock(0, 1000)
    clock.hurry(600, 0.3)
    assert math.isclose(clock.fraction(600), 0.3)
    assert math.isclose(clock.fraction(750), 1.0)
    clock.hurry(700, 0.1)
    assert clock.fraction(700) > 0.7, "only once"


def test_the_time_left_follows_the_pace_and_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first step can take so long that its news comes with nothing of the schedule done."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for clock, steps in ((Clock(40, 0), 7), (Clock(0, 1000), 250)):
        now[0] = 100.0
        clock._started = now[0]
        assert clock.left(0) is None
        now[0] = 110.0
        assert clock.left(steps) == pytest.approx(30.0)
        clock.hurry(steps)  # a quarter of what has been spent is left
        assert clock.left(steps) == pytest.approx(2.5)
        now[0] = 160.0
        assert clock.left(1000) == 0.0


@pytest.mark.parametrize(
    ("best", "now", "lost"),
    [(0.35, 0.6, False), (0.35, 0.74, False), (0.35, 0.75, True), (0.6, 0.8, False), (0.6, 0.85, True)],
)
def test_a_fit_is_lost_only_once_its_learning_rates_have_fallen(best: float, now: float, lost: bool) -> None:
    assert is_lost(best, now) is lost


def test_a_curve_settles_when_it_is_flat() -> None:
    rising = [(0.05 * i, 20 + i) for i in range(16)]
    assert not settled(rising)
    flat = [(0.05 * i, min(20 + i, 25)) for i in range(16)]
    assert settled(flat) and not settled(flat[:7])


@pytest.mark.parametrize("with_heldout", [True, False])
def test_a_fit_that_gains_nothing_more_ends_early(scene: SyntheticScene, with_heldout: bool) -> None:
    rng = np.random.default_rng(0)
    noise = [Photo(v.name, v.camera, rng.integers(0, 256, (48, 64, 3), np.uint8)) for v in scene.reconstruction.views]
    heldout = noise[::4] if with_heldout else []
    settings = TrainSettings(seconds=0, max_steps=300, max_splats=600, stop_early=True, sh_degree=0)
    points, colors = scene.reconstruction.points[:200], scene.reconstruction.colors[:200]
    train = [photo for index, photo in enumerate(noise) if index % 4 or not with_heldout]
    trainer = Trainer(settings, train, heldout, points, colors)
    list(trainer.run())
    assert 120 <= trainer.steps < 250


def learning_noise(scene: SyntheticScene, max_splats: int) -> Trainer:
    """Trained on noise, the splats get worse from elsewhere with each step."""
    rng = np.random.default_rng(0)
    views = scene.reconstruction.views
    photos = [Photo(view.name, view.camera, rgb) for view, rgb in zip(views, scene.photos)]
    noise = [Photo(view.name, view.camera, rng.integers(0, 256, (48, 64, 3), np.uint8)) for view in views]
    settings = TrainSettings(seconds=0, max_steps=150, max_splats=max_splats)
    return Trainer(
        settings, noise[1::2], photos[::4], scene.reconstruction.points[:200], scene.reconstruction.colors[:200]
    )


def test_what_is_learned_by_heart_is_not_kept(scene: SyntheticScene) -> None:
    """The first full-size state is taken back."""
    trainer = learning_noise(scene, 600)
    updates = [update for update in trainer.run() if update.psnr is not None]
    scored, fractions = [update.psnr for update in updates], [update.fraction for update in updates]
    assert trainer.kept_from is not None
    back = [now for before, now in itertools.pairwise(fractions) if now < before]
    assert len(back) == 1 and back[0] > fractions[2], "it goes back to its best state and on from there, once"
    assert trainer.steps <= 150, "in the time that is left"
    assert scored[-1] > scored[-2], "the last is of the state that was kept, the one before of the last step"
    assert heldout_psnr(trainer) == pytest.approx(scored[-1], abs=1e-4)
    first_at_full_size = next(index for index, value in enumerate(scored) if value == scored[-1])
    assert first_at_full_size >= 2


def test_a_run_that_is_closed_can_still_go_back_to_its_best_state(scene: SyntheticScene) -> None:
    trainer = learning_noise(scene, 600)
    scored = []
    with contextlib.closing(trainer.run()) as updates:
        for update in updates:
            scored += [update.psnr] if update.psnr is not None else []
            if trainer._best is not None and scored[-1] < trainer._best.psnr:
                break
    best = trainer._best
    assert best is not None and heldout_psnr(trainer) < best.psnr
    list(trainer.go_back())
    assert heldout_psnr(trainer) == pytest.approx(best.psnr, abs=1e-4)
    assert trainer.kept_from == best.seconds
    assert list(trainer.go_back()) == [], "once"


def test_losses_of_halved_photos_do_not_look_like_a_plateau(
    scene: SyntheticScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are lower than those of the photos themselves, whatever is learned after."""
    curves = []
    monkeypatch.setattr("difix3d.splatting.schedule.settled", lambda curve: bool(curves.append(list(curve))))
    photos = [Photo(view.name, view.camera, rgb) for view, rgb in zip(scene.reconstruction.views, scene.photos)]
    settings = TrainSettings(seconds=0, max_steps=100, max_splats=800, stop_early=True)
    trainer = Trainer(settings, photos, [], scene.reconstruction.points, scene.reconstruction.colors)
    list(trainer.run())
    assert len(curves[-1]) >= 10 and min(fraction for fraction, _ in curves[-1]) > 0.3


def test_a_budget_of_steps_takes_all_scores_however_slow(
    scene: SyntheticScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However slow they are: when a state is taken back depends on them, and so what comes out."""
    fits = []
    for slow in (False, True):
        trainer = learning_noise(scene, 600)
        plain = trainer.score

        def score(photo: Photo, plain=plain, slow=slow) -> tuple[float, float]:
            if slow:
                time.sleep(0.1)
            return plain(photo)

        monkeypatch.setattr(trainer, "score", score)
        fits.append(([update.psnr for update in trainer.run() if update.psnr is not None], trainer.steps))
    assert fits[0] == fits[1]


def test_going_back_over_a_refinement_has_other_splats(scene: SyntheticScene, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = learning_noise(scene, 3000)
    numbers = []

    def is_lost(best: float, now: float) -> bool:
        assert trainer._best is not None
        numbers.append((len(trainer._best.tensors["means"]), trainer.count))
        return numbers[-1][0] != trainer.count

    monkeypatch.setattr("difix3d.splatting.schedule.is_lost", is_lost)
    list(trainer.run())
    assert any(before != after for before, after in numbers)


def test_the_last_state_is_kept_where_it_is_the_best(scene: SyntheticScene) -> None:
    trainer = trainer_for(scene, max_steps=300)
    scored = [update.psnr for update in trainer.run() if update.psnr is not None]
    assert trainer.kept_from is None and scored[-1] > max(scored) - 0.05
