"""Bundle adjustment, with progress."""

from __future__ import annotations

from collections.abc import Generator, Set

import cv2  # noqa: F401  before pycolmap: opencv 5 loaded after it aborts at the first picture read
import pycolmap

from difix3d.events import Progress
from difix3d.sfm.background import in_background
from difix3d.sfm.base import STAGE


def adjust(
    model: pycolmap.Reconstruction,
    hold_focal: bool,
    iterations: int,
    tolerance: float = 1e-4,
    held_points: Set[int] | None = None,
) -> Generator[Progress, None, None]:
    """Adjust cameras and points in place: `iterations` steps at most, until one lowers the cost by less than a share of
    `tolerance`. held_points: adjust neither cameras nor these points, only the others.
    """
    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary = False
    options.refine_focal_length = not hold_focal
    options.ceres.loss_function_type = pycolmap.LossFunctionType.SOFT_L1
    options.ceres.solver_options.max_num_iterations = iterations
    options.ceres.solver_options.function_tolerance = tolerance
    # Not pycolmap.bundle_adjustment, which says on stderr that it begins, whatever the level of its log.
    config = pycolmap.BundleAdjustmentConfig()
    for image_id in model.reg_image_ids():
        config.add_image(image_id)
    if held_points is None:
        config.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    else:
        options.refine_rig_from_world = options.refine_extra_params = options.refine_focal_length = False
        for point_id in held_points:
            config.add_constant_point(point_id)
    adjuster = pycolmap.create_default_bundle_adjuster(options, config, model)

    def solve() -> None:
        adjuster.solve()
        # Also keeps the model: the adjuster does not, and the thread outlives a generator that is closed.
        model.update_point_3d_errors()

    for _ in in_background(solve, lambda: 0):
        yield Progress(STAGE, "Adjusting cameras" if held_points is None else "Adjusting points", 0, 0)
