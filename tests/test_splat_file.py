"""The .splat file, read back by its published layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from difix3d.formats.splat import RECORD_BYTES, write_splat
from difix3d.types import SH_C0, Splats


def splats(count: int = 20, seed: int = 0) -> Splats:
    rng = np.random.default_rng(seed)
    return Splats(
        rng.standard_normal((count, 3)),
        rng.standard_normal((count, 4)),
        rng.uniform(-5, -1, (count, 3)),
        rng.uniform(-3, 3, count),
        rng.uniform(-1, 1, (count, 4, 3)),
    )


def read(path: Path) -> dict[str, np.ndarray]:
    records = np.frombuffer(path.read_bytes(), np.uint8).reshape(-1, RECORD_BYTES)
    return {
        "means": records[:, :12].copy().view("<f4"),
        "scales": records[:, 12:24].copy().view("<f4"),
        "rgba": records[:, 24:28].astype(float),
        "quats": (records[:, 28:32].astype(float) - 128) / 128,
    }


def test_what_is_written_is_what_a_viewer_reads(tmp_path: Path) -> None:
    original = splats()
    write_splat(tmp_path / "a.splat", original)
    found = read(tmp_path / "a.splat")
    # Order is by size and opacity: match rows by position.
    rows = [int(np.argmin(np.linalg.norm(original.means - mean, axis=1))) for mean in found["means"]]
    assert sorted(rows) == list(range(len(original)))
    assert np.array_equal(found["means"], original.means[rows])
    assert np.allclose(found["scales"], np.exp(original.log_scales[rows]), rtol=1e-5)
    colors = 255 * np.clip(0.5 + SH_C0 * original.sh[rows, 0], 0, 1)
    assert np.abs(found["rgba"][:, :3] - colors).max() <= 0.51
    assert np.abs(found["rgba"][:, 3] - 255 / (1 + np.exp(-original.opacity_logits[rows]))).max() <= 0.51
    unit = original.quats[rows] / np.linalg.norm(original.quats[rows], axis=1, keepdims=True)
    angles = np.abs(np.sum(unit * found["quats"], axis=1))
    assert (angles > 0.99).all()
    weights = np.exp(original.log_scales.sum(axis=1)) / (1 + np.exp(-original.opacity_logits))
    assert (np.diff(weights[rows]) <= 0).all()


def test_only_the_largest_are_kept_where_there_are_too_many(tmp_path: Path) -> None:
    original = splats(50)
    write_splat(tmp_path / "all.splat", original)
    write_splat(tmp_path / "some.splat", original, max_splats=10)
    everything, some = (tmp_path / "all.splat").read_bytes(), (tmp_path / "some.splat").read_bytes()
    assert len(some) == 10 * RECORD_BYTES and everything.startswith(some)
