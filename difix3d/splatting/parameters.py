"""The trainable splats: tensors, one Adam over all of them, and changing their number without losing its moments."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from difix3d.types import Splats

NAMES = ("means", "quats", "log_scales", "opacity_logits", "sh_dc", "sh_rest")

_BASE_RATES = {
    "means": 1.6e-4,  # times the scene depth
    "quats": 1e-3,
    "log_scales": 5e-3,
    "opacity_logits": 5e-2,
    "sh_dc": 5e-3,
    "sh_rest": 3.75e-4,
}
"""Learning rates of the 3DGS reference code, but for colours: twice its rate for what looks the same from all sides,
three times for the rest. Chosen among several on held-out photos of an orbit, a turntable, a drone's flight and a
video (288 px, 600 steps); with a seed that had no part in the choice they gain 0.09 dB (-0.04 to 0.20) and lose 0.004
of SSIM. Three times for the rest alone costs the turntable 0.3 dB."""


class SplatParameters:
    """Splats as leaf tensors on `device`. sh_dc: [N, 1, 3] and sh_rest: [N, K - 1, 3] have rates of their own."""

    def __init__(self, splats: Splats, device: torch.device | str, scene_depth: float):
        fields = {
            "means": splats.means,
            "quats": splats.quats,
            "log_scales": splats.log_scales,
            "opacity_logits": splats.opacity_logits,
            "sh_dc": splats.sh[:, :1],
            "sh_rest": splats.sh[:, 1:],
        }
        self.scene_depth = scene_depth
        self.tensors = {
            name: torch.tensor(np.ascontiguousarray(value), device=device).requires_grad_()
            for name, value in fields.items()
        }
        groups = [{"params": [self.tensors[name]], "lr": 0.0, "name": name} for name in NAMES]
        self.optimiser = torch.optim.Adam(groups, eps=1e-15, fused=True)

    def __len__(self) -> int:
        return len(self.tensors["means"])

    @property
    def sh_degree(self) -> int:
        return round((1 + self.tensors["sh_rest"].shape[1]) ** 0.5) - 1

    def inputs(self, sh_degree: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor | tuple[Tensor, Tensor]]:
        """What `rasterize` takes first; of degree 0 without the other coefficients, so that they cost nothing."""
        dc, rest = self.tensors["sh_dc"], self.tensors["sh_rest"]
        splats = (self.tensors[name] for name in NAMES[:4])
        return (*splats, (dc, rest) if sh_degree > 0 else dc)  # type: ignore[return-value]

    def set_rates(self, factor: float, means_factor: float) -> None:
        """Learning rates: the reference's times `factor`; those of the means times `means_factor` and scene depth."""
        for group in self.optimiser.param_groups:
            scale = means_factor * self.scene_depth if group["name"] == "means" else factor
            group["lr"] = _BASE_RATES[group["name"]] * scale

    def step(self) -> None:
        """One Adam step; then values are kept where their exponentials and divisions are safe in float32."""
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.tensors["opacity_logits"].clamp_(-12.0, 12.0)
            depth = float(np.log(self.scene_depth))
            self.tensors["log_scales"].clamp_(depth - 12.0, depth + 3.0)

    @torch.no_grad()
    def rebuild(self, kept: Tensor, added: dict[str, Tensor]) -> None:
        """Keep the rows `kept` ([M] indices) and append the rows of `added` (one tensor per name, possibly empty).

        Kept rows keep their Adam moments; added rows start with none.
        """
        for group in self.optimiser.param_groups:
            name = group["name"]
            old = self.tensors[name]
            state = self.optimiser.state.pop(old, {})
            new = torch.cat([old[kept], added[name]]).requires_grad_()
            for moment in ("exp_avg", "exp_avg_sq"):
                if moment in state:
                    state[moment] = torch.cat([state[moment][kept], torch.zeros_like(added[name])])
            if state:
                self.optimiser.state[new] = state
            group["params"] = [new]
            self.tensors[name] = new

    def rows(self, indices: Tensor) -> dict[str, Tensor]:
        """A detached copy of some rows, by name."""
        return {name: tensor.detach()[indices].clone() for name, tensor in self.tensors.items()}

    def copy(self) -> dict[str, Tensor]:
        """All rows, detached, by name."""
        return {name: tensor.detach().clone() for name, tensor in self.tensors.items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go back to what `copy` gave; the optimiser starts anew."""
        nobody = torch.empty(0, dtype=torch.long, device=tensors["means"].device)
        self.rebuild(nobody, tensors)
        self.optimiser.state.clear()

    def to_splats(self) -> Splats:
        """A copy as numpy, quaternions of unit length."""
        arrays = {name: tensor.detach().cpu().numpy() for name, tensor in self.tensors.items()}
        quats = arrays["quats"] / np.maximum(np.linalg.norm(arrays["quats"], axis=1, keepdims=True), 1e-12)
        quats[np.linalg.norm(quats, axis=1) < 0.5] = (1, 0, 0, 0)
        sh = np.concatenate([arrays["sh_dc"], arrays["sh_rest"]], axis=1)
        return Splats(arrays["means"].copy(), quats, arrays["log_scales"].copy(), arrays["opacity_logits"].copy(), sh)
