"""Checkpoints on disk: both layouts, and every wrong key named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from difix_goldens import Goldens
from safetensors.torch import load_file, save_file

from difix3d.errors import CheckpointError
from difix3d.fixers.difix import DifixPipeline
from difix3d.fixers.difix.checkpoint import licence_of, list_checkpoints, references_of
from difix3d.fixers.difix.vae import DifixVAE, lora_targets

pytestmark = pytest.mark.shared


@pytest.fixture
def copied(goldens, tmp_path) -> Path:
    """A checkpoint_difix_ref of one's own."""
    folder = tmp_path / "mine"
    shutil.copytree(
        goldens.checkpoint("difix_ref"), folder, copy_function=shutil.copyfile, ignore=lambda *_: ["vae_merged"]
    )
    for place in [folder, *folder.rglob("*")]:
        place.chmod(0o755)
    return folder


def change(path: Path, edit: Callable[[dict], None]) -> None:
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


def same_output(goldens: Goldens, a: DifixPipeline, b: DifixPipeline, atol: float) -> None:
    image, ref = goldens.image("image_0"), goldens.image("ref_0")
    ours, theirs = (pipe(image, ref, output_type="pt").images[0] for pipe in (a, b))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


def test_merged_layout_is_the_same_function(goldens, copied) -> None:
    shutil.rmtree(copied / "vae")
    shutil.copytree(goldens.checkpoint("difix_ref") / "vae_merged", copied / "vae", copy_function=shutil.copyfile)
    same_output(goldens, DifixPipeline.from_pretrained(copied), goldens.pipeline("difix_ref"), 1e-5)


VAE, UNET, TEXT = (
    "vae/diffusion_pytorch_model.safetensors",
    "unet/diffusion_pytorch_model.safetensors",
    "text_encoder/model.safetensors",
)


@pytest.mark.parametrize(
    ("file", "edit", "words"),
    [
        (UNET, lambda t: t.pop("conv_in.bias"), "1 missing: conv_in.bias"),
        (UNET, lambda t: t.update(extra=torch.zeros(1)), "1 unknown: extra"),
        (UNET, lambda t: t.update({"conv_in.bias": torch.zeros(9)}), r"conv_in.bias \(expected \[8\], found \[9\]\)"),
        (VAE, lambda t: t.pop("decoder.conv_in.lora_B.vae_skip.weight"), "decoder.conv_in has LoRA tensors without"),
        (VAE, lambda t: t.pop("decoder.skip_conv_2.base_layer.weight"), "decoder.skip_conv_2 has LoRA tensors without"),
        (VAE, lambda t: t.pop("encoder.conv_in.weight"), "1 missing: encoder.conv_in.weight"),
        (VAE, lambda t: t.update({"decoder.gamma": torch.ones(1)}), "1 unknown: decoder.gamma"),
        (
            VAE,
            lambda t: t.update({"decoder.conv_in.lora_A.vae_skip.weight": torch.zeros(3, 4, 3, 3)}),
            "decoder.conv_in: LoRA of shapes",
        ),
        (TEXT, lambda t: t.pop("text_model.final_layer_norm.weight"), "1 missing: .*final_layer_norm.weight"),
        (TEXT, lambda t: t.update({"text_projection.weight": torch.zeros(2, 2)}), "1 unknown: .*text_projection"),
    ],
)
def test_every_wrong_key_is_named(copied, file, edit, words) -> None:
    change(copied / file, edit)
    with pytest.raises(CheckpointError, match=words):
        DifixPipeline.from_pretrained(copied)


def test_old_text_encoders_may_hold_position_ids(goldens, copied) -> None:
    change(copied / TEXT, lambda t: t.update({"text_model.embeddings.position_ids": torch.arange(77)[None]}))
    same_output(goldens, DifixPipeline.from_pretrained(copied), goldens.pipeline("difix_ref"), 0)


def test_folders_that_are_no_checkpoint_are_told_apart(copied, tmp_path) -> None:
    with pytest.raises(CheckpointError, match="expected a folder that holds model_index"):
        DifixPipeline.from_pretrained(tmp_path / "nowhere")
    (copied / UNET).rename(copied / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"unet/diffusion_pytorch_model\.safetensors not found"):
        DifixPipeline.from_pretrained(copied)


def test_broken_files_are_named(goldens, copied) -> None:
    (copied / VAE).write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match=r"vae/.*expected safetensors"):
        DifixPipeline.from_pretrained(copied)
    (copied / "unet" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"unet/config\.json: expected JSON"):
        DifixPipeline.from_pretrained(copied)


def test_other_kinds_of_prediction_are_refused(copied) -> None:
    config = copied / "scheduler" / "scheduler_config.json"
    config.write_text(config.read_text().replace("epsilon", "v_prediction"))
    with pytest.raises(CheckpointError, match="expected prediction_type epsilon, found v_prediction"):
        DifixPipeline.from_pretrained(copied)


def test_saved_loads_again_bit_for_bit_in_the_same_layout(goldens, copied, tmp_path) -> None:
    first = DifixPipeline.from_pretrained(copied)
    first.save_pretrained(tmp_path / "saved", {"steps": 3})
    again = DifixPipeline.from_pretrained(tmp_path / "saved")
    same_output(goldens, first, again, 0)
    again.save_pretrained(tmp_path / "saved")  # also onto its own folder
    again.save_pretrained(tmp_path / "twice")
    for name in (UNET, VAE):
        assert (tmp_path / "twice" / name).read_bytes() == (tmp_path / "saved" / name).read_bytes()

    def files(folder: Path) -> set[str]:
        return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}

    assert files(tmp_path / "saved") == files(copied) | {"difix3d.json"}
    assert load_file(tmp_path / "saved" / UNET).keys() == load_file(copied / UNET).keys()
    merged = goldens.checkpoint("difix_ref") / "vae_merged" / "diffusion_pytorch_model.safetensors"
    assert load_file(tmp_path / "saved" / VAE).keys() == load_file(merged).keys()
    assert references_of(tmp_path / "saved") == 1


def test_checkpoints_are_listed_and_unfinished_ones_are_not(goldens, copied) -> None:
    root = copied.parent
    shutil.copytree(copied, root / ".other.x.partial")
    shutil.copytree(copied, root / "broken")
    (root / "broken" / "model_index.json").unlink()
    assert list_checkpoints(root) == ["mine"]
    assert list_checkpoints(root / "nowhere") == []


def test_licences_and_references_are_read_without_loading(goldens, copied) -> None:
    assert "non-commercial" in licence_of("nvidia/difix")
    assert licence_of(copied) == "unknown: see the folder"
    (copied / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# Card\n")
    assert licence_of(copied) == "cc-by-nc-4.0"
    (copied / "LICENSE").write_text("\n# My licence\nand so on")
    assert licence_of(copied) == "My licence"
    (copied / "difix3d.json").write_text(json.dumps({"licence": "Apache-2.0", "references": 3}))
    assert (licence_of(copied), references_of(copied)) == ("Apache-2.0", 3)
    assert [references_of(goldens.checkpoint(model)) for model in ("difix", "difix_ref")] == [0, 1]
    assert [references_of(f"nvidia/{model}") for model in ("difix", "difix_ref")] == [0, 1]


def test_the_published_sizes_fit() -> None:
    """The modules, built for the published configs without memory, hold the published numbers of weights."""
    from accelerate import init_empty_weights
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with init_empty_weights():
        vae = DifixVAE(
            {
                "block_out_channels": [128, 256, 512, 512],
                "down_block_types": ["DownEncoderBlock2D"] * 4,
                "up_block_types": ["UpDecoderBlock2D"] * 4,
                "layers_per_block": 2,
                "gamma": 1.0,
                "ignore_skip": False,
                "lora_rank": 4,
            }
        )
        unet = UNet2DConditionModel(
            attention_head_dim=[5, 10, 20, 20], cross_attention_dim=1024, use_linear_projection=True
        )
        text = CLIPTextModel(
            CLIPTextConfig(hidden_size=1024, num_hidden_layers=23, num_attention_heads=16, intermediate_size=4096)
        )

    def count(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    assert (count(unet), count(text)) == (865_910_724, 340_387_840)
    targets = lora_targets(vae)
    # 338 tensors as published: 43 modules have two factors each beside their own.
    assert len(targets) == 43 and len(vae.state_dict()) + 2 * len(targets) == 338
    assert sum(conv.weight.numel() for conv in vae.skip_convs) == 491_520
