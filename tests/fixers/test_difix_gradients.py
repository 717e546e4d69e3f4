"""The recorded training step: its loss and every recorded gradient, of the U-Net and of what moves in the VAE."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from difix3d.fixers.difix import DifixPipeline
from difix3d.training.trainable import make_trainable

pytestmark = pytest.mark.shared


def gradient_in_vae(pipe: DifixPipeline, name: str) -> Tensor:
    """By the published name: MODULE.lora_A.vae_skip.weight, MODULE.lora_B..., or MODULE.base_layer.weight."""
    module, _, factor = name.removesuffix(".weight").partition(".lora_")
    weight = pipe.vae.get_submodule(module.removesuffix(".base_layer")).parametrizations.weight
    return getattr(weight[0], factor[0].lower()).grad if factor else weight.original.grad


def test_loss_and_gradients(goldens) -> None:
    """Targets are the input with its views swapped; the output is clamped before the loss."""
    recorded = goldens.expected("train_step_l2")
    pipe = DifixPipeline.from_pretrained(goldens.checkpoint("difix_ref"), keep_lora=True)
    make_trainable(pipe)
    pairs = [("image_0", "ref_0"), ("image_1", "ref_1")]
    x = torch.stack([torch.stack([pipe.to_pixels(goldens.image(name)) for name in pair]) for pair in pairs])
    loss = (pipe.forward(x, all_views=True).clamp(-1, 1) - x.flip(1)).square().mean()
    torch.testing.assert_close(loss, recorded["loss"].reshape(()), rtol=1e-5, atol=0)
    loss.backward()

    parameters = dict(pipe.unet.named_parameters())
    norm = torch.stack([parameter.grad.norm() for parameter in parameters.values()]).norm()
    torch.testing.assert_close(norm, recorded["unet_grad_norm"].reshape(()), rtol=1e-3, atol=0)
    compared = {"unet": 0, "vae": 0}
    for key, wanted in recorded.items():
        _, part, name = key.split(".", 2) if key.startswith("grad.") else ("", "", "")
        if not part:
            continue
        found = parameters[name].grad if part == "unet" else gradient_in_vae(pipe, name)
        assert (found - wanted).norm() <= 1e-3 * wanted.norm(), key
        compared[part] += 1
    assert min(compared.values()) > 0
