"""Training on pairs: what is read, which weights move, by which gradients, and that the loss falls."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice

import pytest
import torch
from difix_export import tiny_export
from difix_goldens import Goldens, opened

from difix3d.errors import ConfigError, FormatError
from difix3d.fixers.difix import DifixPipeline
from difix3d.losses import LPIPS
from difix3d.training.loop import LoopSettings, train
from difix3d.training.pairs import Batch, PairsDataset, collate, forever, read_pairs
from difix3d.training.step import LossWeights, make_trainable, supervised_loss

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def goldens(shared) -> Iterator[Goldens]:
    with opened(shared) as found:
        yield found


@pytest.fixture
def export(shared, tmp_path):
    return tiny_export(shared, tmp_path / "export")


def test_rows_become_views_and_targets(export) -> None:
    pairs = read_pairs(export)
    assert read_pairs(export / "difix.json") == pairs
    assert [len(pairs[split]) for split in ("train", "test")] == [2, 1]
    sample = PairsDataset(pairs["train"])[0]
    assert sample.pixels.shape == sample.target.shape == (1, 2, 3, 64, 96)
    # The reference is its own target.
    assert torch.equal(sample.pixels[:, 1], sample.target[:, 1])
    assert torch.equal(sample.target[:, 0], sample.target[:, 1])
    assert not torch.equal(sample.pixels[:, 0], sample.target[:, 0])


def test_absolute_paths_and_rows_without_reference_or_prompt(export) -> None:
    image = str(export / "images" / "image_0.png")
    (export / "difix.json").write_text(json.dumps({"train": {"x": {"image": image, "target_image": image}}}))
    (pair,) = read_pairs(export)["train"]
    assert pair.prompt == "remove degradation" and pair.ref_image is None
    assert PairsDataset([pair], width=48, height=32)[0].pixels.shape == (1, 1, 3, 32, 48)


def test_bad_rows_are_named(export) -> None:
    rows = json.loads((export / "difix.json").read_text())
    rows["train"]["b"]["target_image"] = "images/gone.png"
    rows["test"]["c"] = "no row"
    (export / "difix.json").write_text(json.dumps(rows))
    with pytest.raises(FormatError, match=r"train/b: target_image 'images/gone.png' is no file; row test/c is no obj"):
        read_pairs(export)
    for text, words in (("{", "expected JSON"), ("[]", 'no "train"'), ('{"train": {}}', None)):
        (export / "difix.json").write_text(text)
        if words:
            with pytest.raises(FormatError, match=words):
                read_pairs(export)
        else:
            with pytest.raises(FormatError, match="at least one row"):
                PairsDataset(read_pairs(export)["train"])
    with pytest.raises(FormatError, match="difix3d export"):
        read_pairs(export / "images")


def test_a_file_that_is_no_picture_is_named(export) -> None:
    (export / "images" / "image_0.png").write_bytes(b"nothing")
    with pytest.raises(FormatError, match=r"image_0\.png: expected a picture"):
        PairsDataset(read_pairs(export)["train"])[0]


def test_crops_are_of_one_place_and_repeat(export) -> None:
    pairs = read_pairs(export)["train"]
    dataset = PairsDataset(pairs, crop_px=32, seed=5)
    first = dataset[1]
    assert first.pixels.shape == (1, 2, 3, 32, 32)
    assert torch.equal(first.pixels[:, 1], first.target[:, 0])
    assert torch.equal(first.pixels, PairsDataset(pairs, crop_px=32, seed=5)[1].pixels)
    dataset.epoch = 1
    assert not torch.equal(first.pixels, dataset[1].pixels)


@pytest.mark.parametrize("settings", [{"width": 64}, {"crop_px": 12}, {"width": 60, "height": 64}, {"crop_px": 72}])
def test_impossible_sizes_are_named(export, settings) -> None:
    with pytest.raises(ConfigError, match=r"width|crop"):
        PairsDataset(read_pairs(export)["train"], **settings)[0]


def test_batches_need_one_shape_and_epochs_see_every_row(export) -> None:
    pairs = read_pairs(export)["train"]
    dataset = PairsDataset(pairs)
    one, other = dataset[0], Batch(torch.zeros(1, 1, 3, 64, 96), torch.zeros(1, 1, 3, 64, 96), ("x",))
    assert collate([one, one]).pixels.shape == (2, 2, 3, 64, 96)
    with pytest.raises(ConfigError, match="batch size of 1"):
        collate([one, other])
    seen = [batch.pixels[:, 0].sum().item() for batch in islice(forever(dataset, 1, seed=0), 4)]
    assert set(seen[:2]) == set(seen[2:]) and len(set(seen)) == 2


def test_published_weights_are_trained_and_no_others(goldens) -> None:
    manifest = json.loads((goldens.folder / "manifest.json").read_text())
    pipe = DifixPipeline.from_pretrained(goldens.checkpoint("difix_ref"), keep_lora=True)
    parameters = make_trainable(pipe)
    assert len({id(parameter) for parameter in parameters}) == len(parameters)
    in_vae = [parameter for parameter in pipe.vae.parameters() if parameter.requires_grad]
    assert len(in_vae) == len(manifest["vae_trainable"])
    assert len(parameters) == len(in_vae) + len(list(pipe.unet.parameters()))
    assert not any(parameter.requires_grad for parameter in pipe.text_encoder.parameters())
    assert not any(parameter.requires_grad for parameter in pipe.vae.encoder.parameters())


def test_gradients_of_lora_and_skips_are_the_recorded_ones(goldens) -> None:
    recorded = goldens.expected("train_step_l2")
    pipe = DifixPipeline.from_pretrained(goldens.checkpoint("difix_ref"), keep_lora=True)
    make_trainable(pipe)
    pairs = [("image_0", "ref_0"), ("image_1", "ref_1")]
    x = torch.stack([torch.stack([pipe.to_pixels(goldens.image(name)) for name in pair]) for pair in pairs])
    loss = (pipe.forward(x, all_views=True).clamp(-1, 1) - x.flip(1)).square().mean()
    torch.testing.assert_close(loss, recorded["loss"].reshape(()), rtol=1e-5, atol=0)
    loss.backward()
    compared = 0
    for key, wanted in recorded.items():
        name, _, kind = key.removeprefix("grad.vae.").rpartition(".weight")[0].partition(".lora_")
        if not key.startswith("grad.vae."):
            continue
        weight = pipe.vae.get_submodule(name.removesuffix(".base_layer")).parametrizations.weight
        found = (getattr(weight[0], kind[0].lower()) if kind else weight.original).grad
        assert (found - wanted).norm() <= 1e-3 * wanted.norm(), key
        compared += 1
    assert compared == 14


def test_loss_has_its_terms_and_gram_waits(goldens, export, shared) -> None:
    pipe = DifixPipeline.from_pretrained(goldens.checkpoint("difix_ref"), keep_lora=True)
    make_trainable(pipe)
    batch = PairsDataset(read_pairs(export)["train"])[0]
    lpips = LPIPS.load("vgg")
    weights = LossWeights(gram_warmup_steps=1)

    def run(step: int, net: LPIPS | None) -> tuple[torch.Tensor, dict[str, float]]:
        return supervised_loss(pipe, batch, step, weights, net, generator=torch.Generator().manual_seed(0))

    total, terms = run(2, lpips)
    assert terms.keys() == {"l2", "lpips", "gram"}
    assert float(total.detach()) == pytest.approx(sum(terms.values()), rel=1e-5)
    assert run(1, lpips)[1].keys() == {"l2", "lpips"}
    assert run(2, None)[1].keys() == {"l2"}


@pytest.mark.parametrize("model", ["difix", "difix_ref"])
def test_a_few_steps_lower_the_loss_and_a_seed_repeats(goldens, shared, tmp_path, model) -> None:
    pairs = read_pairs(tiny_export(shared, tmp_path / "export", references=model == "difix_ref"))["train"]
    settings = LoopSettings(steps=8, learning_rate=2e-3, batch_size=2, seed=1)

    def losses() -> list[float]:
        pipe = DifixPipeline.from_pretrained(goldens.checkpoint(model), keep_lora=True)
        return [result.loss for result in train(pipe, PairsDataset(pairs, crop_px=48), settings)]

    first = losses()
    assert first[-1] < 0.9 * first[0], first
    assert first == losses()
