"""`python app.py` in a process of its own, as a person would start it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from playwright.sync_api import Page, expect

from difix3d import jobs
from difix3d.scene import Scene

REPOSITORY = Path(__file__).resolve().parents[2]
WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 390, "height": 844}


@dataclass
class Server:
    """`python app.py` over one folder of scenes; may be killed and started again."""

    folder: Path
    host: str = "127.0.0.1"
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen | None = None
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def scenes(self) -> Path:
        return self.folder / "scenes"

    def start(self) -> None:
        if not self.port:  # started again, it has the same address: to a browser another port is another site
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                self.port = free.getsockname()[1]
        database = f"sqlite:///{self.folder / 'ratings.sqlite'}"
        flags = ["--scenes", str(self.scenes), "--ratings-db", database, "--host", self.host, "--port", str(self.port)]
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(REPOSITORY / "app.py"), *flags],
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, **self.environment},
            )
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log()
            try:
                if httpx.get(f"{self.url}/healthz", timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.2)
        raise AssertionError(f"the server does not answer: {self.log()}")

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()

    def stop(self) -> None:
        """The server and the jobs it left running, which outlive it by design."""
        self.kill()
        for path in self.scenes.glob("*/scene.json"):
            scene = Scene(path.parent)
            job = jobs.find(scene)
            if job is not None and job.state == jobs.RUNNING:
                jobs.cancel(scene, job.id)

    def log(self) -> str:
        return (self.folder / "server.log").read_text()


def open_step(tab: Page, name: str) -> None:
    """Press the step's tab; once more where nothing came of it, as while a page builds itself up on a slow machine."""
    step = tab.get_by_role("tab", name=name, exact=True)
    step.click()
    tab.wait_for_timeout(300)
    if step.get_attribute("aria-selected") != "true":
        step.click()
    expect(step).to_have_attribute("aria-selected", "true")


def upload(tab: Page, files: list[Path]) -> None:
    """Put files into the upload box, wait until they have arrived, and press Start."""
    tab.locator("input[type=file]").first.set_input_files([str(path) for path in files])
    expect(tab.locator(".file-preview tr.file")).to_have_count(len(files), timeout=60_000)
    tab.locator("#dx-start").click()


def choose_first_photos(page: Page, count: int) -> None:
    """Expects that what is chosen when the Fix step opens comes first; then presses until the first `count` are."""
    photos, pressed = page.locator(".dx-photos button"), page.locator(".dx-photos button[aria-pressed=true]")
    expect(pressed.first).to_be_visible(timeout=30_000)
    states = photos.evaluate_all("buttons => buttons.map(button => button.getAttribute('aria-pressed') === 'true')")
    assert states == sorted(states, reverse=True) and 1 <= sum(states) <= 4
    for number in range(sum(states), count):
        photos.nth(number).click()
    for number in range(count, sum(states)):
        photos.nth(number).click()
    expect(pressed).to_have_count(count)
