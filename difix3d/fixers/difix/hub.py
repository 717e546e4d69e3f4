"""Checkpoints from the Hugging Face Hub: only data files, at a known revision."""

from __future__ import annotations

import re
from pathlib import Path

from difix3d.errors import CheckpointError

PINNED_REVISIONS = {"nvidia/difix": "2b0c6fb5797c26b01154dfdeb19d36e5e2eaf388"}
"""Revisions whose files were checked against the description this code was written from."""

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
# Weights as safetensors and settings as text: never code (.py), never pickles.
_FILES = (
    "model_index.json",
    "difix3d.json",
    "scheduler/*.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/*.json",
    "tokenizer/*.txt",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
)


def is_hub_id(source: str) -> bool:
    """Whether `source` reads like owner/model."""
    return _HUB_ID.fullmatch(source) is not None


def download(model_id: str, revision: str | None = None) -> tuple[Path, str]:
    """The local folder of a Hub model and the commit it is at; what the cache holds is not fetched again.

    revision: branch, tag or commit; None: the pinned commit where we know one, else what `main` is now (the commit
    comes back, so that it can be recorded). Raises CheckpointError, with what to do, where it cannot be had.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    wanted = revision or PINNED_REVISIONS.get(model_id, "main")
    by_hand = f"or download the folder elsewhere and give its path (hf download {model_id} --local-dir FOLDER)"
    try:
        folder = Path(snapshot_download(model_id, revision=wanted, allow_patterns=list(_FILES)))
    except GatedRepoError as error:
        raise CheckpointError(
            f"{model_id} is gated: accept its terms on its Hub page and set HF_TOKEN, {by_hand}"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(
            f"{model_id} has no revision {wanted!r} on the Hub: leave it out, or name a commit"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise CheckpointError(
            f"There is no model {model_id} on the Hub, or it is private: check its name, or set HF_TOKEN"
        ) from error
    except Exception as error:
        # Proxies and broken connections surface as errors of the client's HTTP library, which changes with its version.
        library = type(error).__module__.partition(".")[0]
        if not isinstance(error, LocalEntryNotFoundError | HfHubHTTPError | OSError) and "httpx" not in library:
            raise
        raise CheckpointError(
            f"Could not reach the Hub for {model_id}, and it is not in the local cache. Try again with a connection, "
            f"{by_hand}. ({type(error).__name__})"
        ) from error
    return folder, folder.name
