"""Convert: splats from one file format to another, for other people's viewers and from other people's programs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from difix3d.errors import ConfigError
from difix3d.events import Artifact, Done, Event, Progress
from difix3d.formats.ply import read_splats, write_splats
from difix3d.formats.splat import write_splat
from difix3d.formats.spz import read_spz, write_spz
from difix3d.stages.base import option
from difix3d.types import Splats

READERS: dict[str, Callable[[Path], Splats]] = {".ply": read_splats, ".spz": read_spz}
WRITERS: dict[str, Callable[[Path, Splats], None]] = {
    ".ply": write_splats,
    ".spz": write_spz,
    ".splat": lambda path, splats: write_splat(path, splats, max_splats=len(splats)),
}


@dataclass(frozen=True)
class ConvertConfig:
    """One file in, one out; the formats are those that the names end in."""

    out: str = field(metadata={"help": f"the file to write: {', '.join(WRITERS)} (one colour a splat)"})
    splats: tuple[str, ...] = option((), f"the file to read: {' or '.join(READERS)}", positional=True)


def convert(config: ConvertConfig) -> Iterator[Event]:
    """Yields Progress, Artifact and at last Done with the figures splats, sh_degree, bytes and bytes_before.

    ConfigError for names whose format is unknown; FormatError for a file that is not what its name says.
    """
    started = time.monotonic()
    if len(config.splats) != 1:
        raise ConfigError(f"Expected one file of splats to read, got {len(config.splats)}.")
    source, out = Path(config.splats[0]), Path(config.out)
    for path, known in ((source, READERS), (out, WRITERS)):
        if path.suffix.lower() not in known:
            raise ConfigError(f"{path.name}: expected a name that ends in {' or '.join(known)}.")
    yield Progress("convert", f"Reading {source.name}")
    splats = READERS[source.suffix.lower()](source)
    yield Progress("convert", f"Writing {len(splats):,} splats to {out.name}")
    WRITERS[out.suffix.lower()](out, splats)
    figures = {
        "splats": len(splats),
        "sh_degree": splats.sh_degree,
        "bytes": out.stat().st_size,
        "bytes_before": source.stat().st_size,
    }
    yield Artifact("convert", "splats", str(out), f"{len(splats):,} splats")
    yield Done("convert", round(time.monotonic() - started, 2), figures, (str(out),))
