"""Checkpoints from the Hub, through the real client: nothing but data, at one commit, resumed, checked, and told."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_stand_in import COMMIT, PIECE, StandInHub, environment, in_a_process

from difix3d.fixers.difix.hub import PINNED_REVISIONS, is_hub_id

pytestmark = pytest.mark.shared

REPO = "nvidia/difix_ref"
UNET = "unet/diffusion_pytorch_model.safetensors"
FETCH = """
import json, sys
from difix3d.errors import CheckpointError
from difix3d.fixers.difix.hub import fetch
steps = fetch({repo!r}, {revision!r})
told = []
while True:
    try:
        event = next(steps)
        told.append([type(event).__name__, event.message, getattr(event, "done", 0), getattr(event, "total", 0)])
        print(json.dumps(told[-1]), file=sys.stderr, flush=True)
    except StopIteration as end:
        folder, commit = end.value
        print(json.dumps({{"folder": str(folder), "commit": commit, "told": told}}))
        break
    except CheckpointError as error:
        print(json.dumps({{"error": str(error), "told": told}}))
        break
assert "torch" not in sys.modules
"""


@pytest.fixture
def files(shared: Path, tmp_path: Path) -> Path:
    """A checkpoint as a repository has it, with code and pickles beside the data."""
    folder = tmp_path / "repository"
    source = shared / "golden" / "checkpoint_difix_ref"
    shutil.copytree(source, folder, copy_function=shutil.copyfile, ignore=lambda *_: ["vae_merged"])
    for place in [folder, *folder.rglob("*")]:
        place.chmod(0o755)
    (folder / "vae" / "autoencoder_kl.py").write_text("raise SystemExit('code from the Hub was run')")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    (folder / "model.pkl").write_bytes(b"pickle")
    return folder


@pytest.fixture
def hub(files: Path) -> Iterator[StandInHub]:
    with StandInHub({REPO: files}).serving() as serving:
        yield serving


def fetch(hub: StandInHub, home: Path, repo: str = REPO, revision: str | None = None, **more: str) -> dict:
    done = in_a_process(FETCH.format(repo=repo, revision=revision), home, hub.url, **more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_hub_ids() -> None:
    assert is_hub_id("nvidia/difix_ref")
    for wrong in ("difix", "a/b/c", "/difix", "../x", "./x", "https://hf.co/a", "a b/c", ""):
        assert not is_hub_id(wrong), wrong


def test_data_alone_comes_at_one_commit_with_its_size_told_first_and_then_without_the_hub(
    hub: StandInHub, files: Path, tmp_path: Path
) -> None:
    got = fetch(hub, tmp_path / "home")
    assert got["commit"] == COMMIT
    asked = [name for name in hub.seen if "/resolve/" in name]
    assert asked and not [name for name in asked if name.endswith((".py", ".pkl", ".bin"))]
    folder = Path(got["folder"])
    assert not list(folder.rglob("*.py"))
    for path in files.rglob("*.safetensors"):
        assert (folder / path.relative_to(files)).read_bytes() == path.read_bytes()
    first, *progress = got["told"]
    assert first[0] == "Warned" and "not on this machine yet" in first[1] and " MB come from the Hub" in first[1]
    done = [entry[2] for entry in progress]
    assert done == sorted(done) and progress[-1][2] == progress[-1][3]

    asked_before = len(hub.seen)
    again = fetch(hub, tmp_path / "home", HF_HUB_OFFLINE="1")
    assert (again["folder"], again["commit"], again["told"]) == (got["folder"], COMMIT, [])
    fetch(hub, tmp_path / "home")
    assert len(hub.seen) == asked_before, "what is here is used without asking"


LEARN = """
import json
from difix3d.fixers import load_fixer
def says(fixer):
    return [fixer.licence, getattr(fixer, "difix", fixer).max_references, fixer.settings["max_references"]]
plain, guided, waiting = load_fixer("ann/mine"), load_fixer("guided:ann/mine"), load_fixer("ann/mine")
told = {"before": says(plain)}
list(plain.fetch())
list(guided.fetch())
waiting.load()
told |= {"plain": says(plain), "guided": says(guided), "waiting": says(waiting), "anew": says(load_fixer("ann/mine"))}
print(json.dumps(told))
"""


def test_what_a_checkpoint_says_of_itself_counts_once_it_is_here(files: Path, tmp_path: Path) -> None:
    """One that was trained here and put on the Hub: its licence, and that it looks at photos."""
    index = json.loads((files / "model_index.json").read_text()) | {"_name_or_path": ""}
    index["unet"] = ["diffusers", "UNet2DConditionModel"]
    (files / "model_index.json").write_text(json.dumps(index))
    (files / "difix3d.json").write_text(json.dumps({"licence": "non-commercial", "references": 1}))
    with StandInHub({"ann/mine": files}).serving() as hub:
        done = in_a_process(LEARN, tmp_path / "home", hub.url)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["before"] == ["unknown: see the page of ann/mine on the Hub", 0, 0]
    for which in ("plain", "waiting", "anew"):
        assert told[which] == ["non-commercial", 1, 1], which
    licence, shown, carried = told["guided"]
    assert (licence, shown) == ("non-commercial", 1) and carried > 1


def test_a_connection_that_breaks_is_taken_up_where_it_broke(hub: StandInHub, files: Path, tmp_path: Path) -> None:
    size = (files / UNET).stat().st_size
    hub.breaks[UNET] = size // 2
    assert "error" not in fetch(hub, tmp_path / "home")
    assert hub.sent[UNET] <= size


def test_a_killed_download_goes_on_where_it_stopped(hub: StandInHub, files: Path, tmp_path: Path) -> None:
    size = (files / UNET).stat().st_size
    hub.bytes_per_s = size / 4
    code = FETCH.format(repo=REPO, revision=None)
    sha256 = hashlib.sha256((files / UNET).read_bytes()).hexdigest()
    partial = tmp_path / f"home/hub/models--nvidia--difix_ref/blobs/{sha256}.difix3d.incomplete"
    child = subprocess.Popen([sys.executable, "-c", code], env=environment(hub.url, tmp_path / "home"))
    while not partial.exists() or partial.stat().st_size < size // 5:
        assert child.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    child.kill()
    child.wait()
    had = partial.stat().st_size
    assert 0 < had < size
    hub.bytes_per_s, hub.sent = 0, {}
    assert "error" not in fetch(hub, tmp_path / "home")
    assert hub.sent[UNET] <= size - had + 2 * PIECE, "two pieces may still have been on their way to the killed one"
    assert not list(tmp_path.glob("home/**/*.incomplete"))


def test_a_file_damaged_on_the_way_is_fetched_once_more(hub: StandInHub, tmp_path: Path) -> None:
    hub.damaged[UNET] = 1
    assert "error" not in fetch(hub, tmp_path / "home")


def test_a_file_that_stays_damaged_is_named_and_not_kept(hub: StandInHub, tmp_path: Path) -> None:
    hub.damaged[UNET] = 9
    error = fetch(hub, tmp_path / "home")["error"]
    assert f"{UNET} of {REPO} arrived damaged twice" in error and "Nothing of it was kept" in error
    assert not list(tmp_path.glob("home/**/*.incomplete"))
    hub.damaged.clear()
    assert "error" not in fetch(hub, tmp_path / "home")


def test_a_file_that_ends_early_is_named_with_both_sizes(hub: StandInHub, files: Path, tmp_path: Path) -> None:
    size = (files / UNET).stat().st_size
    hub.cut[UNET] = size - 1000
    error = fetch(hub, tmp_path / "home")["error"]
    assert f"{UNET} of {REPO} ends after {size - 1000:,} of {size:,} bytes" in error


def test_a_file_damaged_on_this_disk_is_fetched_again(hub: StandInHub, files: Path, tmp_path: Path) -> None:
    path = Path(fetch(hub, tmp_path / "home")["folder"]) / UNET
    with path.open("r+b") as file:
        file.truncate(5000)
    got = fetch(hub, tmp_path / "home")
    assert "damaged on this disk (5,000 of" in got["told"][0][1]
    assert path.read_bytes() == (files / UNET).read_bytes()


def test_weights_that_are_broken_in_the_repository_itself_are_named(
    hub: StandInHub, files: Path, tmp_path: Path
) -> None:
    (files / UNET).write_bytes((files / UNET).read_bytes()[:-8])
    assert f"{UNET} of {REPO} came as the Hub lists it" in fetch(hub, tmp_path / "home")["error"]


def test_a_hub_out_of_reach_says_what_to_do(tmp_path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = StandInHub({}, url=f"http://127.0.0.1:{closed.getsockname()[1]}")
    error = fetch(nobody, tmp_path / "home", repo="nvidia/difix")["error"]
    assert "Could not reach the Hub for nvidia/difix" in error
    assert "download the folder elsewhere and give its path" in error


def test_refusals_are_told_apart(hub: StandInHub, files: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert "no revision 'v9'" in fetch(hub, home, revision="v9")["error"]
    assert "There is no model nobody/nothing on the Hub" in fetch(hub, home, repo="nobody/nothing")["error"]
    hub.gated.add(REPO)
    assert "is gated: accept its terms" in fetch(hub, home)["error"]
    hub.gated.clear()
    for status, words in ((401, "HF_TOKEN is valid"), (503, "try again later")):
        hub.answers[REPO] = status
        assert words in fetch(hub, home)["error"]
    hub.answers.clear()
    (files / "unet" / "config.json").unlink()
    assert "is no Difix checkpoint: unet/config.json not found" in fetch(hub, home)["error"]
    assert not [name for name in hub.seen if "/resolve/" in name], "nothing is fetched of what cannot be used"


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(hub: StandInHub, tmp_path: Path) -> None:
    """The disk is real; what is asked for is more than it has."""
    code = "import difix3d.hub.files as files\nfiles._KEPT_FREE_BYTES = 10**18\n" + FETCH.format(
        repo=REPO, revision=None
    )
    told = json.loads(in_a_process(code, tmp_path / "home", hub.url).stdout)
    assert "of disk at" in told["error"] and "set HF_HOME" in told["error"]
    assert not [name for name in hub.seen if "/resolve/" in name]


def test_known_checkpoints_are_pinned_to_a_commit(hub: StandInHub, tmp_path: Path) -> None:
    hub.repositories["nvidia/difix"] = hub.repositories.pop(REPO)
    fetch(hub, tmp_path / "home", repo="nvidia/difix")
    assert any(PINNED_REVISIONS["nvidia/difix"] in name for name in hub.seen), hub.seen
