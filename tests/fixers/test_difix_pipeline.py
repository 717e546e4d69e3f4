"""Images in, images out, against the recorded reference; then everything the reference could not do."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from difix_goldens import Goldens
from PIL import Image

from difix3d.errors import CheckpointError, FixerError, ShapeError
from difix3d.fixers import load_fixer
from difix3d.fixers.base import Fixer
from difix3d.fixers.difix import DifixPipeline, memory
from difix3d.fixers.difix.images import to_unit, working_size
from difix3d.fixers.difix.precision import fast_dtype
from difix3d.types import Camera, Frame, Reference

pytestmark = pytest.mark.shared

CASES = [
    ("pipeline_noref", "difix", ["image_0"], []),
    ("pipeline_noref_odd_size", "difix", ["image_odd"], []),
    ("pipeline_noref_batch2", "difix", ["image_0", "image_1"], []),
    ("pipeline_ref", "difix_ref", ["image_0"], ["ref_0"]),
    ("pipeline_ref_odd_size", "difix_ref", ["image_odd"], ["ref_odd"]),
]


def stacked(pipe: DifixPipeline, goldens: Goldens, images: list[str], refs: list[str]) -> torch.Tensor:
    """[B, V, 3, H, W]"""
    views = [[image, *refs[i : i + 1]] for i, image in enumerate(images)]
    return torch.stack([torch.stack([pipe.to_pixels(goldens.image(name)) for name in names]) for names in views])


@pytest.mark.parametrize(("name", "model", "images", "refs"), CASES)
@pytest.mark.parametrize("posterior", ["mean", "sample"])
@torch.no_grad()
def test_every_intermediate_value(goldens, name, model, images, refs, posterior) -> None:
    pipe, recorded = goldens.pipeline(model), goldens.expected(name)
    prefix = "mode" if posterior == "mean" else "seeded"
    x = stacked(pipe, goldens, images, refs)
    generator = torch.Generator().manual_seed(42)
    z, skips = pipe.encode(x.flatten(0, 1), posterior=posterior, generator=generator)
    torch.testing.assert_close(z, recorded[f"{prefix}.unet_in"], rtol=0, atol=1e-5)
    eps = pipe.predict_noise(z, pipe.embed_prompt("remove degradation"), views=x.shape[1])
    torch.testing.assert_close(eps, recorded[f"{prefix}.unet_eps"], rtol=0, atol=1e-4)
    z0 = pipe.predict_clean(z, eps)[:: x.shape[1]]
    wanted = recorded[f"{prefix}.decoder_latents_unscaled"]
    torch.testing.assert_close(z0 / pipe.vae.scaling_factor, wanted, rtol=0, atol=3e-4)
    y = pipe.decode(z0, [skip[:: x.shape[1]] for skip in skips])
    torch.testing.assert_close(y, recorded[f"{prefix}.decoded_raw"], rtol=0, atol=1e-4)
    generator = torch.Generator().manual_seed(42)
    torch.testing.assert_close(pipe.forward(x, posterior=posterior, generator=generator), y, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("name", "model", "images", "refs"), CASES)
def test_pictures(goldens, name, model, images, refs) -> None:
    pipe = goldens.pipeline(model)
    originals = [goldens.image(image) for image in images]
    fixed = pipe(originals, [goldens.image(ref) for ref in refs] or None).images
    for number, (image, original) in enumerate(zip(fixed, originals)):
        wanted = Image.open(goldens.folder / "expected" / f"{name}.mode.{number}.png")
        assert image.size == original.size
        if wanted.size != image.size:
            continue  # the reference leaves its rounded size; ours goes back to the image's, see the next test
        difference = np.abs(np.asarray(image).astype(int) - np.asarray(wanted))
        assert difference.max() <= 1
        assert (difference > 0).mean() <= 0.005


def test_odd_sizes_come_back_as_callers_of_the_reference_resize_them(goldens) -> None:
    for name, model, ref in (
        ("pipeline_noref_odd_size", "difix", None),
        ("pipeline_ref_odd_size", "difix_ref", "ref_odd"),
    ):
        image = goldens.image("image_odd")
        fixed = goldens.pipeline(model)(image, goldens.image(ref) if ref else None).images[0]
        recorded = Image.open(goldens.folder / "expected" / f"{name}.mode.0.png")
        wanted = recorded.resize(image.size, Image.Resampling.LANCZOS)
        assert fixed.size == image.size != recorded.size
        assert np.abs(np.asarray(fixed).astype(int) - np.asarray(wanted)).max() <= 2


@torch.no_grad()
def test_two_samples_with_a_reference_each(goldens) -> None:
    """The reference pipeline fails on this; its training module does not."""
    pipe = goldens.pipeline("difix_ref")
    x = stacked(pipe, goldens, ["image_0", "image_1"], ["ref_0", "ref_1"])
    wanted = goldens.expected("module_ref_batch2")["y"]
    torch.testing.assert_close(pipe.forward(x, all_views=True).clamp(-1, 1), wanted, rtol=0, atol=1e-4)
    torch.testing.assert_close(pipe.forward(x).clamp(-1, 1), wanted[:, 0], rtol=0, atol=1e-4)


def test_prompt_and_noise_levels(goldens) -> None:
    pipe = goldens.pipeline("difix")
    text, levels = goldens.expected("text_encoder"), goldens.expected("scheduler")
    torch.testing.assert_close(pipe.embed_prompt("remove degradation"), text["prompt_embeds"], rtol=0, atol=1e-5)
    torch.testing.assert_close(pipe.predict_clean(levels["z"], levels["eps"]), levels["prev_sample"], rtol=0, atol=1e-5)


def test_a_call_repeats_exactly_and_a_seed_decides_a_sample(goldens) -> None:
    pipe, image = goldens.pipeline("difix"), goldens.image("image_0")

    def run(posterior: str, seed: int) -> np.ndarray:
        generator = torch.Generator().manual_seed(seed)
        return pipe(image, posterior=posterior, generator=generator, output_type="pt").images[0].numpy()

    assert np.array_equal(run("mean", 1), run("mean", 2))
    assert np.array_equal(run("sample", 1), run("sample", 1))
    assert not np.array_equal(run("sample", 1), run("sample", 2))


@pytest.mark.parametrize(("model", "name", "ref"), [("difix", "noref", None), ("difix_ref", "ref", "ref_0")])
def test_the_published_wrappers_stretching(goldens, model, name, ref) -> None:
    """It brings both pictures to its own size, ignoring their aspect, and back; it cuts to 8 bits where we round."""
    image = goldens.image("image_odd")
    recorded = Image.open(goldens.folder / "expected" / f"module_sample_{name}.png")
    height, width = json.loads((goldens.folder / "manifest.json").read_text())["config"]["sample_hw"]
    rounded = image.resize(working_size(image), Image.Resampling.LANCZOS)
    reference = goldens.image(ref).resize(rounded.size, Image.Resampling.LANCZOS) if ref else None
    pipe = goldens.pipeline(model)

    def fixed(*pictures: Image.Image | None) -> torch.Tensor:
        views = [pipe.to_pixels(picture, (width, height)) for picture in pictures if picture]
        with torch.no_grad():
            return pipe.forward(torch.stack(views)[None])[0]

    unit = (fixed(rounded, reference) / 2 + 0.5).clamp(0, 1)
    cut = Image.fromarray((unit.permute(1, 2, 0).numpy() * 255).astype(np.uint8))
    difference = np.asarray(cut.resize(image.size, Image.Resampling.LANCZOS)).astype(int) - np.asarray(recorded)
    assert np.abs(difference).max() <= 1 and (difference != 0).mean() <= 0.005

    ours = pipe(image, reference, size=(width, height), output_type="pt").images[0]
    torch.testing.assert_close(ours, to_unit(fixed(image, reference), image.size), rtol=0, atol=1e-5)


def test_a_reference_is_encoded_once_and_a_fix_is_the_same_with_what_was_kept(goldens) -> None:
    pipe = DifixPipeline.from_pretrained(goldens.checkpoint("difix_ref"))
    encoded: list[int] = []
    pipe.vae.encoder.conv_in.register_forward_hook(lambda _module, inputs, _output: encoded.append(len(inputs[0])))
    images, ref = [goldens.image("image_0"), goldens.image("image_1")], goldens.image("ref_0")

    def run() -> list[np.ndarray]:
        return [pipe(image, ref, output_type="pt").images[0].numpy() for image in images]

    first = run()
    assert encoded == [1, 1, 1]
    again = run()
    assert encoded == [1, 1, 1, 1, 1]
    assert all(np.array_equal(a, b) for a, b in zip(first, again))
    other = np.asarray(ref).copy()
    other[0, 0] ^= 1
    pipe(images[0], Image.fromarray(other))
    assert len(encoded) == 7  # one bit of another colour is another reference
    pipe.to(dtype=torch.bfloat16)
    assert pipe(images[0], ref).images[0].size == images[0].size  # nothing of another precision is left


def test_results_do_not_depend_on_how_many_fit_into_memory(goldens, monkeypatch) -> None:
    pipe = goldens.pipeline("difix_ref")
    images, refs = [goldens.image(f"image_{i % 2}") for i in range(3)], [goldens.image("ref_0")] * 3

    def run(at_once: int) -> list[torch.Tensor]:
        monkeypatch.setitem(memory._MOST_AT_ONCE, "cpu", at_once)
        generator = torch.Generator().manual_seed(3)
        return pipe(images, refs, posterior="sample", generator=generator, output_type="pt").images

    for alone, together in zip(run(1), run(3)):
        torch.testing.assert_close(alone, together, rtol=0, atol=1e-5)


def test_frames_too_large_for_memory_are_refused_with_a_size_that_fits(goldens) -> None:
    pipe = goldens.pipeline("difix_ref")
    with pytest.raises(FixerError, match=r"20000 x 20000 pixels needs \d+\.\d GB .* would fit"):
        pipe(Image.new("1", (20_000, 20_000)))
    cpu = torch.device("cpu")

    def frames(width: int, height: int, available: int, views: int = 1) -> int:
        found = memory.plan(width, height, views=views, channels=128, itemsize=4, device=cpu, available=available)
        return memory.require_fit(found, width, height, cpu)

    assert frames(1024, 576, 8 * 2**30) == 1
    with pytest.raises(FixerError, match=r"About .+ would fit") as refused:
        frames(4000, 3000, 8 * 2**30)
    width, height = map(int, re.search(r"About (\d+) x (\d+)", str(refused.value)).groups())
    assert frames(width, height, 8 * 2**30) == 1 and width % 8 == height % 8 == 0
    with pytest.raises(FixerError):
        frames(width, height, 8 * 2**30, views=4)


def test_lists_of_mixed_sizes_and_references_agree_with_single_calls(goldens) -> None:
    pipe = goldens.pipeline("difix_ref")
    images = [goldens.image("image_0"), goldens.image("image_odd"), goldens.image("image_1")]
    refs = [goldens.image("ref_0"), [goldens.image("ref_0"), goldens.image("ref_odd")], []]
    together = pipe(images, refs, output_type="pt").images
    for image, ref, found in zip(images, refs, together):
        alone = pipe(image, [ref] if isinstance(ref, list) else ref, output_type="pt").images[0]
        assert found.shape == (3, image.height, image.width)
        torch.testing.assert_close(found, alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "I;16", "CMYK", "1"])
def test_pictures_of_any_mode_are_taken_as_rgb(goldens, mode) -> None:
    pipe = goldens.pipeline("difix")
    grey = goldens.image("image_0").convert("L")
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
        assert picture.mode == "I;16"
    else:
        picture = (grey if mode in ("L", "LA", "1") else goldens.image("image_0")).convert(mode)
    found = pipe.to_pixels(picture)
    assert found.shape == (3, grey.height, grey.width)
    assert found.min() >= -1 and found.max() <= 1
    if mode in ("L", "LA", "I;16"):
        torch.testing.assert_close(found, pipe.to_pixels(grey))
    if mode == "RGBA":
        torch.testing.assert_close(found, pipe.to_pixels(goldens.image("image_0")))


@pytest.mark.parametrize("size", [(8, 8), (9, 23), (40, 120)])
def test_small_and_odd_sizes_run(goldens, size) -> None:
    image = goldens.image("image_0").resize(size)
    fixed = goldens.pipeline("difix_ref")(image, goldens.image("ref_odd")).images[0]
    assert fixed.size == size and fixed.mode == "RGB"


@pytest.mark.parametrize(("dtype", "atol"), [(torch.bfloat16, 0.15), (torch.float16, 0.03)])
def test_half_precision_is_close(goldens, dtype, atol) -> None:
    half = DifixPipeline.from_pretrained(goldens.checkpoint("difix_ref"), dtype=dtype)
    image, ref = goldens.image("image_0"), goldens.image("ref_0")
    ours, wanted = (pipe(image, ref, output_type="pt").images[0] for pipe in (half, goldens.pipeline("difix_ref")))
    torch.testing.assert_close(ours, wanted, rtol=0, atol=atol)


def test_wrong_input_is_named(goldens) -> None:
    pipe, image = goldens.pipeline("difix"), goldens.image("image_0")
    with pytest.raises(FixerError, match="at least 8x8"):
        pipe(image.resize((1, 1)))
    with pytest.raises(FixerError, match="each of 1 images, got 2"):
        pipe(image, [image, image])
    with pytest.raises(FixerError, match="'mean' or 'sample'"):
        pipe(image, posterior="mode")
    with pytest.raises(FixerError, match="0 to 999"):
        pipe(image, timestep=1000)
    with pytest.raises(FixerError, match="multiples of 8"):
        pipe(image, size=(100, 64))
    with pytest.raises(FixerError, match="expected a PIL picture, got ndarray"):
        pipe(np.asarray(image))
    with pytest.raises(ShapeError, match="multiples of 8"):
        pipe.forward(torch.zeros(1, 1, 3, 65, 96))
    with pytest.raises(FixerError, match="no number"):
        pipe.forward(torch.full((1, 1, 3, 64, 96), torch.nan))
    with pytest.raises(FixerError, match=r"floats \(mode F\)"):
        pipe(Image.fromarray(np.full((64, 96), np.nan, np.float32)))


def test_a_result_that_is_no_picture_is_refused(goldens) -> None:
    pipe = DifixPipeline.from_pretrained(goldens.checkpoint("difix"))
    with torch.no_grad():
        pipe.vae.decoder.conv_out.weight.fill_(torch.inf)
    with pytest.raises(FixerError, match="no picture"):
        pipe(goldens.image("image_0"))


def test_a_prompt_of_any_length_is_cut_where_the_encoder_ends(goldens, caplog) -> None:
    pipe = goldens.pipeline("difix")
    long = "remove degradation " * 530
    assert len(long) > 10_000
    found = pipe.embed_prompt(long)
    assert found.shape == pipe.embed_prompt("remove degradation").shape
    assert "only the first 77 count" in caplog.text
    torch.testing.assert_close(found, pipe.embed_prompt(long[:5_000]), rtol=0, atol=0)
    assert pipe.embed_prompt("").shape == found.shape


def frame_of(image: Image.Image) -> Frame:
    camera = Camera(np.diag([90.0, 90.0, 1.0]), image.width, image.height, np.eye(4))
    flat = np.ones((image.height, image.width), np.float32)
    return Frame("orbit", 0, camera, np.asarray(image), flat, flat)


def test_the_fixer_is_the_pipeline(goldens) -> None:
    fixer = load_fixer(str(goldens.checkpoint("difix_ref")))
    assert isinstance(fixer, Fixer)
    assert (fixer.name, fixer.max_references, fixer.settings["timestep"]) == ("checkpoint_difix_ref", 1, 199)
    image, ref = goldens.image("image_odd"), goldens.image("ref_0")
    frame = frame_of(image)
    references = [Reference(name, frame.camera, np.asarray(ref)) for name in ("first", "ignored")]
    found = fixer.fix(frame, references)
    assert found.shape == frame.rgb.shape and found.dtype == np.uint8
    device = torch.device(fixer.device())
    dtype = fast_dtype(device)
    assert fixer.settings["dtype"] == str(dtype).removeprefix("torch.")
    same = DifixPipeline.from_pretrained(goldens.checkpoint("difix_ref"), dtype=dtype, device=device)
    assert np.array_equal(found, np.asarray(same(image, ref).images[0]))
    assert np.array_equal(found, fixer.fix(frame, references[:1], seed=7))
    assert not np.array_equal(found, fixer.fix(frame, []))


def test_the_fixer_knows_its_licence_and_default_without_loading(goldens, monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("DIFIX3D_FIXER", raising=False)
    fixer = load_fixer("difix")
    assert fixer.name == "nvidia/difix_ref" and "non-commercial" in fixer.licence and fixer.max_references == 1
    monkeypatch.setenv("DIFIX3D_FIXER", str(goldens.checkpoint("difix")))
    assert load_fixer("difix").max_references == 0
    monkeypatch.setenv("DIFIX3D_FIXER", "reproject")
    assert load_fixer("difix").name == "nvidia/difix_ref"
    with pytest.raises(CheckpointError, match="No checkpoint at"):
        type(fixer)(str(tmp_path / "nothing"))
