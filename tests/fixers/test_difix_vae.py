"""The autoencoder with explicit skips, against recorded values; LoRA kept apart and merged are one function."""

from __future__ import annotations

import json

import pytest
import torch

from difix3d.fixers.difix import DifixPipeline
from difix3d.fixers.difix.vae import attach_lora, lora_targets, merge_lora, new_lora

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def recorded(goldens):
    return goldens.expected("vae_alone")


@pytest.mark.parametrize("model", ["difix", "difix_ref"])
def test_posterior(goldens, recorded, model) -> None:
    with torch.no_grad():
        mean, logvar, skips = goldens.pipeline(model).vae.encode(recorded["pixels"])
    torch.testing.assert_close(mean, recorded[f"{model}.mean"], rtol=0, atol=1e-5)
    torch.testing.assert_close(logvar, recorded[f"{model}.logvar"], rtol=0, atol=2e-5)
    if model == "difix_ref":
        for level, skip in enumerate(skips):
            torch.testing.assert_close(skip, recorded[f"difix_ref.skip_act_{level}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", ["difix", "difix_ref"])
def test_sampled_latents(goldens, recorded, model) -> None:
    with torch.no_grad():
        latents, _ = goldens.pipeline(model).encode(
            recorded["pixels"], posterior="sample", generator=torch.Generator().manual_seed(42)
        )
    torch.testing.assert_close(latents, recorded[f"{model}.seeded_sample"] * 0.18215, rtol=0, atol=1e-5)


@pytest.mark.parametrize("model", ["difix", "difix_ref"])
def test_decode(goldens, recorded, model) -> None:
    vae = goldens.pipeline(model).vae
    with torch.no_grad():
        _, _, skips = vae.encode(recorded["pixels"])
        z = recorded[f"{model}.decode_in"]
        torch.testing.assert_close(vae.decode(z, skips), recorded[f"{model}.decode_with_skips"], rtol=0, atol=1e-5)
        if model == "difix_ref":
            without = vae.decode(z, [])
            torch.testing.assert_close(without, recorded["difix_ref.decode_without_skips"], rtol=0, atol=1e-5)


def test_images_of_a_batch_do_not_see_each_other(goldens, recorded) -> None:
    vae = goldens.pipeline("difix_ref").vae
    x = torch.cat([recorded["pixels"], recorded["pixels"].flip(-1)])
    with torch.no_grad():
        mean, _, skips = vae.encode(x)
        both = vae.decode(mean, skips)
        alone_mean, _, alone_skips = vae.encode(x[1:])
        torch.testing.assert_close(both[1:], vae.decode(alone_mean, alone_skips), rtol=0, atol=1e-5)


def test_lora_sits_on_the_published_modules(goldens) -> None:
    manifest = json.loads((goldens.folder / "manifest.json").read_text())
    assert set(lora_targets(goldens.pipeline("difix").vae)) == set(manifest["lora_targets"])


def test_lora_apart_and_merged_are_one_function(goldens, recorded) -> None:
    merged = goldens.pipeline("difix_ref")
    apart = DifixPipeline.from_pretrained(goldens.checkpoint("difix_ref"), keep_lora=True)
    z = recorded["difix_ref.decode_in"]
    with torch.no_grad():
        _, _, skips = apart.vae.encode(recorded["pixels"])
        base = apart.vae.decode(z, skips)
        attach_lora(apart.vae, apart.checkpoint.lora)
        attached = apart.vae.decode(z, skips)
        merge_lora(apart.vae)
        folded = apart.vae.decode(z, skips)
    wanted = recorded["difix_ref.decode_with_skips"]
    assert (base - wanted).abs().max() > 0.1
    torch.testing.assert_close(attached, wanted, rtol=0, atol=1e-5)
    torch.testing.assert_close(folded, wanted, rtol=0, atol=1e-5)
    assert apart.vae.state_dict().keys() == merged.vae.state_dict().keys()


def test_new_lora_changes_nothing_until_trained(goldens, recorded) -> None:
    pipe = DifixPipeline.from_pretrained(goldens.checkpoint("difix"))
    _, _, skips = pipe.vae.encode(recorded["pixels"])
    before = pipe.vae.decode(recorded["difix.decode_in"], skips)
    fresh = new_lora(pipe.vae, lora_targets(pipe.vae), rank=4, generator=torch.Generator().manual_seed(0))
    parameters = attach_lora(pipe.vae, fresh)
    after = pipe.vae.decode(recorded["difix.decode_in"], skips)
    torch.testing.assert_close(after, before)
    after.square().mean().backward()
    # B starts at zero, so at first only B has a slope.
    assert all(parameter.grad is not None for parameter in parameters)
    assert sum(float(parameter.grad.abs().sum()) for parameter in parameters[1::2]) > 0
