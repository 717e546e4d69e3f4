"""Converting splats on the command line: what comes out is readable, and what cannot be is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from difix3d.cli import main
from difix3d.formats.ply import read_splats, write_splats
from difix3d.formats.splat import RECORD_BYTES
from difix3d.types import Splats


@pytest.fixture
def ply(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    draw = rng.standard_normal
    splats = Splats(draw((500, 3)), draw((500, 4)), draw((500, 3)) - 3, draw(500), 0.2 * draw((500, 9, 3)))
    write_splats(tmp_path / "garden.ply", splats)
    return tmp_path / "garden.ply"


def convert(capsys, source: Path, out: Path) -> dict:
    status = main(["convert", str(source), "--out", str(out), "--json"])
    told = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert told["ok"] is (status == 0)
    return told


def test_ply_to_spz_and_back_keeps_every_splat(ply: Path, capsys) -> None:
    spz, back = ply.with_name("garden.SPZ"), ply.with_name("back.ply")
    told = convert(capsys, ply, spz)
    assert told["figures"] == {
        "splats": 500, "sh_degree": 2, "bytes": spz.stat().st_size, "bytes_before": ply.stat().st_size
    }  # fmt: skip
    assert told["outputs"] == [str(spz)]
    convert(capsys, spz, back)
    before, after = read_splats(ply), read_splats(back)
    assert np.abs(before.means - after.means).max() < 1e-5
    assert np.abs(before.log_scales - after.log_scales).max() < 1 / 31


def test_splat_files_are_written(ply: Path, capsys) -> None:
    told = convert(capsys, ply, ply.with_name("garden.splat"))
    assert told["figures"]["bytes"] == 500 * RECORD_BYTES


@pytest.mark.parametrize(
    ("source", "out", "kind", "words"),
    [
        ("garden.ply", "garden.obj", "ConfigError", "ends in .ply or .spz or .splat"),
        ("garden.splat", "garden.ply", "ConfigError", "ends in .ply or .spz"),
        ("none.ply", "a.spz", "FormatError", "could not read"),
        ("none.spz", "a.ply", "FormatError", "could not read"),
    ],
)
def test_what_cannot_be_converted_is_said(ply: Path, capsys, source: str, out: str, kind: str, words: str) -> None:
    told = convert(capsys, ply.with_name(source), ply.with_name(out))
    assert told["error"]["kind"] == kind and words in told["error"]["message"]
    assert [path.name for path in ply.parent.iterdir()] == ["garden.ply"]
