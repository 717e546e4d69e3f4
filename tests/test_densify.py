"""Changing the number of splats: what was learned stays with its splat, the picture hardly changes, caps hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from difix3d.splatting.base import ScreenSpace
from difix3d.splatting.densify import Densifier
from difix3d.splatting.parameters import NAMES, SplatParameters
from difix3d.types import Camera, Splats

CAMERA = Camera(np.array([[100.0, 0, 32], [0, 100, 24], [0, 0, 1]]), 64, 48, np.eye(4))


def splats(count: int, seed: int = 0, opacity_logit: float = 0.0, z: float = 3.0) -> Splats:
    rng = np.random.default_rng(seed)
    return Splats(
        rng.uniform(-0.5, 0.5, (count, 3)) + np.array([0, 0, z]),
        rng.standard_normal((count, 4)),
        rng.uniform(-4, -2, (count, 3)),
        np.full(count, opacity_logit),
        rng.standard_normal((count, 4, 3)),
    )


def trained(parameters: SplatParameters, steps: int = 3) -> None:
    """Some Adam steps on an arbitrary loss, so that every moment is non-zero and differs by row."""
    parameters.set_rates(1.0, 1.0)
    for _ in range(steps):
        sum((tensor**2).sum() for tensor in parameters.tensors.values()).backward()
        parameters.step()


def observed(densifier: Densifier, gradients: np.ndarray, radii: np.ndarray | None = None) -> None:
    screen = ScreenSpace()
    screen.abs_gradients = torch.tensor(gradients, dtype=torch.float32)
    screen.radii = torch.tensor(np.ones(len(gradients)) if radii is None else radii, dtype=torch.int32)
    densifier.observe(screen, CAMERA)


def test_rebuild_keeps_each_rows_values_and_moments() -> None:
    parameters = SplatParameters(splats(9), "cpu", 1.0)
    trained(parameters)
    before = {name: tensor.detach().clone() for name, tensor in parameters.tensors.items()}
    moments = {name: parameters.optimiser.state[t]["exp_avg_sq"].clone() for name, t in parameters.tensors.items()}
    kept = torch.tensor([7, 2, 3])
    added = parameters.rows(torch.tensor([0, 0]))
    parameters.rebuild(kept, added)
    assert len(parameters) == 5 and len(parameters.optimiser.state) == len(NAMES)
    for name, tensor in parameters.tensors.items():
        assert torch.equal(tensor[:3], before[name][kept]) and torch.equal(tensor[3:], before[name][[0, 0]])
        state = parameters.optimiser.state[tensor]
        assert torch.equal(state["exp_avg_sq"][:3], moments[name][kept])
        assert not state["exp_avg_sq"][3:].any() and not state["exp_avg"][3:].any()
    trained(parameters, 1)  # and training goes on
    assert all(torch.isfinite(tensor).all() for tensor in parameters.tensors.values())


def test_a_round_without_change_trains_as_if_it_had_not_been() -> None:
    plain, rebuilt = (SplatParameters(splats(5), "cpu", 1.0) for _ in range(2))
    for parameters in (plain, rebuilt):
        trained(parameters)
    rebuilt.rebuild(torch.arange(5), rebuilt.rows(torch.tensor([], dtype=torch.long)))
    for parameters in (plain, rebuilt):
        trained(parameters)
    assert all(torch.equal(plain.tensors[name], rebuilt.tensors[name]) for name in NAMES)


def test_a_splat_and_its_children_have_the_same_moments() -> None:
    parameters = SplatParameters(splats(1), "cpu", 1.0)
    parent = parameters.to_splats()
    densifier = Densifier(parameters, [CAMERA], [0.0])
    observed(densifier, np.ones((1, 2)))
    parameters.rebuild(torch.tensor([], dtype=torch.long), densifier._children(parameters.rows(torch.tensor([0]))))
    children = parameters.to_splats()
    assert np.allclose(children.means.mean(0), parent.means[0], atol=1e-6)
    offsets = children.means - parent.means[0]
    covariance = np.mean([covariance_of(children, i) + np.outer(offsets[i], offsets[i]) for i in range(2)], axis=0)
    assert np.allclose(covariance, covariance_of(parent, 0), rtol=1e-3, atol=1e-6)


def covariance_of(s: Splats, index: int) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    w, x, y, z = s.quats[index]
    rotation = Rotation.from_quat([x, y, z, w]).as_matrix()
    return rotation @ np.diag(np.exp(2 * s.log_scales[index])) @ rotation.T


@pytest.mark.parametrize("target", [10, 55, 60, 500])
def test_growth_goes_to_the_target_in_steps_and_to_the_steepest(target: int) -> None:
    parameters = SplatParameters(splats(50), "cpu", 1.0)
    parameters.tensors["sh_dc"].data[:, 0, 0] = torch.arange(50.0)  # a mark that children inherit
    densifier = Densifier(parameters, [CAMERA], [0.0])
    steepness = np.random.default_rng(1).permutation(50).astype(float)
    observed(densifier, np.stack([steepness, np.zeros(50)], 1))
    done = densifier.refine(target)
    assert len(parameters) == max(50, min(target, 65)) and done.split == len(parameters) - 50
    marks = parameters.tensors["sh_dc"][:, 0, 0].detach().round().int().tolist()
    doubled = {mark for mark in marks if marks.count(mark) == 2}
    assert doubled == set(np.argsort(-steepness)[: done.split])


def test_unseen_splats_do_not_grow() -> None:
    parameters = SplatParameters(splats(20), "cpu", 1.0)
    densifier = Densifier(parameters, [CAMERA], [0.0])
    observed(densifier, np.ones((20, 2)), radii=np.arange(20) < 2)
    assert densifier.refine(100).split == 2


def test_transparent_foggy_and_near_splats_go() -> None:
    parameters = SplatParameters(splats(20), "cpu", 1.0)
    with torch.no_grad():
        parameters.tensors["opacity_logits"][:3] = -8.0
        parameters.tensors["log_scales"][3:5, 1] = 4.0
        parameters.tensors["means"][5] = torch.tensor([0.0, 0.0, 0.2])  # just before the camera
    densifier = Densifier(parameters, [CAMERA], [0.5])
    observed(densifier, np.zeros((20, 2)))
    assert densifier.refine(20).pruned == 6
    assert len(parameters) == 14


def test_the_same_seed_grows_the_same() -> None:
    results = []
    for _ in range(2):
        parameters = SplatParameters(splats(30), "cpu", 1.0)
        densifier = Densifier(parameters, [CAMERA], [0.0], seed=4)
        observed(densifier, np.ones((30, 2)))
        densifier.refine(36)
        results.append(parameters.to_splats())
    assert np.array_equal(results[0].means, results[1].means)
