"""Difix's checkpoint folder: what is in it, read strictly, and written again.

model_index.json  scheduler/  text_encoder/  tokenizer/  unet/  vae/      diffusers' layout, safetensors
difix3d.json      of checkpoints trained here: licence, number of references, what they were trained on

The published folders name custom classes whose code they carry. None of it is run: the class names in
model_index.json are ignored, the modules are built here, and every key must fit. The VAE comes in two forms, with its
decoder's LoRA kept apart (as published) or merged (as written here); both are read.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difix3d.atomic import replacing_folder, write_json
from difix3d.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from difix3d.fixers.difix.vae import DifixVAE, LoraWeights

NVIDIA_LICENCE = "NVIDIA License: non-commercial, for research and evaluation only"
_UNET_FILE = "unet/diffusion_pytorch_model.safetensors"
_VAE_FILE = "vae/diffusion_pytorch_model.safetensors"
_TEXT_FILE = "text_encoder/model.safetensors"
_NEEDED = ("model_index.json", "unet/config.json", _UNET_FILE, "vae/config.json", _VAE_FILE, "text_encoder/config.json",
           _TEXT_FILE, "tokenizer/vocab.json", "tokenizer/merges.txt", "scheduler/scheduler_config.json")  # fmt: skip
_LORA_KEY = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])\.[^.]+\.weight")


@dataclass
class Checkpoint:
    """A loaded checkpoint, on the CPU, in float32.

    unet: diffusers' UNet2DConditionModel; text_encoder, tokenizer: transformers' CLIPTextModel, CLIPTokenizer;
    scheduler: diffusers' DDPMScheduler, of which only the noise levels are used.
    lora: factors that were left out of the VAE's weights (keep_lora), else empty. folder: where it was read from;
    its unchanged parts are copied from there when it is saved.
    """

    unet: nn.Module
    vae: DifixVAE
    text_encoder: nn.Module
    tokenizer: Any
    scheduler: Any
    folder: Path
    lora: LoraWeights = field(default_factory=dict)


def locate(source: str | Path, revision: str | None = None) -> tuple[Path, str | None]:
    """The local folder of a checkpoint (path or Hub id) and, from the Hub, its commit.

    Raises CheckpointError where `source` is neither, or lacks files.
    """
    from difix3d.fixers.difix.hub import download, is_hub_id

    folder, commit = Path(source).expanduser(), None
    if not folder.is_dir():
        if not is_hub_id(str(source)):
            raise CheckpointError(
                f"No checkpoint at {source}: expected a folder that holds model_index.json, or a Hub id owner/model"
            )
        folder, commit = download(str(source), revision)
    if missing := [name for name in _NEEDED if not (folder / name).is_file()]:
        raise CheckpointError(
            f"{source} is no Difix checkpoint: {', '.join(missing)} not found. Expected diffusers' layout with "
            f"model_index.json and the folders scheduler, text_encoder, tokenizer, unet, vae, weights as safetensors."
        )
    return folder, commit


def load(folder: Path, *, keep_lora: bool = False) -> Checkpoint:
    """Read a folder that `locate` gave. Every key must fit: CheckpointError names those that do not.

    keep_lora: leave the decoder's LoRA out of its weights and return it, so that training can go on with it.
    """
    import transformers
    from accelerate import init_empty_weights
    from diffusers import DDPMScheduler, UNet2DConditionModel

    from difix3d.fixers.difix.vae import DifixVAE

    with init_empty_weights(include_buffers=False):
        unet = UNet2DConditionModel.from_config(_config(folder, "unet/config.json"))
        vae = DifixVAE(_config(folder, "vae/config.json"))
        text_config = transformers.CLIPTextConfig.from_dict(_config(folder, "text_encoder/config.json"))
        text_encoder = transformers.CLIPTextModel(text_config)

    load_strictly(unet, _tensors(folder, _UNET_FILE), _UNET_FILE)
    base, lora = split_lora(_tensors(folder, _VAE_FILE))
    load_strictly(vae, base if keep_lora else merged(base, lora), _VAE_FILE)
    load_strictly(text_encoder, _text_keys(_tensors(folder, _TEXT_FILE), text_encoder), _TEXT_FILE)

    scheduler = DDPMScheduler.from_config(_config(folder, "scheduler/scheduler_config.json"))
    if scheduler.config.prediction_type != "epsilon":
        raise CheckpointError(
            f"scheduler_config.json: expected prediction_type epsilon, found {scheduler.config.prediction_type}"
        )
    return Checkpoint(
        unet=unet.eval().requires_grad_(False),
        vae=vae.eval().requires_grad_(False),
        text_encoder=text_encoder.eval().requires_grad_(False),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True),
        scheduler=scheduler,
        folder=folder,
        lora=lora if keep_lora else {},
    )


def save(checkpoint: Checkpoint, folder: Path, about: dict[str, Any] | None = None) -> None:
    """Write a folder that `load` reads, atomically: float32 safetensors, LoRA merged.

    Text encoder, tokenizer and scheduler are never trained and are copied as they are. about: goes to difix3d.json.
    """
    from safetensors.torch import save_file

    from difix3d.fixers.difix.vae import merge_lora

    merge_lora(checkpoint.vae)
    with replacing_folder(folder) as target:
        for part in ("scheduler", "text_encoder", "tokenizer"):
            shutil.copytree(checkpoint.folder / part, target / part, copy_function=shutil.copyfile)
        shutil.copyfile(checkpoint.folder / "model_index.json", target / "model_index.json")
        for part, model in (("unet", checkpoint.unet), ("vae", checkpoint.vae)):
            config = _config(checkpoint.folder, f"{part}/config.json")
            if part == "vae":
                config["lora_rank"] = 0  # merged: a reader that would add adapters has none to add
            (target / part).mkdir()
            write_json(target / part / "config.json", config)
            tensors = {name: value.detach().float().cpu().contiguous() for name, value in model.state_dict().items()}
            save_file(tensors, target / part / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
        inherited = {"licence": licence_of(checkpoint.folder), "references": references_of(checkpoint.folder)}
        write_json(target / "difix3d.json", inherited | (about or {}))


def load_strictly(module: nn.Module, state: dict[str, Tensor], where: str) -> None:
    """Load float32 weights; CheckpointError names keys that are missing, unknown or of another shape."""
    wanted = module.state_dict()
    missing, unknown = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    misshaped = [
        f"{name} (expected {list(wanted[name].shape)}, found {list(state[name].shape)})"
        for name in sorted(wanted.keys() & state.keys())
        if wanted[name].shape != state[name].shape
    ]
    problems = [
        f"{len(names)} {what}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
        for what, names in (("missing", missing), ("unknown", unknown), ("of another shape", misshaped))
        if names
    ]
    if problems:
        raise CheckpointError(f"{where} does not fit the model of its config.json. Keys {'; '.join(problems)}")
    module.load_state_dict({name: value.float() for name, value in state.items()}, strict=True, assign=True)


def split_lora(state: dict[str, Tensor]) -> tuple[dict[str, Tensor], LoraWeights]:
    """A VAE's tensors as plain base weights and LoRA factors; a merged one has no factors.

    Raises CheckpointError for a factor without its partner or without a weight that it fits.
    """
    base: dict[str, Tensor] = {}
    factors: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        if match := _LORA_KEY.fullmatch(key):
            factors.setdefault(match["module"], {})[match["factor"]] = value.float()
        else:
            base[key.replace(".base_layer.", ".")] = value
    for module, pair in factors.items():
        weight = base.get(f"{module}.weight")
        if pair.keys() != {"A", "B"} or weight is None:
            raise CheckpointError(f"{_VAE_FILE}: {module} has LoRA tensors without lora_A, lora_B or base_layer.weight")
        a, b = pair["A"], pair["B"]
        if a.shape[0] != b.shape[1] or b.shape[0] != weight.shape[0] or a[0].numel() != weight[0].numel():
            raise CheckpointError(
                f"{_VAE_FILE}: {module}: LoRA of shapes {list(a.shape)} and {list(b.shape)} does not fit a weight of "
                f"{list(weight.shape)}"
            )
    return base, {module: (pair["A"], pair["B"]) for module, pair in factors.items()}


def merged(base: dict[str, Tensor], lora: LoraWeights) -> dict[str, Tensor]:
    """Base weights with the LoRA added, computed in float32."""
    from difix3d.fixers.difix.vae import low_rank_update

    result = dict(base)
    for module, (a, b) in lora.items():
        weight = base[f"{module}.weight"].float()
        result[f"{module}.weight"] = weight + low_rank_update(a, b).view_as(weight)
    return result


def list_checkpoints(folder: Path | str) -> list[str]:
    """Names of the checkpoints directly inside `folder`, sorted; a missing folder holds none."""
    root = Path(folder)
    if not root.is_dir():
        return []
    return sorted(
        place.name
        for place in root.iterdir()
        if not place.name.startswith(".") and all((place / name).is_file() for name in _NEEDED)
    )


def licence_of(source: str | Path) -> str:
    """The licence of a checkpoint's weights, in words: by owner on the Hub, else as its folder says."""
    if not Path(source).is_dir():
        return NVIDIA_LICENCE if str(source).startswith("nvidia/") else f"unknown: see the page of {source} on the Hub"
    folder = Path(source)
    if licence := _about(folder).get("licence"):
        return str(licence)
    if "models--nvidia--" in str(folder) or str(_model_index(folder).get("_name_or_path", "")).startswith("nvidia/"):
        return NVIDIA_LICENCE
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md"):
        if (folder / name).is_file():
            lines = (line.strip("# \t") for line in (folder / name).read_text(errors="replace").splitlines())
            return next((line for line in lines if line), "unknown: see the folder")
    card = folder / "README.md"
    found = re.search(r"^license:\s*(.+)$", card.read_text(errors="replace"), re.M) if card.is_file() else None
    return found[1].strip() if found else "unknown: see the folder"


def references_of(source: str | Path) -> int:
    """How many references the weights were trained to look at: 1 for difix_ref and its descendants, else 0."""
    if not Path(source).is_dir():
        return int(str(source).endswith("_ref"))
    folder = Path(source)
    about, index = _about(folder), _model_index(folder)
    if "references" in about:
        return int(about["references"])
    two_views = (index.get("unet") or [""])[0] == "unet_2d_condition"  # the custom class of difix_ref
    return int(two_views or str(index.get("_name_or_path")).endswith("_ref"))


def _about(folder: Path) -> dict[str, Any]:
    return _config(folder, "difix3d.json") if (folder / "difix3d.json").is_file() else {}


def _model_index(folder: Path) -> dict[str, Any]:
    return _config(folder, "model_index.json") if (folder / "model_index.json").is_file() else {}


def _config(folder: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads((folder / name).read_text())
    except ValueError as error:
        raise CheckpointError(f"{name}: expected JSON, could not read it ({error})") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{name}: expected a JSON object, found {type(found).__name__}")
    return found


def _tensors(folder: Path, name: str) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(folder / name)
    except SafetensorError as error:
        raise CheckpointError(f"{name}: expected safetensors, could not read it ({error})") from error


def _text_keys(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Keys as this version of transformers has them: with or without "text_model.", never with position_ids."""
    prefix = "text_model."
    wants_prefix = any(name.startswith(prefix) for name in model.state_dict())
    found = {}
    for name, value in state.items():
        if not name.endswith("position_ids"):  # a constant that old versions stored
            found[(prefix if wants_prefix else "") + name.removeprefix(prefix)] = value
    return found
