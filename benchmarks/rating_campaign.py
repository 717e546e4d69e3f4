"""Scripted raters over HTTP: the app as a person would start it, scenes whose truth is known, and clients that vote.

Used by benchmarks/ratings.py and by the simulated campaign in the tests.
"""

from __future__ import annotations

import http.client
import io
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from difix3d.formats.camera_path import write_camera_path
from difix3d.formats.image import write_rgb
from difix3d.geometry import look_at
from difix3d.scene import Scene, hash_file
from difix3d.types import Camera, Candidate, Trajectory

ROOT = Path(__file__).resolve().parent.parent
SIZE = (96, 64)
# How much of a wrong picture is mixed into the true one: of the render, and of each fixer. Best last.
FLAWS = {"render": 0.30, "weak": 0.22, "middle": 0.15, "strong": 0.08}
HELDOUT_FRAMES = 12


def waves(seed: int) -> np.ndarray:
    """[H, W, 3] uint8, smooth, different for each seed."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : SIZE[1], 0 : SIZE[0]] / max(SIZE)
    rgb = [np.sin(x * rng.uniform(3, 12) + y * rng.uniform(3, 12) + rng.uniform(0, 6)) for _ in range(3)]
    return (np.stack(rgb, axis=-1) * 100 + 128).astype(np.uint8)


def make_scene(root: Path, frames: int, seed: int = 0) -> dict[tuple[str, int], np.ndarray]:
    """A scene folder with `frames` rendered frames, some at held-out photos, each fixed by every fixer. Returns the
    hidden photo of each (trajectory, frame)."""
    scene = Scene.create(root, name="campaign", source="test")
    truth: dict[tuple[str, int], np.ndarray] = {}
    K = np.array([[80.0, 0, 48], [0, 80, 32], [0, 0, 1]])
    counts = {"heldout": min(HELDOUT_FRAMES, frames // 3), "orbit": frames - min(HELDOUT_FRAMES, frames // 3)}
    for trajectory, count in counts.items():
        cameras = [Camera(K, *SIZE, look_at(np.array([np.cos(i), np.sin(i), 0.3]), np.zeros(3))) for i in range(count)]
        names = tuple(f"{index:05d}.png" for index in range(count)) if trajectory == "heldout" else ()
        write_camera_path(scene.trajectory_path(trajectory), Trajectory(trajectory, tuple(cameras), view_names=names))
        listed: dict[str, list[dict[str, Any]]] = {fixer: [] for fixer in FLAWS if fixer != "render"}
        for index in range(count):
            number = seed + 1000 * (trajectory == "orbit") + index
            truth[trajectory, index] = photo = waves(number)
            if names:
                write_rgb(scene.images_dir / names[index], photo)
            for place, (fixer, flaw) in enumerate(FLAWS.items()):
                wrong = waves(10_000 * (place + 1) + number)
                rgb = (photo * (1 - flaw) + wrong * flaw).round().astype(np.uint8)
                folder = scene.renders_dir(trajectory) if fixer == "render" else scene.fixed_dir(trajectory, fixer)
                path = folder / f"{index:05d}.png"
                write_rgb(path, rgb)
                if fixer != "render":
                    made = Candidate(scene.id, trajectory, index, fixer, scene.relative(path), hash_file(path))
                    listed[fixer].append(asdict(made))
        for fixer, entries in listed.items():
            (scene.fixed_dir(trajectory, fixer) / "candidates.json").write_text(json.dumps(entries))
    return truth


@dataclass
class App:
    """`python app.py` over folder/scenes; may be killed and started again at the same address."""

    folder: Path
    database: str = ""
    process: subprocess.Popen | None = None
    port: int = 0

    def __post_init__(self) -> None:
        self.database = self.database or f"sqlite:///{self.folder / 'ratings.sqlite'}"

    def start(self) -> None:
        if not self.port:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
        flags = ["--scenes", str(self.folder / "scenes"), "--ratings-db", self.database, "--port", str(self.port)]
        with (self.folder / "server.log").open("a") as log:
            command = [sys.executable, str(ROOT / "app.py"), *flags]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder, env=os.environ)
        deadline = time.monotonic() + 120
        while True:
            try:
                if Connection(self.port).get("/healthz")[0] == 200:
                    return
            except OSError:
                time.sleep(0.1)
            assert self.process.poll() is None and time.monotonic() < deadline, (self.folder / "server.log").read_text()

    def kill(self) -> None:
        """As the kernel does when memory runs out: nothing is finished, nobody is told."""
        if self.process:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()


class Connection:
    """Keeps one connection open. OSError where the server does not answer."""

    def __init__(self, port: int):
        self._http = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def get(self, path: str) -> tuple[int, bytes]:
        return self._ask("GET", path, None, {})

    def post(self, path: str, body: dict[str, Any], visitor: str) -> tuple[int, dict[str, Any]]:
        headers = {"X-Visitor": visitor, "Content-Type": "application/json"}
        status, data = self._ask("POST", path, json.dumps(body).encode(), headers)
        return status, json.loads(data)

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes]:
        # The server closes a connection that was quiet for five seconds: then once more on a new one.
        for last in (False, True):
            try:
                self._http.request(method, path, body, headers)
                answer = self._http.getresponse()
                return answer.status, answer.read()
            except (http.client.HTTPException, OSError) as error:
                self._http.close()
                if last:
                    raise OSError(str(error)) from error
        raise AssertionError


@dataclass
class Rater:
    """One scripted rater. choose: (its random numbers, pair as the page gets it, left, right) -> left | right | tie.

    acknowledged: ids that the server gave for votes; sent: what was voted, in order.
    """

    port: int
    visitor: str
    choose: Callable[[random.Random, dict[str, Any], bytes, bytes], str]
    twice: float = 0.05
    pictures: bool = True
    acknowledged: dict[str, str] = field(default_factory=dict)
    next_s: list[float] = field(default_factory=list)
    vote_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._connection = Connection(self.port)
        self._rng = random.Random(self.visitor)
        self._seen: dict[str, bytes] = {}

    def agree(self) -> None:
        _, answer = self._connection.post("/rate/me", {}, self.visitor)
        body = {"version": answer["me"]["version"], "licence": answer["me"]["licence"], "name": self.visitor[:20]}
        status, answer = self._connection.post("/rate/agree", body, self.visitor)
        assert status == 200, answer

    def rate_one(self) -> bool:
        """Ask for a pair and vote on it; False where there is none. A part of the votes is sent twice, as by a double
        click. OSError where the server went away: what was acknowledged stays in `acknowledged`."""
        started = time.perf_counter()
        status, answer = self._connection.post("/rate/next", {"everywhere": True, "want": 1}, self.visitor)
        assert status == 200, answer
        self.next_s.append(time.perf_counter() - started)
        if not answer["pairs"]:
            return False
        pair = answer["pairs"][0]
        left, right = (self._picture(pair[side]) if self.pictures else b"" for side in ("left", "right"))
        choice = self.choose(self._rng, pair, left, right)
        body = {"ticket": pair["ticket"], "choice": choice, "ms": 1500 + 1000 * self._rng.random()}
        for _ in range(1 + (self._rng.random() < self.twice)):
            started = time.perf_counter()
            status, answer = self._connection.post("/rate/vote", body, self.visitor)
            assert status == 200, answer
            self.vote_s.append(time.perf_counter() - started)
            self.acknowledged[answer["stored"]] = choice
        return True

    def _picture(self, address: str) -> bytes:
        if address not in self._seen:
            status, self._seen[address] = self._connection.get("/" + address.lstrip("/"))
            assert status == 200, address
        return self._seen[address]


def knows(truth: dict[tuple[str, int], np.ndarray], noise: float = 4.0, against: bool = False) -> Callable[..., str]:
    """Prefers the picture nearer to the hidden photo (by RMS difference d), with probability
    1 / (1 + exp(-(d_other - d) / noise)); against: the farther one. The same pixels are a tie."""

    def choose(rng: random.Random, pair: dict[str, Any], left: bytes, right: bytes) -> str:
        found = re.search(r", (\w+), frame (\d+)$", pair["place"])
        assert found, pair["place"]
        photo = truth[found[1], int(found[2])].astype(np.float64)
        one, other = (np.sqrt(np.mean((_rgb(each) - photo) ** 2)) for each in (left, right))
        if one == other and not against:
            return "tie"
        nearer_is_left = rng.random() < 1 / (1 + np.exp(-(other - one) / noise))
        return "left" if nearer_is_left != against else "right"

    return choose


def guesses(rng: random.Random, pair: dict[str, Any], left: bytes, right: bytes) -> str:
    return rng.choice(("left", "right"))


def takes_left(rng: random.Random, pair: dict[str, Any], left: bytes, right: bytes) -> str:
    return "left"


def _rgb(png: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB"), dtype=np.float64)
