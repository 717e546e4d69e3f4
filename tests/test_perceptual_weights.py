"""VGG-16's weights from the Hub: only the bytes that are needed, the right numbers or none, and never unasked."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hub_stand_in import StandInHub, in_a_process
from safetensors.numpy import load_file, save_file

from difix3d import perceptual_weights
from difix3d.errors import ConfigError
from difix3d.perceptual_weights import FILES, VGG_BYTES, find_weights, how_to_get

pytestmark = pytest.mark.shared

BACKBONE, HEADS = perceptual_weights._BACKBONE, perceptual_weights._HEADS
FETCH = """
import json, sys
from difix3d.errors import CheckpointError
from difix3d.perceptual_weights import fetch_vgg, find_weights
steps, told = fetch_vgg(), []
try:
    while True:
        event = next(steps)
        told.append([type(event).__name__, event.message, getattr(event, "done", 0), getattr(event, "total", 0)])
except StopIteration as end:
    print(json.dumps({"path": str(end.value), "told": told}))
except CheckpointError as error:
    print(json.dumps({"error": str(error), "told": told}))
assert "torch" not in sys.modules
"""


@pytest.fixture(scope="module")
def ours(shared: Path) -> dict[str, np.ndarray]:
    return load_file(shared / "weights" / FILES["vgg"])


@pytest.fixture
def hub(ours: dict[str, np.ndarray], tmp_path: Path) -> Iterator[StandInHub]:
    """The real numbers under the keys they have there, with a classifier that nobody needs."""
    backbone, heads = tmp_path / "timm", tmp_path / "lpips"
    backbone.mkdir()
    heads.mkdir()
    tensors = {name: tensor for name, tensor in ours.items() if name.startswith("features.")}
    tensors |= {
        "head.fc.weight": np.zeros((1000, 2048), np.float32),
        "pre_logits.fc1.weight": np.zeros((2048, 2048), np.float32),
    }
    save_file(tensors, backbone / BACKBONE.path)
    save_file({f"l{i}.w": ours[f"lin{i}.model.1.weight"].ravel() for i in range(5)}, heads / HEADS.path)
    repositories = {BACKBONE.repo: backbone, HEADS.repo: heads}
    with StandInHub(repositories, {BACKBONE.repo: BACKBONE.commit, HEADS.repo: HEADS.commit}).serving() as serving:
        yield serving


def fetch(hub: StandInHub, home: Path) -> dict:
    done = in_a_process(FETCH, home, hub.url)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def spoil(path: Path, name: str) -> None:
    """Change one number of one tensor, in place."""
    with path.open("r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        start = json.loads(file.read(length))[name]["data_offsets"][0]
        file.seek(8 + length + start)
        byte = file.read(1)[0]
        file.seek(8 + length + start)
        file.write(bytes([byte ^ 1]))


def test_only_what_is_needed_is_read_and_it_becomes_the_same_file(
    hub: StandInHub, ours: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    got = fetch(hub, tmp_path / "home")
    made = load_file(got["path"])
    assert made.keys() == ours.keys()
    assert all(np.array_equal(made[name], ours[name]) and made[name].shape == ours[name].shape for name in ours)
    assert sum(hub.sent.values()) < VGG_BYTES + 20_000, "the classifier was read, too"
    assert got["told"][0][0] == "Warned" and "59 MB of weights come from the Hub" in got["told"][0][1]
    last = [entry for entry in got["told"] if BACKBONE.repo in entry[1] and entry[3]][-1]
    assert last[2] == last[3] == pytest.approx(58.9)

    asked = len(hub.seen)
    assert fetch(hub, tmp_path / "home") == {"path": got["path"], "told": []}
    assert len(hub.seen) == asked, "what is here is not fetched again"


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub: StandInHub, tmp_path: Path) -> None:
    hub.breaks[BACKBONE.path] = 0  # the first answer: the header's length
    assert "path" in fetch(hub, tmp_path / "home")


@pytest.mark.parametrize(("source", "name"), [(BACKBONE, "features.19.weight"), (HEADS, "l2.w")])
def test_wrong_numbers_are_an_error_and_nothing_is_kept(hub: StandInHub, tmp_path: Path, source, name: str) -> None:
    spoil(hub.repositories[source.repo] / source.path, name)
    error = fetch(hub, tmp_path / "home")["error"]
    assert f"{source} does not hold the expected numbers" in error and "DIFIX3D_LPIPS_WEIGHTS" in error
    assert not list((tmp_path / "home").rglob("*.safetensors"))


def test_other_files_are_told_apart(hub: StandInHub, tmp_path: Path) -> None:
    path = hub.repositories[BACKBONE.repo] / BACKBONE.path
    path.write_bytes(b"<html>not found</html>")
    assert "is no safetensors file" in fetch(hub, tmp_path / "home")["error"]
    save_file({"conv.weight": np.zeros(3, np.float32)}, path)
    assert "expected features.0.weight in float32" in fetch(hub, tmp_path / "home")["error"]
    path.unlink()
    assert f"{BACKBONE.repo} has no file {BACKBONE.path}" in fetch(hub, tmp_path / "home")["error"]


def test_weights_are_looked_for_in_order(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DIFIX3D_SHARED", str(tmp_path / "nowhere"))
    monkeypatch.setattr(perceptual_weights, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    assert find_weights("vgg") is None and find_weights("alex") is None
    cached = tmp_path / "home" / "difix3d" / "weights" / FILES["vgg"]
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert find_weights("vgg") == cached and find_weights("alex") is None
    monkeypatch.setenv("DIFIX3D_LPIPS_WEIGHTS", str(shared / "weights"))
    assert find_weights("vgg") == shared / "weights" / FILES["vgg"]
    assert "difix3d weights" in how_to_get("vgg") and "DIFIX3D_LPIPS_WEIGHTS" in how_to_get("alex")
    with pytest.raises(ConfigError, match="No perceptual network 'squeeze'"):
        find_weights("squeeze")


def test_the_numbers_of_dists_come_from_its_authors_package_which_is_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "path" / "DISTS_pytorch"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("import torchvision_that_is_not_here\n")
    (package / "weights.pt").touch()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("DIFIX3D_SHARED", str(tmp_path / "nowhere"))
    monkeypatch.setattr(perceptual_weights, "__file__", str(tmp_path / "a" / "b" / "c.py"))
    monkeypatch.syspath_prepend(package.parent)
    assert find_weights("dists") == package / "weights.pt"
    assert "-e '.[benchmarks]'" in how_to_get("dists")
