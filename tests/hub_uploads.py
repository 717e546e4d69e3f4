"""The part of the stand-in for huggingface.co that takes commits to dataset repositories: small files in the commit,
large ones by LFS before it, as huggingface_hub sends them with HF_HUB_DISABLE_XET=1."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SMALL_BYTES = 2_000


@dataclass
class Datasets:
    """folder: where OWNER/NAME/ is kept as last committed; may_write: tokens; may_read: tokens that may do no more.

    fails: how many more commits are answered with 503; drops: how many more are done while their answer is lost.
    commits: the paths of each commit; visibility: repository -> as it was made; overwritten: paths that were there
    before with other bytes.
    """

    folder: Path | None = None
    may_write: set[str] = field(default_factory=lambda: {"hf_writer"})
    may_read: set[str] = field(default_factory=lambda: {"hf_reader"})
    fails: int = 0
    drops: int = 0
    commits: list[list[str]] = field(default_factory=list)
    visibility: dict[str, str] = field(default_factory=dict)
    overwritten: list[str] = field(default_factory=list)
    blobs: dict[str, bytes] = field(default_factory=dict)

    def path(self, repository: str, name: str = "") -> Path:
        assert self.folder is not None
        return self.folder / repository / name


class TakesUploads:
    """do_POST, do_PUT and some of do_GET of the stand-in's handler."""

    def do_GET(self) -> None:
        """What a client asks when all that it would send is there already."""
        _, _, repository = self.path.split("?")[0].partition("/api/datasets/")
        repository = repository.removesuffix("/revision/main")
        if repository not in self.hub.datasets.visibility:
            return super().do_GET()
        sha = f"{len(self.hub.datasets.commits):040x}"
        self._answer(200, {"id": repository, "sha": sha, "siblings": []})

    def do_PUT(self) -> None:
        content = self._body()
        oid = self.path.rpartition("/")[2]
        right = hashlib.sha256(content).hexdigest() == oid
        if right:
            self.hub.datasets.blobs[oid] = content
        self._answer(200 if right else 400, {})

    def do_POST(self) -> None:
        datasets, path = self.hub.datasets, self.path.split("?")[0]
        self.hub.seen.append(f"POST {path}")
        body = self._body()
        if path == "/api/validate-yaml":
            return self._answer(200, {"errors": [], "warnings": []})
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token not in datasets.may_write | datasets.may_read:
            return self._answer(401, {"error": "Invalid credentials in Authorization header"})
        if token in datasets.may_read:
            return self._answer(403, {"error": "You have read-only access"})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        if path.endswith("/verify"):
            return self._answer(200, {})
        _, _, _, owner, name, what, _ = path.split("/")
        repository = f"{owner}/{name}"
        if repository not in datasets.visibility:
            return self._answer(404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"})
        if what == "preupload":
            return self._modes(repository, json.loads(body))
        return self._commit(repository, [json.loads(line) for line in body.splitlines()])

    def _create(self, asked: dict[str, Any]) -> None:
        repository = f"{asked['organization']}/{asked['name']}"
        known = repository in self.hub.datasets.visibility
        self.hub.datasets.visibility.setdefault(repository, asked.get("visibility", "public"))
        url = f"{self.hub.url}/datasets/{repository}"
        self._answer(409 if known else 200, {"url": url, "error": "You already created this dataset repo"})

    def _modes(self, repository: str, asked: dict[str, Any]) -> None:
        """Large files go by LFS; of those that are there the hash is told, so that the same is not sent again."""
        found = []
        for file in asked["files"]:
            there = self.hub.datasets.path(repository, file["path"])
            mode = "regular" if file["size"] < SMALL_BYTES else "lfs"
            oid = _oid(there.read_bytes(), mode) if there.is_file() else None
            found.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self._answer(200, {"files": found})

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = []
        for each in asked["objects"]:
            actions = {"upload": {"href": f"{self.hub.url}/lfs/{each['oid']}"}}
            told = {"oid": each["oid"], "size": each["size"]}
            objects.append(told if each["oid"] in self.hub.datasets.blobs else {**told, "actions": actions})
        self._answer(200, {"transfer": "basic", "objects": objects})

    def _commit(self, repository: str, lines: list[dict[str, Any]]) -> None:
        datasets = self.hub.datasets
        if datasets.fails > 0:
            datasets.fails -= 1
            return self._answer(503, {"error": "Service unavailable"})
        paths = []
        for line in lines[1:]:
            value = line["value"]
            content = base64.b64decode(value["content"]) if line["key"] == "file" else datasets.blobs[value["oid"]]
            target = datasets.path(repository, value["path"])
            if target.is_file() and target.read_bytes() != content:
                datasets.overwritten.append(value["path"])
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
            paths.append(value["path"])
        datasets.commits.append(paths)
        if datasets.drops > 0:
            datasets.drops -= 1
            self.close_connection = True
            return
        oid = f"{len(datasets.commits):040x}"
        url = f"{self.hub.url}/datasets/{repository}/commit/{oid}"
        self._answer(200, {"success": True, "commitUrl": url, "commitOid": oid})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _answer(self, status: int, content: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        headers = {"Content-Type": "application/json", **(headers or {})}
        self.send(status, json.dumps(content).encode(), True, headers)


def _oid(content: bytes, mode: str) -> str:
    if mode == "lfs":
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
