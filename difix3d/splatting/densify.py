"""More splats where the picture asks for them, fewer where they do nothing; on any device.

3DGS (section 5.2) clones small splats and splits large ones wherever the gradient by the projected centre passes a
threshold. A threshold gives a number of splats that depends on scene, resolution and learning rate. Here splats are
*ranked*, and only as many grow as a schedule allows, so that a time budget can be kept.

They are ranked by the sum over pixels of the absolute values of what each pixel adds to that gradient (AbsGS, Ye et al.
2024). 3DGS adds them with their signs: the pixels of a large splat that blurs a texture pull it to all sides, and their
plain sum is near nothing.

Both of 3DGS' cases are one here: a splat becomes two along its longest axis, with the first two moments of what it was,
so that the picture hardly changes at the moment of the split, which matters when training lasts 2,000 steps and not
30,000.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from difix3d.splatting.base import ScreenSpace
from difix3d.splatting.parameters import SplatParameters
from difix3d.types import Camera

_OFFSET = 0.75
_SHRINK = (1 - _OFFSET**2) ** 0.5
"""Two equal Gaussians at +-d with deviation s' have variance d^2 + s'^2: with d = 0.75 s that of the one split."""
_LARGEST_SHARE_PER_ROUND = 0.3
"""Growing fast destabilises: 25x in 230 steps cost 20 dB once."""
_LOWEST_OPACITY = 0.01
_LARGEST_ANGLE = 0.5
"""Splats larger than this share of (scene depth + distance from the cameras' centre) are fog."""


@dataclass(frozen=True)
class Refinement:
    """What one round did, in splats."""

    split: int
    pruned: int


class Densifier:
    """Collects screen-space gradients over steps, then refines. One per training run.

    near_limits: for each training camera the depth before which nothing real is; splats there are floaters.
    """

    def __init__(
        self, parameters: SplatParameters, cameras: Sequence[Camera], near_limits: Sequence[float], seed: int = 0
    ):
        self._parameters = parameters
        self._generator = torch.Generator().manual_seed(seed)
        device = parameters.tensors["means"].device
        self._cameras = [
            (torch.tensor(camera.K @ camera.cam_from_world[:3], dtype=torch.float32, device=device), camera, limit)
            for camera, limit in zip(cameras, near_limits)
        ]
        self._centre = torch.tensor(
            sum(camera.position for camera in cameras) / len(cameras), dtype=torch.float32, device=device
        )
        self.forget()

    def observe(self, screen: ScreenSpace, camera: Camera) -> None:
        """Add what one backward pass found. screen: as `rasterize` and the backward pass filled it for `camera`."""
        assert screen.radii is not None and screen.abs_gradients is not None, "observe comes after backward"
        visible = screen.radii > 0
        # Per half image, as 3DGS has it, so that gradients at two resolutions weigh alike.
        half = torch.tensor([camera.width / 2, camera.height / 2], device=self._sum.device)
        self._sum += torch.where(visible, (screen.abs_gradients * half).norm(dim=1), 0.0)
        self._count += visible

    def refine(self, target: int) -> Refinement:
        """Prune, then split the splats with the largest mean gradient until there are about `target`."""
        with torch.no_grad():
            useless = self._useless()
            kept = torch.nonzero(~useless).squeeze(1)
            room = min(target - len(kept), int(_LARGEST_SHARE_PER_ROUND * len(kept)))
            score = (self._sum / self._count.clamp(min=1.0))[kept]
            chosen = torch.topk(score, max(0, min(room, int((score > 0).sum())))).indices
            stays = torch.ones(len(kept), dtype=torch.bool, device=kept.device)
            stays[chosen] = False
            children = self._children(self._parameters.rows(kept[chosen]))
            self._parameters.rebuild(kept[stays], children)
        self.forget()
        return Refinement(split=len(chosen), pruned=int(useless.sum()))

    def forget(self) -> None:
        """What was collected: it is of splats that are no more."""
        means = self._parameters.tensors["means"]
        self._sum = torch.zeros(len(means), device=means.device)
        self._count = torch.zeros(len(means), device=means.device)

    def _useless(self) -> Tensor:
        """[N] bool: transparent, fog, or in the face of a training camera."""
        tensors = self._parameters.tensors
        means, depth = tensors["means"], self._parameters.scene_depth
        useless = torch.sigmoid(tensors["opacity_logits"]) < _LOWEST_OPACITY
        distance = (means - self._centre).norm(dim=1)
        useless |= tensors["log_scales"].amax(1).exp() > _LARGEST_ANGLE * (depth + distance)
        for matrix, camera, limit in self._cameras:
            x, y, z = (means @ matrix[:, :3].T + matrix[:, 3]).unbind(1)
            near = (z > 0) & (z < limit) & (x > 0) & (x < camera.width * z) & (y > 0) & (y < camera.height * z)
            useless |= near
        return useless

    def _children(self, parents: dict[str, Tensor]) -> dict[str, Tensor]:
        """Two splats for each parent, at +-_OFFSET deviations along its longest axis."""
        log_scales = parents["log_scales"]
        # The jitter draws an axis where they are equal, as at the start.
        jitter = 0.05 * torch.randn(log_scales.shape, generator=self._generator).to(log_scales)
        axis = (log_scales + jitter).argmax(1, keepdim=True)
        direction = _rotation_columns(parents["quats"], axis.squeeze(1))
        offset = _OFFSET * log_scales.gather(1, axis).exp() * direction
        shrunk = log_scales.scatter_add(1, axis, torch.full_like(log_scales[:, :1], _SHRINK).log())
        # Each child holds half of what the parent absorbed: opacity times volume is kept.
        opacity = (torch.sigmoid(parents["opacity_logits"]) * 0.5 / _SHRINK).clamp(max=0.99)
        changed = {"log_scales": shrunk, "opacity_logits": torch.logit(opacity)}
        children = {name: torch.cat([tensor, tensor]) for name, tensor in {**parents, **changed}.items()}
        children["means"] = torch.cat([parents["means"] + offset, parents["means"] - offset])
        return children


def _rotation_columns(quats: Tensor, column: Tensor) -> Tensor:
    """[N, 3]: one column of each quaternion's (wxyz) rotation matrix: that axis of the splat in the world."""
    w, x, y, z = torch.nn.functional.normalize(quats, dim=1).unbind(1)
    columns = torch.stack(
        [
            torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], 1),
            torch.stack([2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)], 1),
            torch.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], 1),
        ],
        1,
    )
    return columns[torch.arange(len(quats), device=quats.device), column]
