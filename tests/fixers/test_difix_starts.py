"""What training may start from beside a Difix checkpoint: Stable Diffusion, and the published training's pickle."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from difix3d.errors import CheckpointError
from difix3d.fixers.difix import DifixPipeline
from difix3d.fixers.difix.checkpoint import list_checkpoints, references_of

pytestmark = pytest.mark.shared

VAE = "vae/diffusion_pytorch_model.safetensors"
UNET = "unet/diffusion_pytorch_model.safetensors"


def plain_vae(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The decoder as it was before Difix: no skips, no LoRA."""
    base = {key.replace(".base_layer.", "."): value for key, value in tensors.items() if "lora" not in key}
    return {key: value for key, value in base.items() if "skip_conv" not in key}


@pytest.fixture
def turbo(goldens, tmp_path) -> Path:
    """stabilityai/sd-turbo's layout: another class, Euler's scheduler, a VAE that has no skips."""
    folder = tmp_path / "turbo"
    ignored = shutil.ignore_patterns("vae_merged")
    shutil.copytree(goldens.checkpoint("difix"), folder, copy_function=shutil.copyfile, ignore=ignored)
    for place in [folder, *folder.rglob("*")]:
        place.chmod(0o755)
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"_class_name": "StableDiffusionPipeline", "scheduler": ["diffusers", "EulerDiscreteScheduler"]}
    index |= {"vae": ["diffusers", "AutoencoderKL"], "_name_or_path": ""}
    (folder / "model_index.json").write_text(json.dumps(index))
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text())
    kept = ("beta_start", "beta_end", "beta_schedule", "num_train_timesteps", "prediction_type", "timestep_spacing")
    scheduler = {name: scheduler[name] for name in kept if name in scheduler}
    (folder / "scheduler" / "scheduler_config.json").write_text(
        json.dumps(scheduler | {"_class_name": "EulerDiscreteScheduler", "interpolation_type": "linear"})
    )
    config = json.loads((folder / "vae" / "config.json").read_text())
    for own in ("gamma", "ignore_skip", "lora_rank"):
        del config[own]
    (folder / "vae" / "config.json").write_text(json.dumps(config))
    save_file(plain_vae(load_file(folder / VAE)), folder / VAE)
    return folder


def test_stable_diffusion_is_a_start_and_no_fixer(goldens, turbo) -> None:
    with pytest.raises(CheckpointError, match="never trained to fix renders"):
        DifixPipeline.from_pretrained(turbo)
    assert list_checkpoints(turbo.parent) == []
    start = DifixPipeline.from_pretrained(turbo, keep_lora=True)
    assert not start.checkpoint.lora
    assert all(bool((conv.weight == 1e-5).all()) for conv in start.vae.skip_convs)
    # Skips of 1e-5 leave the decoder as it was.
    pixels = goldens.expected("vae_alone")["pixels"]
    with torch.no_grad():
        mean, _, skips = start.vae.encode(pixels)
        assert (start.vae.decode(mean, skips) - start.vae.decode(mean, [])).abs().max() < 0.01


def test_what_was_trained_from_it_is_a_fixer_in_the_published_layout(goldens, turbo, tmp_path) -> None:
    start = DifixPipeline.from_pretrained(turbo, keep_lora=True)
    start.save_pretrained(tmp_path / "checkpoints" / "mine", {"references": 1})
    saved = tmp_path / "checkpoints" / "mine"
    assert list_checkpoints(saved.parent) == ["mine"] and references_of(saved) == 1
    again = DifixPipeline.from_pretrained(saved)
    levels = goldens.expected("scheduler")
    torch.testing.assert_close(
        again.predict_clean(levels["z"], levels["eps"]), levels["prev_sample"], rtol=0, atol=1e-5
    )
    assert json.loads((saved / "scheduler" / "scheduler_config.json").read_text())["_class_name"] == "DDPMScheduler"
    image = goldens.image("image_0")
    torch.testing.assert_close(
        again(image, output_type="pt").images[0], start(image, output_type="pt").images[0], rtol=0, atol=1e-6
    )


def test_old_names_of_attention_layers(goldens, turbo) -> None:
    wanted = DifixPipeline.from_pretrained(turbo, keep_lora=True).vae.state_dict()
    tensors = {}
    for key, value in load_file(turbo / VAE).items():
        for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
            key = key.replace(f"attentions.0.{new}.", f"attentions.0.{old}.")
        tensors[key] = value
    assert any(".query." in key for key in tensors)
    save_file(tensors, turbo / VAE)
    found = DifixPipeline.from_pretrained(turbo, keep_lora=True).vae.state_dict()
    assert found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in found)


def training_pickle(folder: Path, path: Path) -> Path:
    """As the published training saves a checkpoint: the whole U-Net, of the VAE what was trained, the optimizer."""
    vae = load_file(folder / VAE)
    targets = [key.removesuffix(".base_layer.weight") for key in vae if key.endswith(".base_layer.weight")]
    moments = {0: {"step": torch.tensor(7.0), "exp_avg": torch.zeros(3)}}
    torch.save(
        {
            "vae_lora_target_modules": targets,
            "rank_vae": 4,
            "state_dict_unet": load_file(folder / UNET),
            "state_dict_vae": {key: value for key, value in vae.items() if "lora" in key or "skip" in key},
            "optimizer": {"state": moments, "param_groups": [{"lr": 2e-5, "params": [0]}]},
        },
        path,
    )
    return path


def test_the_published_trainings_pickle_is_the_checkpoint_it_came_from(goldens, turbo, tmp_path) -> None:
    path = training_pickle(goldens.checkpoint("difix"), tmp_path / "model_1001.pkl")
    read = DifixPipeline.from_pretrained(path, base=turbo, references=0)
    image = goldens.image("image_0")
    ours, wanted = (p(image, output_type="pt").images[0] for p in (read, goldens.pipeline("difix")))
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-6)
    read.save_pretrained(tmp_path / "converted")
    converted = DifixPipeline.from_pretrained(tmp_path / "converted")
    torch.testing.assert_close(converted(image, output_type="pt").images[0], wanted, rtol=0, atol=1e-6)
    # Its LoRA is kept apart where training shall go on with it, also on top of a Difix checkpoint.
    apart = DifixPipeline.from_pretrained(path, base=goldens.checkpoint("difix_ref"), references=1, keep_lora=True)
    assert len(apart.checkpoint.lora) == len(torch.load(path, weights_only=True)["vae_lora_target_modules"])


def test_a_pickle_must_be_told_how_many_photos_it_looks_at_and_hands_that_on(goldens, turbo, tmp_path) -> None:
    """It was trained from Stable Diffusion, which looks at none, and does not say itself."""
    path = training_pickle(goldens.checkpoint("difix_ref"), tmp_path / "model_1001.pkl")
    with pytest.raises(CheckpointError, match=r"model_1001\.pkl does not say .* references=1\)\.save_pretrained"):
        DifixPipeline.from_pretrained(path, base=turbo)
    for references in (1, 0):
        read = DifixPipeline.from_pretrained(path, base=turbo, references=references)
        read.save_pretrained(tmp_path / f"with-{references}")
        assert references_of(tmp_path / f"with-{references}") == references


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("evil-was-here"),))


def test_pickles_with_code_or_without_weights_are_refused(goldens, turbo, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "model_1.pkl"
    path.write_bytes(pickle.dumps({"state_dict_unet": Evil(), "state_dict_vae": {}}))
    with pytest.raises(CheckpointError, match=r"model_1\.pkl: .*never run"):
        DifixPipeline.from_pretrained(path, base=turbo, references=0)
    torch.save({"state_dict_unet": Evil()}, path)
    with pytest.raises(CheckpointError, match="never run"):
        DifixPipeline.from_pretrained(path, base=turbo, references=0)
    assert not (tmp_path / "evil-was-here").exists()
    path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="damaged"):
        DifixPipeline.from_pretrained(path, base=turbo, references=0)
    torch.save({"weights": torch.zeros(1)}, path)
    with pytest.raises(
        CheckpointError, match=r"expected entries state_dict_unet and state_dict_vae .* found \['weights"
    ):
        DifixPipeline.from_pretrained(path, base=turbo, references=0)
    unet = load_file(turbo / UNET)
    unet.pop("conv_in.bias")
    torch.save({"state_dict_unet": unet, "state_dict_vae": {}}, path)
    with pytest.raises(CheckpointError, match=r"model_1\.pkl does not fit .* 1 missing: conv_in\.bias"):
        DifixPipeline.from_pretrained(path, base=turbo, references=0)
    with pytest.raises(CheckpointError, match="No checkpoint at"):
        DifixPipeline.from_pretrained(tmp_path / "gone.pkl", base=turbo)
