"""The rating screen's addresses over a folder of scenes, as a browser calls them."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image

from difix3d.ratings.schema import GOLD, RATE, REPEAT
from difix3d.ui.rating import people, routes
from difix3d.ui.studio import Studio

ANN, BOB = "ann-who-has-a-long-id", "bob-who-has-a-long-id"
AGREED = {"version": people.CONSENT_VERSION, "licence": people.LICENCE}


@dataclass
class App:
    """The addresses over a folder of scenes, as a browser calls them."""

    folder: Path
    public: bool = False
    url: str = ""

    def __post_init__(self) -> None:
        self.studio = Studio(
            self.folder / "scenes", self.url or f"sqlite:///{self.folder / 'ratings.sqlite'}", public=self.public
        )
        api = FastAPI()
        self.ratings = routes.mount(api, self.studio)
        self.client = TestClient(api)

    def post(self, action: str, body: Any, visitor: str = ANN) -> tuple[int, dict[str, Any]]:
        answer = self.client.post(f"/rate/{action}", json=body, headers={"X-Visitor": visitor})
        return answer.status_code, answer.json()

    def agree(self, visitor: str = ANN, name: str = "") -> None:
        status, answer = self.post("agree", {**AGREED, "name": name}, visitor)
        assert status == 200, answer

    def next(self, visitor: str = ANN, held: list[str] | None = None, **more: Any) -> dict[str, Any]:
        status, answer = self.post("next", {"scene": "one", "held": held or [], **more}, visitor)
        assert status == 200, answer
        return answer

    def rater(self, visitor: str) -> str:
        return people.Who(visitor, {}).rater(self.studio)

    def stored(self) -> list[Any]:
        return self.studio.store.ratings(purposes=(RATE, GOLD, REPEAT))


def marks(size: tuple[int, int], mode: str = "RGBA") -> str:
    """What a browser's canvas gives: white on nothing in the upper left quarter."""
    image = Image.new(mode, size, 0)
    image.paste((255, 255, 255, 255) if mode == "RGBA" else 255, (0, 0, size[0] // 2, size[1] // 2))
    written = io.BytesIO()
    image.save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()
