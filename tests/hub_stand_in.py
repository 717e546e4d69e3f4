"""A stand-in for huggingface.co on this machine, for the real client: HF_ENDPOINT in a process of its own.

It serves folders as repositories at one commit each, answers ranges, lists sizes and SHA-256 as the Hub does, and can
misbehave: cut files short, damage them on the way, break connections, be slow, gate a repository. Dataset repositories
can be written to (hub_uploads.py).
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from hub_uploads import Datasets, TakesUploads

COMMIT = "c0ffee00" * 5
PIECE = 16_384


@dataclass
class StandInHub:
    """repositories: id -> folder; commits: of those that are not at COMMIT; answers: id -> HTTP status of every
    answer. seen: "METHOD path" of each request; sent: bytes of each file's body that went out.

    damaged: file name -> how many more times it arrives with a changed byte; cut: file name -> bytes after which the
    server says it ends; breaks: file name -> bytes after which the connection breaks, once; bytes_per_s: 0: unlimited.
    """

    repositories: dict[str, Path] = field(default_factory=dict)
    commits: dict[str, str] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    answers: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, int] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    breaks: dict[str, int] = field(default_factory=dict)
    bytes_per_s: float = 0.0
    datasets: Datasets = field(default_factory=Datasets)
    seen: list[str] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    url: str = ""

    @contextmanager
    def serving(self) -> Iterator[StandInHub]:
        handler = type("Handler", (_Handler,), {"hub": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def environment(endpoint: str, home: Path, **more: str) -> dict[str, str]:
    """Variables that send huggingface_hub to `endpoint`, with nothing of this machine's own settings and cache."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "DIFIX3D_"))}
    return own | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "NO_PROXY": "*",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        **more,
    }


def in_a_process(code: str, home: Path, endpoint: str, **more: str) -> subprocess.CompletedProcess:
    """huggingface_hub reads its endpoint and cache from the environment when it is imported."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=environment(endpoint, home, **more),
        capture_output=True,
        text=True,
        timeout=120,
    )


class _Serves(BaseHTTPRequestHandler):
    """Files of repositories."""

    hub: StandInHub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        path = self.path.split("?")[0]
        self.hub.seen.append(f"{self.command} {path}")
        repo = next((repo for repo in self.hub.repositories if repo in path), None)
        if repo is None:
            return self.send(404, b"{}", with_body, {"X-Error-Code": "RepoNotFound"})
        if repo in self.hub.gated:
            return self.send(403, b"{}", with_body, {"X-Error-Code": "GatedRepo"})
        if repo in self.hub.answers:
            headers = {"X-Error-Message": "Invalid credentials in Authorization header"}
            return self.send(self.hub.answers[repo], b"{}", with_body, headers)
        folder = self.hub.repositories[repo]
        names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
        revision = path.removeprefix(f"/api/models/{repo}/revision/")
        commit = self.hub.commits.get(repo, COMMIT)
        if revision in ("main", commit):
            listed = {"id": repo, "sha": commit, "siblings": [_listed(folder, name) for name in names]}
            return self.send(200, json.dumps(listed).encode(), with_body, {"Content-Type": "application/json"})
        resolved = f"/{repo}/resolve/{commit}/"
        name = path.removeprefix(resolved)
        if name in names:
            return self.send_file(name, (folder / name).read_bytes(), with_body, commit)
        found = path.startswith(resolved)
        return self.send(404, b"{}", with_body, {"X-Error-Code": "EntryNotFound" if found else "RevisionNotFound"})

    def send_file(self, name: str, content: bytes, with_body: bool, commit: str) -> None:
        headers = {"ETag": f'"{_etag(name, content)}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if with_body and self.hub.damaged.get(name, 0) > 0:
            self.hub.damaged[name] -= 1
            content = content[:-1] + bytes([content[-1] ^ 1])
        total = len(content)
        content = content[: self.hub.cut.get(name, total)]
        asked = self.headers.get("Range")
        if not asked or not with_body:
            return self.send(200, content, with_body, headers, name)
        start, stop = asked.removeprefix("bytes=").split("-")
        part = content[int(start) : int(stop or total) + 1]
        if not part:
            return self.send(416, b"", with_body, headers)
        headers["Content-Range"] = f"bytes {start}-{int(start) + len(part) - 1}/{total}"
        return self.send(206, part, with_body, headers, name)

    def send(self, status: int, content: bytes, with_body: bool, headers: dict[str, str], name: str = "") -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if not with_body:
            return
        breaks_at = self.hub.breaks.pop(name, None)
        for begin in range(0, len(content), PIECE):
            if breaks_at is not None and begin >= breaks_at:
                self.close_connection = True
                return
            piece = content[begin : begin + PIECE]
            try:
                self.wfile.write(piece)
            except (BrokenPipeError, ConnectionResetError):  # who asked went away
                self.close_connection = True
                return
            self.hub.sent[name] = self.hub.sent.get(name, 0) + len(piece)
            if self.hub.bytes_per_s:
                time.sleep(len(piece) / self.hub.bytes_per_s)

    def log_message(self, *arguments) -> None:
        pass


class _Handler(TakesUploads, _Serves):
    pass


def _etag(name: str, content: bytes) -> str:
    """As the Hub has it: SHA-256 of large files, git's hash of small ones."""
    if name.endswith(".safetensors"):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _listed(folder: Path, name: str) -> dict:
    content = (folder / name).read_bytes()
    entry = {"rfilename": name, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
    if name.endswith(".safetensors"):
        entry["lfs"] = {"sha256": _etag(name, content), "size": len(content), "pointerSize": 134}
    return entry
