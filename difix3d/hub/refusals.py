"""What the Hub, the network and the disk refuse, told as a CheckpointError that says what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from difix3d.errors import CheckpointError


@contextmanager
def telling(repo: str, revision: str, path: str = "") -> Iterator[None]:
    """Turn what huggingface_hub and the network raise about `repo` (and one file of it) into a CheckpointError."""
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise CheckpointError(
            f"{repo} is gated: accept its terms on its Hub page and set HF_TOKEN, {_by_hand(repo)}"
        ) from error
    except RevisionNotFoundError as error:
        raise CheckpointError(
            f"{repo} has no revision {revision!r} on the Hub: leave it out, or name a commit"
        ) from error
    except (RepositoryNotFoundError, HFValidationError) as error:
        raise CheckpointError(
            f"There is no model {repo} on the Hub, or it is private: check its name, or set HF_TOKEN"
        ) from error
    except LocalEntryNotFoundError as error:
        raise CheckpointError(_unreachable(repo, error)) from error
    except EntryNotFoundError as error:
        raise CheckpointError(f"{repo} has no file {path} at {revision}. Is it the right repository?") from error
    except HfHubHTTPError as error:
        code = error.response.status_code
        what_next = "check that HF_TOKEN is valid and may read it" if code in (401, 403) else "try again later"
        raise CheckpointError(f"The Hub answers {code} when asked for {repo}: {what_next}, {_by_hand(repo)}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise CheckpointError(
                f"The disk became full while {path or repo} was fetched. Free some, and fetch again: it goes on where "
                "it stopped."
            ) from error
        if not isinstance(error, ConnectionError | TimeoutError):
            raise
        raise CheckpointError(_unreachable(repo, error)) from error
    except Exception as error:
        if not is_transport(error):
            raise
        raise CheckpointError(_unreachable(repo, error)) from error


def is_transport(error: Exception) -> bool:
    """Whether the Hub client's HTTP library raised it: httpx, or httpx2, as the client's version has it."""
    return type(error).__module__.partition(".")[0].startswith("httpx")


def stopped(repo: str, path: str, done: int, total: int) -> str:
    """What to say of a transfer that does not get on."""
    if not done:
        return f"The Hub does not send {path} of {repo}. Check the connection, and try again."
    return (
        f"{path} of {repo} ends after {done:,} of {total:,} bytes, and the Hub sends no more. Check the connection and "
        "fetch again: it goes on where it stopped."
    )


def damaged(repo: str, path: str, found: str, listed: str) -> str:
    """What to say of a file that arrived with another SHA-256 than the Hub lists, twice."""
    return (
        f"{path} of {repo} arrived damaged twice: its SHA-256 is {found[:12]}..., the Hub lists {listed[:12]}.... "
        f"Nothing of it was kept. Fetch it again later, {_by_hand(repo)}."
    )


def _by_hand(repo: str) -> str:
    return f"or download the folder elsewhere and give its path (hf download {repo} --local-dir FOLDER)"


def _unreachable(repo: str, error: Exception) -> str:
    return (
        f"Could not reach the Hub for {repo}, and it is not in the local cache. Try again with a connection, "
        f"{_by_hand(repo)}. ({type(error).__name__})"
    )
