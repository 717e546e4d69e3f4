"""Difix's checkpoint folder: what is in it, read strictly, and written again.

model_index.json  scheduler/  text_encoder/  tokenizer/  unet/  vae/      diffusers' layout, safetensors
difix3d.json      of checkpoints trained here: licence, number of references, what they were trained on

The published folders name custom classes whose code they carry. None of it is run: the class names in
model_index.json are ignored, the modules are built here, and every key must fit. The VAE comes in two forms, with its
decoder's LoRA kept apart (as published) or merged (as written here); both are read.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from difix3d.atomic import replacing_folder, write_json
from difix3d.errors import CheckpointError
from difix3d.fixers.difix import layout

if TYPE_CHECKING:
    from torch import nn

    from difix3d.fixers.difix.vae import DifixVAE, LoraWeights

NVIDIA_LICENCE = "NVIDIA License: non-commercial, for research and evaluation only"
_FIRST_INDEX = {
    "_class_name": "DifixPipeline",
    "scheduler": ["diffusers", "DDPMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["autoencoder_kl", "AutoencoderKL"],
}
"""model_index.json of what was trained from Stable Diffusion; later checkpoints keep their parent's."""


@dataclass
class Checkpoint:
    """A loaded checkpoint, on the CPU, in float32.

    unet: diffusers' UNet2DConditionModel; text_encoder, tokenizer: transformers' CLIPTextModel, CLIPTokenizer;
    scheduler: diffusers' DDPMScheduler, of which only the noise levels are used.
    lora: factors that were left out of the VAE's weights (keep_lora), else empty. folder: where it was read from;
    its unchanged parts are copied from there when it is saved. references: how many it was trained to look at.
    """

    unet: nn.Module
    vae: DifixVAE
    text_encoder: nn.Module
    tokenizer: Any
    scheduler: Any
    folder: Path
    references: int
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
    if missing := [name for name in layout.NEEDED if not (folder / name).is_file()]:
        raise CheckpointError(
            f"{source} is no Difix checkpoint: {', '.join(missing)} not found. Expected diffusers' layout with "
            f"model_index.json and the folders scheduler, text_encoder, tokenizer, unet, vae, weights as safetensors."
        )
    return folder, commit


def load(
    folder: Path, *, keep_lora: bool = False, trained: Path | None = None, references: int | None = None
) -> Checkpoint:
    """Read a folder that `locate` gave. Every key must fit: CheckpointError names those that do not.

    keep_lora: leave the decoder's LoRA out of its weights and return it, so that training can go on with it. Then
    Stable Diffusion's own weights (stabilityai/sd-turbo) are taken too, with skips that hardly act yet.
    trained: what the published training script saved (model_N.pkl) on top of such a folder. references: None: as the
    folder says, which of what was trained on top of it is not known.
    """
    import transformers
    from accelerate import init_empty_weights
    from diffusers import DDPMScheduler, UNet2DConditionModel

    from difix3d.fixers.difix import weights
    from difix3d.fixers.difix.vae import DifixVAE

    with init_empty_weights(include_buffers=False):
        unet = UNet2DConditionModel.from_config(_config(folder, layout.UNET_CONFIG))
        vae = DifixVAE(_config(folder, layout.VAE_CONFIG))
        text_config = transformers.CLIPTextConfig.from_dict(_config(folder, layout.TEXT_ENCODER_CONFIG))
        text_encoder = transformers.CLIPTextModel(text_config)

    vae_state = weights.read_tensors(folder / layout.VAE, layout.VAE)
    if not weights.has_skips(vae_state):
        if not keep_lora and trained is None:
            raise CheckpointError(
                f"{folder} holds Stable Diffusion, which was never trained to fix renders. It can be the start of a "
                f"training (difix3d finetune --from). To fix, choose nvidia/difix_ref or a checkpoint trained here."
            )
        vae_state = weights.with_new_skips(vae_state, vae)
    if trained is None:
        where = layout.UNET
        unet_state = weights.read_tensors(folder / layout.UNET, layout.UNET)
    else:
        where = trained.name
        unet_state, vae_part = weights.read_training_pickle(trained)
        vae_state = {key: value for key, value in vae_state.items() if not weights.has_skips({key: value})} | vae_part
    weights.load_strictly(unet, unet_state, where)
    base, lora = weights.split_lora(vae_state, layout.VAE)
    weights.load_strictly(vae, base if keep_lora else weights.merged(base, lora), layout.VAE)
    text_state = weights.read_tensors(folder / layout.TEXT_ENCODER, layout.TEXT_ENCODER)
    weights.load_strictly(text_encoder, weights.text_keys(text_state, text_encoder), layout.TEXT_ENCODER)

    scheduler = DDPMScheduler.from_config(_config(folder, layout.SCHEDULER_CONFIG))
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
        references=references_of(folder) if references is None else references,
        lora=lora if keep_lora else {},
    )


def save(checkpoint: Checkpoint, folder: Path, about: dict[str, Any] | None = None) -> None:
    """Write a folder that `load` reads, atomically: float32 safetensors, LoRA merged.

    Text encoder, tokenizer and noise levels are never trained and are copied as they are. about: goes to difix3d.json.
    """
    from safetensors.torch import save_file

    from difix3d.fixers.difix.vae import merge_lora

    merge_lora(checkpoint.vae)
    with replacing_folder(folder) as target:
        for part in ("text_encoder", "tokenizer"):
            shutil.copytree(checkpoint.folder / part, target / part, copy_function=shutil.copyfile)
        checkpoint.scheduler.save_config(target / "scheduler")
        index = _model_index(checkpoint.folder)
        write_json(target / layout.MODEL_INDEX, _FIRST_INDEX if _is_plain(index) else index)
        for part, model in (("unet", checkpoint.unet), ("vae", checkpoint.vae)):
            config = _config(checkpoint.folder, f"{part}/config.json")
            if part == "vae":
                config["lora_rank"] = 0  # merged: a reader that would add adapters has none to add
            (target / part).mkdir()
            write_json(target / part / "config.json", config)
            tensors = {name: value.detach().float().cpu().contiguous() for name, value in model.state_dict().items()}
            save_file(tensors, target / part / "diffusion_pytorch_model.safetensors", metadata={"format": "pt"})
        inherited = {"licence": licence_of(checkpoint.folder), "references": checkpoint.references}
        write_json(target / layout.ABOUT, inherited | (about or {}))


def list_checkpoints(folder: Path | str) -> list[str]:
    """Names of the fixer checkpoints directly inside `folder`, sorted; a missing folder holds none."""
    root = Path(folder)
    if not root.is_dir():
        return []
    return sorted(
        place.name
        for place in root.iterdir()
        if not place.name.startswith(".")
        and all((place / name).is_file() for name in layout.NEEDED)
        and not _is_plain(_model_index(place))
    )


def licence_of(source: str | Path) -> str:
    """The licence of a checkpoint's weights, in words: as its folder says where that is here, else by its owner."""
    is_folder = Path(source).is_dir()
    unknown = "unknown: see the folder" if is_folder else f"unknown: see the page of {source} on the Hub"
    if not is_folder and str(source).startswith("nvidia/"):
        return NVIDIA_LICENCE
    folder = here(source)
    if folder is None:
        return unknown
    if licence := _about(folder).get("licence"):
        return str(licence)
    if "models--nvidia--" in str(folder) or str(_model_index(folder).get("_name_or_path", "")).startswith("nvidia/"):
        return NVIDIA_LICENCE
    for name in ("LICENSE", "LICENSE.txt", "LICENSE.md"):
        if (folder / name).is_file():
            lines = (line.strip("# \t") for line in (folder / name).read_text(errors="replace").splitlines())
            return next((line for line in lines if line), unknown)
    card = folder / "README.md"
    found = re.search(r"^license:\s*(.+)$", card.read_text(errors="replace"), re.M) if card.is_file() else None
    return found[1].strip() if found else unknown


def references_of(source: str | Path) -> int:
    """How many references the weights were trained to look at: as its folder says where it is here, else 1 for
    difix_ref and its descendants and 0 for others."""
    folder = here(source)
    about, index = ({}, {}) if folder is None else (_about(folder), _model_index(folder))
    if "references" in about:
        return int(about["references"])
    two_views = (index.get("unet") or [""])[0] == "unet_2d_condition"  # the custom class of difix_ref
    names = [str(index.get("_name_or_path")), "" if Path(source).is_dir() else str(source)]
    return int(two_views or any(name.endswith("_ref") for name in names))


@lru_cache(maxsize=32)
def fingerprint(folder: Path, changed_ns: int) -> str:
    """sha256 over the names and contents of a folder's weights. changed_ns: of its newest file, so that a folder that
    was trained into again is read again. Seconds where there are gigabytes."""
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        whole.update(f"{path.relative_to(folder).as_posix()} {digest}\n".encode())
    return whole.hexdigest()


def here(source: str | Path) -> Path | None:
    """The folder of a checkpoint (path or Hub id) on this machine; None where it is not here. Asks nobody."""
    from difix3d.fixers.difix.hub import is_hub_id, on_disk

    if Path(source).is_dir():
        return Path(source)
    found = on_disk(str(source)) if is_hub_id(str(source)) else None
    return found and found[0]


def _about(folder: Path) -> dict[str, Any]:
    return _config(folder, layout.ABOUT) if (folder / layout.ABOUT).is_file() else {}


def _model_index(folder: Path) -> dict[str, Any]:
    return _config(folder, layout.MODEL_INDEX) if (folder / layout.MODEL_INDEX).is_file() else {}


def _is_plain(index: dict[str, Any]) -> bool:
    """Whether a model_index.json is Stable Diffusion's: a start for training, and no fixer yet."""
    return str(index.get("_class_name", "")).startswith("StableDiffusion")


def _config(folder: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads((folder / name).read_text())
    except ValueError as error:
        raise CheckpointError(f"{name}: expected JSON, could not read it ({error})") from error
    if not isinstance(found, dict):
        raise CheckpointError(f"{name}: expected a JSON object, found {type(found).__name__}")
    return found
