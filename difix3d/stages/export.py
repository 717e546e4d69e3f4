"""Write ratings and training pairs as a dataset folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from difix3d.errors import ConfigError
from difix3d.events import Done, Event
from difix3d.stages.base import option


@dataclass(frozen=True)
class ExportConfig:
    out: str = field(metadata={"help": "folder of the export; an earlier export there is replaced"})
    ratings_db: str = option("", "SQLAlchemy URL of the ratings (default: $DIFIX3D_RATINGS_DB)")
    scenes: str = option("", "folder of scenes, or one scene (default: $DIFIX3D_SCENES, or scenes)")
    test_share: float = option(
        0.2, "share of the scenes that goes to test; a scene stays in its split", minimum=0.0, maximum=0.9
    )
    min_votes: int = option(1, "votes a fix needs before it can be a training target", minimum=1)
    since: str = option("", "leave out votes from before this day (in UTC, as 2026-11-28)")
    without: tuple[str, ...] = option((), "leave out the votes of these raters (numbers)")
    without_flagged: bool = option(False, "leave out raters whom `difix3d ratings` flags")


def export(config: ExportConfig) -> Iterator[Event]:
    """Yields Progress, Warned for what is left out, and at last Done with the figures of the export.

    Closing this generator leaves `out` as it was. Raises ConfigError and RatingError in words.
    """
    from difix3d.ratings.export import Export
    from difix3d.ratings.filters import vote_filter
    from difix3d.ratings.store import RatingStore
    from difix3d.stages.exporting import FrameInputs

    started = time.monotonic()
    scenes, only = Path(config.scenes or os.environ.get("DIFIX3D_SCENES") or "scenes").resolve(), None
    if config.scenes and not scenes.is_dir():
        raise ConfigError(f"{config.scenes}: no such folder. Name the folder of scenes, or one scene, with --scenes.")
    if (scenes / "scene.json").is_file():
        scenes, only = scenes.parent, scenes.name
    filters = vote_filter(only, config.since, config.without, config.without_flagged)
    with RatingStore(config.ratings_db) as store:
        inputs, out = FrameInputs(scenes), Path(config.out).resolve()
        run = Export(store, scenes, out, only, config.test_share, config.min_votes, inputs, filters)
        yield from run.run()
        run.figures |= inputs.figures
    yield Done("export", round(time.monotonic() - started, 2), run.figures, (str(run.out),))
