"""Whether a tuned checkpoint may be offered: held-out photos, fixed by it and by its parent, decide.

What raters like is learned from few comparisons, and can cost truth: a checkpoint that is further from photos than its
parent by more than these limits is kept, and not offered among the fixers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Limits:
    """psnr_drop: dB; lpips_rise: of LPIPS (VGG). By how much the new one may be worse than its parent."""

    psnr_drop: float = 0.1
    lpips_rise: float = 0.005


def judged(validation: dict[str, Any] | None, limits: Limits) -> dict[str, Any]:
    """{"passed", "problems", "limits"} of what validation.py found before and after (None: nothing). passed: None where
    nothing was measured. problems: which limit is broken, and by how much."""
    told = {"psnr_drop": limits.psnr_drop, "lpips_rise": limits.lpips_rise}
    if validation is None:
        return {"passed": None, "problems": [], "limits": told}
    before, after = validation["before"], validation["after"]
    problems = []
    drop = before["psnr"] - after["psnr"]
    if drop > limits.psnr_drop:
        problems.append(
            f"PSNR fell by {drop:.2f} dB ({before['psnr']:.2f} to {after['psnr']:.2f}), where {limits.psnr_drop:g} dB "
            "are allowed (--max-psnr-drop)"
        )
    if before["lpips"] is not None and after["lpips"] is not None:
        rise = after["lpips"] - before["lpips"]
        if rise > limits.lpips_rise:
            problems.append(
                f"LPIPS rose by {rise:.4f} ({before['lpips']:.4f} to {after['lpips']:.4f}), where "
                f"{limits.lpips_rise:g} is allowed (--max-lpips-rise)"
            )
    return {"passed": not problems, "problems": problems, "limits": told}


def sentence(gate: dict[str, Any], photos: int, name: str) -> str:
    """For people: why it is not offered."""
    return (
        f"{name} is kept, but not offered among the fixers: at {photos} photos that it was not trained on, "
        f"{'; '.join(gate['problems'])}. Train less or on more photos, or allow more."
    )
