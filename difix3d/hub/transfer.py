"""One file of the Hub, or a part of one, to this machine.

Small files go through hf_hub_download. Large ones are streamed here into their place in the same cache, since
huggingface_hub 2 forgets what it had of a download that broke, and five gigabytes take a while. A streamed file counts
only once its SHA-256 is the one that the Hub lists.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from difix3d.errors import CheckpointError
from difix3d.hub.files import HubFile, Listing, blobs_of, cached
from difix3d.hub.refusals import damaged, is_transport, stopped, telling

_TRIES, _PAUSE_S = 5, 1.0
"""In a row without a single new byte."""
_LOOK_AGAIN_S = 0.5


def fetch_file(listing: Listing, file: HubFile) -> Generator[int, None, Path]:
    """Bring one file into huggingface_hub's cache; yields the bytes of it that are here, from time to time.

    Closing the generator stops; the next call goes on from there. Two processes that want one file take turns.
    """
    from huggingface_hub import hf_hub_download

    with telling(listing.repo, listing.commit, file.path):
        if file.sha256 and cached(listing.repo, listing.commit, file.path) is None:
            blob = blobs_of(listing.repo) / file.sha256  # hf_hub_download then only links it
            blob.parent.mkdir(parents=True, exist_ok=True)
            yield from _fill(listing, file, blob)
        path = Path(hf_hub_download(listing.repo, file.path, revision=listing.commit))
    yield file.size
    return path


def read_span(repo: str, commit: str, path: str, start: int, stop: int) -> Iterator[bytes]:
    """Bytes [start, stop) of a file in chunks, and no others. A broken connection is taken up where it broke."""
    done, tries = start, 0
    with telling(repo, commit, path):
        while done < stop:
            before = done
            with suppress(_Broken), _opened(repo, commit, path, done, stop) as (first, chunks):
                if first != done:
                    raise CheckpointError(f"The server of {repo} sends {path} whole or not at all; parts are needed")
                for chunk in chunks:
                    done += len(chunk)
                    yield chunk
            tries = 0 if done > before else tries + 1
            if tries == _TRIES:
                raise CheckpointError(stopped(repo, path, done - start, stop - start))


class _Broken(Exception):
    """The connection ended before the file did."""


def _fill(listing: Listing, file: HubFile, blob: Path) -> Generator[int, None, None]:
    """Make `blob` the file; once more from its start where it arrived damaged."""
    partial = blob.with_name(f"{blob.name}.difix3d.incomplete")
    # Not thread_local: the app goes on with this generator in any of its threads, and must still release the lock.
    lock = FileLock(f"{partial}.lock", thread_local=False)
    while True:
        try:
            lock.acquire(timeout=_LOOK_AGAIN_S)
            break
        except Timeout:
            yield partial.stat().st_size if partial.exists() else 0
    try:
        if blob.exists():
            return
        found = ""
        for _ in range(2):
            yield from _append(listing, file, partial)
            with partial.open("rb") as whole:
                found = hashlib.file_digest(whole, "sha256").hexdigest()
            if found == file.sha256:
                partial.replace(blob)
                return
            partial.unlink()
        raise CheckpointError(damaged(listing.repo, file.path, found, file.sha256))
    finally:
        lock.release()


def _append(listing: Listing, file: HubFile, partial: Path) -> Generator[int, None, None]:
    """Make `partial` as long as the Hub says the file is."""
    where = (listing.repo, listing.commit, file.path)
    tries = 0
    with partial.open("ab") as target:
        while (done := target.tell()) < file.size:
            with suppress(_Broken), _opened(*where, done, file.size) as (first, chunks):
                if first != done:  # a server without ranges begins anew
                    target.truncate(0)
                for chunk in chunks:
                    target.write(chunk)
                    yield target.tell()
            target.seek(0, os.SEEK_END)
            tries = 0 if target.tell() > done else tries + 1
            if tries == _TRIES:
                raise CheckpointError(stopped(listing.repo, file.path, target.tell(), file.size))


@contextmanager
def _opened(repo: str, commit: str, path: str, start: int, stop: int) -> Iterator[tuple[int, Iterator[bytes]]]:
    """(where the answer begins, its chunks) for bytes [start, stop) of a file.

    Raises _Broken, after a pause, where the connection does not hold; what the Hub refuses passes through.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.constants import HF_HUB_DOWNLOAD_TIMEOUT
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    # Compressed on the way, a range would be one of other bytes.
    headers = build_hf_headers() | {"Range": f"bytes={start}-{stop - 1}", "Accept-Encoding": "identity"}
    url = hf_hub_url(repo, path, revision=commit)
    try:
        with get_session().stream("GET", url, headers=headers, timeout=HF_HUB_DOWNLOAD_TIMEOUT) as response:
            if response.status_code in (408, 416, 429) or response.status_code >= 500:
                raise _Broken
            hf_raise_for_status(response)
            yield start if response.status_code == 206 else 0, response.iter_bytes()
    except Exception as error:
        if not isinstance(error, _Broken | ConnectionError) and not is_transport(error):
            raise
        time.sleep(_PAUSE_S)
        raise _Broken from error
