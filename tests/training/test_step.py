"""One training step: which weights move, by which gradients, and what the loss is made of."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from difix3d.fixers.difix import DifixPipeline
from difix3d.fixers.difix.vae import merge_lora
from difix3d.losses import LPIPS
from difix3d.training.dataset import Batch, Draw, PairsDataset, collate
from difix3d.training.pairs import read_pairs
from difix3d.training.step import LossWeights, supervised_loss
from difix3d.training.trainable import checkpoint_activations, make_trainable

pytestmark = pytest.mark.shared


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


@pytest.fixture
def pipe(goldens) -> DifixPipeline:
    pipeline = DifixPipeline.from_pretrained(goldens.checkpoint("difix_ref"), keep_lora=True)
    make_trainable(pipeline)
    return pipeline


@pytest.fixture
def batch(export) -> Batch:
    dataset = PairsDataset(read_pairs(export)["train"])
    return collate([dataset[Draw(0, 0)], dataset[Draw(1, 1)]])


def test_loss_has_its_terms_and_gram_waits(pipe, batch) -> None:
    lpips = LPIPS.load("vgg")
    weights = LossWeights(gram_warmup_steps=1)
    total, terms = supervised_loss(pipe, batch, 2, weights, lpips)
    assert terms.keys() == {"l2", "lpips", "gram"}
    torch.testing.assert_close(total, torch.stack(list(terms.values())).sum())
    assert supervised_loss(pipe, batch, 1, weights, lpips)[1].keys() == {"l2", "lpips"}
    assert supervised_loss(pipe, batch, 2, weights, None)[1].keys() == {"l2"}


def test_a_sample_costs_the_same_alone_and_in_a_batch(pipe, batch) -> None:
    lpips, weights = LPIPS.load("vgg"), LossWeights(gram_warmup_steps=0)

    def part(row: int) -> Batch:
        rows = slice(row, row + 1)
        tensors = {name: getattr(batch, name)[rows] for name in ("pixels", "target", "weights", "prompts", "numbers")}
        return Batch(**tensors)

    together = supervised_loss(pipe, batch, 1, weights, lpips)[1]
    alone = [supervised_loss(pipe, part(row), 1, weights, lpips)[1] for row in (0, 1)]
    for name, term in together.items():
        torch.testing.assert_close(term, (alone[0][name] + alone[1][name]) / 2, rtol=1e-5, atol=1e-6)
    # And another number is another draw.
    other = supervised_loss(pipe, dataclasses.replace(batch, numbers=(2, 3)), 1, weights, lpips)[1]
    assert not torch.isclose(other["l2"], together["l2"], rtol=1e-4)


def test_a_weight_scales_what_its_row_asks_for(pipe, batch) -> None:
    def loss(*weights: float) -> torch.Tensor:
        weighted = dataclasses.replace(batch, weights=torch.tensor(weights))
        return supervised_loss(pipe, weighted, 1, LossWeights(), None)[0].detach()

    torch.testing.assert_close(loss(1.0, 0.5), loss(1.0, 0.0) + 0.5 * loss(0.0, 1.0))
    assert loss(1.0, 0.0) > 0


def test_no_random_state_is_used_up(pipe, batch) -> None:
    before = torch.get_rng_state()
    supervised_loss(pipe, batch, 1, LossWeights(), None)
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_are_the_same_with_activations_computed_again(goldens, pipe, batch) -> None:
    other = DifixPipeline.from_pretrained(goldens.checkpoint("difix_ref"), keep_lora=True)
    make_trainable(other)
    checkpoint_activations(other)
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
        supervised_loss(pipe, batch, 1, LossWeights(), None)[0].backward()
        all_kept, kept[:] = sum(kept), []
        loss = supervised_loss(other, batch, 1, LossWeights(), None)[0]
        assert sum(kept) < 0.5 * all_kept
    loss.backward()
    for ours, theirs in ((pipe.unet, other.unet), (pipe.vae, other.vae)):
        for (name, one), two in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            if one.requires_grad:
                torch.testing.assert_close(two.grad, one.grad, rtol=1e-5, atol=1e-7, msg=name)


def test_low_rank_updates_of_the_unet_start_as_nothing_and_merge(goldens, batch) -> None:
    plain = goldens.pipeline("difix_ref")
    pipeline = DifixPipeline.from_pretrained(goldens.checkpoint("difix_ref"), keep_lora=True)
    parameters = make_trainable(pipeline, unet_rank=2, seed=3)
    in_unet = [parameter for parameter in pipeline.unet.parameters() if parameter.requires_grad]
    assert {id(parameter) for parameter in in_unet} < {id(parameter) for parameter in parameters}
    assert sum(map(torch.numel, in_unet)) < 0.5 * sum(map(torch.numel, plain.unet.parameters()))
    torch.testing.assert_close(pipeline.forward(batch.pixels), plain.forward(batch.pixels), rtol=0, atol=1e-5)

    with torch.no_grad():
        for parameter in in_unet:
            parameter.add_(0.05)
    moved = pipeline.forward(batch.pixels)
    assert (moved - plain.forward(batch.pixels)).abs().max() > 1e-3
    merge_lora(pipeline.unet)
    assert pipeline.unet.state_dict().keys() == plain.unet.state_dict().keys()
    torch.testing.assert_close(pipeline.forward(batch.pixels), moved, rtol=0, atol=1e-5)
