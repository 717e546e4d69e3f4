"""The main job as a list of steps: what `difix3d run` and the app's Start button both do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from difix3d.errors import ConfigError
from difix3d.jobs import Step
from difix3d.stages import SCENE_STAGES
from difix3d.trajectories import HELDOUT

DEFAULT_TRAJECTORIES = ("extrapolate",)
DEFAULT_PRESET = "quick"


def steps_for_run(
    capture: Sequence[str | Path],
    *,
    preset: str = DEFAULT_PRESET,
    trajectories: Sequence[str] = DEFAULT_TRAJECTORIES,
    fixer: str = "",
    holdout: int = 8,
    train_every: int = 1,
    seconds: float = 0.0,
    until: str | None = None,
) -> list[Step]:
    """ingest, reconstruct, fit, then render and fix each trajectory, evaluate on the held-out photos, and report.

    The held-out photos' cameras are rendered as well: with those photos they are the training pairs of an export.

    capture: paths; empty: the scene has its photos already, start at reconstruct. seconds: the fit's budget, 0 for
    the preset's. fixer: "" for the default. until: the last stage to run. holdout 0 leaves evaluate out; ConfigError
    for one that would leave no photo to fit to.
    """
    from difix3d.fixers import DEFAULT_FIXER

    if holdout < 0 or holdout == 1:
        raise ConfigError(
            f"Every N-th photo is to be kept out, and N (holdout) is {holdout}: expected 0, which keeps none out, or 2 "
            "and more, such as 8. 1 would keep out all of them and leave none to fit to."
        )
    fixer = fixer or DEFAULT_FIXER
    steps = []
    if capture:
        steps.append(Step("ingest", {"capture": [str(Path(path).resolve()) for path in capture]}))
    steps.append(Step("reconstruct", {}))
    steps.append(Step("fit", {"preset": preset, "seconds": seconds, "holdout": holdout, "train_every": train_every}))
    judged = bool(holdout) or train_every > 1
    if judged and HELDOUT not in trajectories:
        steps.append(Step("render", {"trajectory": HELDOUT}))
    for stage in ("render", "fix"):
        for trajectory in trajectories:
            config = {"trajectory": trajectory}
            if stage == "fix":
                config = {"trajectory": Path(trajectory).stem, "fixer": fixer}
            steps.append(Step(stage, config))
    if judged:
        steps.append(Step("evaluate", {"fixer": fixer}))
    steps.append(Step("report", {}))
    if until is None:
        return steps
    if until not in SCENE_STAGES:
        raise ConfigError(f"--until {until}: choose one of {', '.join(SCENE_STAGES)}")
    return [step for step in steps if SCENE_STAGES.index(step.stage) <= SCENE_STAGES.index(until)]
