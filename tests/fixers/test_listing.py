"""What is said of a fixer before it is chosen: counted arithmetic, measured pace, downloads, lack of memory."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from difix3d.errors import CheckpointError
from difix3d.fixers import load_fixer, pace
from difix3d.fixers.difix import memory
from difix3d.fixers.difix.cost import teraflop
from difix3d.fixers.difix.fixer import DifixFixer
from difix3d.fixers.listing import brief, look_closely, offers, phrases


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DIFIX3D_FIXER", raising=False)


@pytest.fixture
def tiny(shared: Path) -> str:
    return str(shared / "golden" / "checkpoint_difix_ref")


@pytest.mark.parametrize(
    ("size", "views", "counted"),
    [((512, 512), 1, 4.47), ((512, 512), 2, 6.63), ((1024, 576), 1, 10.59), ((1024, 576), 2, 16.58)],
)
def test_arithmetic_is_what_the_flop_counter_counted(size: tuple[int, int], views: int, counted: float) -> None:
    assert teraflop(*size, views) == pytest.approx(counted, rel=5e-3)


def test_seconds_are_an_estimate_until_they_are_measured(tiny: str, tmp_path: Path) -> None:
    (offer,) = [each for each in offers(tmp_path, tiny) if each.name == tiny]
    guessed = look_closely(offer, 640, 480)
    assert not guessed.measured and guessed.seconds and "640x480 (estimated)" in phrases(guessed)[0]
    fixer = load_fixer(tiny)
    for seconds in (50.0, 3.0, 3.1, 2.9, 3.0):  # the first one was slow for reasons of its own
        pace.record(fixer.name, fixer.device(), 640, 480, seconds)
    found = look_closely(offer, 640, 480)
    assert found.measured and found.seconds == pytest.approx(3.0, abs=0.01)
    assert phrases(found)[0] == "about 3 s a frame of 640x480 (measured here)"
    assert look_closely(offer, 1280, 960).seconds == pytest.approx(4 * found.seconds, rel=0.01)


def test_an_estimate_grows_with_the_arithmetic_and_the_rate_is_measured_once() -> None:
    once, twice = pace.estimated(1.0, "cpu"), pace.estimated(2.0, "cpu")
    assert once is not None and twice is not None and once > 0 and twice == pytest.approx(2 * once)


def test_a_gpu_that_is_lent_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACES_ZERO_GPU", "1")
    assert "ZeroGPU" in pace.device_name("cuda") and pace.estimated(1.0, "cuda") is None
    pace.record("difix", "cuda", 1000, 1000, 0.5)
    assert pace.measured("difix", "cuda", 1000, 1000) == pytest.approx(0.5)


def test_a_broken_record_of_times_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "home" / "difix3d").mkdir(parents=True)
    (tmp_path / "home" / "difix3d" / "pace.json").write_text("{")
    assert pace.measured("reproject", "cpu", 10, 10) is None
    pace.record("reproject", "cpu", 1000, 1000, 2.0)
    assert pace.measured("reproject", "cpu", 2000, 1000) == pytest.approx(4.0)


def test_published_checkpoints_say_what_they_take_without_being_asked_for(tmp_path: Path) -> None:
    listed = {offer.label: offer for offer in offers(tmp_path)}
    assert {"reproject", "difix (nvidia/difix_ref)", "nvidia/difix"} <= set(listed)
    with_reference, without = (look_closely(listed[label]) for label in ("difix (nvidia/difix_ref)", "nvidia/difix"))
    assert (with_reference.references, without.references) == (1, 0)
    assert without.revision and with_reference.revision is None
    for facts in (with_reference, without):
        told = "; ".join(phrases(facts))
        assert "5.2 GB to download first" in brief(facts)
        assert "NVIDIA" in told and "non-commercial" in told and "first use: 5.2 GB" in told and "estimated" in told
    assert not (tmp_path / "home" / "hub").exists()


def test_listing_loads_no_model_and_no_torch(tmp_path: Path) -> None:
    import subprocess

    code = (
        "import sys; from pathlib import Path; from difix3d.fixers.listing import offers\n"
        f"assert len(offers(Path({str(tmp_path)!r}))) >= 3\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_checkpoints_trained_here_and_the_one_named_are_offered(tiny: str, tmp_path: Path) -> None:
    shutil.copytree(tiny, tmp_path / "checkpoints" / "mine", copy_function=shutil.copyfile)
    listed = {offer.name: offer for offer in offers(tmp_path / "checkpoints", tiny)}
    assert listed[str(tmp_path / "checkpoints" / "mine")].own and tiny in listed
    guided = listed[f"guided:{tmp_path / 'checkpoints' / 'mine'}"]
    assert guided.own and guided.label == "mine, guided (trained here)" and load_fixer(guided.name).needs_depth
    facts = look_closely(listed[tiny])
    assert facts.download_bytes == 0 and facts.references == 1
    assert "weights of checkpoint_difix_ref are here" in phrases(facts)


def test_too_little_memory_is_said_before_anything_is_fetched_or_loaded(
    tiny: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1_000_000)
    with pytest.raises(CheckpointError, match=r"needs 5\.2 GB of memory for its weights, and this machine has 1 MB"):
        list(DifixFixer("nvidia/difix").fetch())
    assert not (tmp_path / "home").exists()
    with pytest.raises(CheckpointError, match="choose another fixer"):
        DifixFixer(tiny).load()
