"""Addresses of files tell nothing, serve byte ranges, and lead nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from difix3d.ui.media import Media


@pytest.fixture
def served() -> tuple[Media, TestClient]:
    media, app = Media(), FastAPI()
    media.mount(app)
    return media, TestClient(app)


def test_a_file_comes_as_it_is_and_in_ranges(tmp_path: Path, served: tuple[Media, TestClient]) -> None:
    media, client = served
    path = tmp_path / "render.png"
    path.write_bytes(bytes(range(256)))
    url = media.url(path)
    assert client.get(url).content == path.read_bytes()
    assert client.get(url).headers["content-type"] == "image/png"
    part = client.get(url, headers={"Range": "bytes=10-19"})
    assert part.status_code == 206 and part.content == bytes(range(10, 20))
    assert media.url(path, "mine.png").endswith("/mine.png")


def test_an_address_tells_nothing_and_changes_with_the_file(tmp_path: Path, served: tuple[Media, TestClient]) -> None:
    media, _ = served
    (tmp_path / "fixed").mkdir()
    path = tmp_path / "fixed" / "reproject.png"
    path.write_bytes(b"1")
    first = media.url(path)
    assert first == media.url(path) and "fixed" not in first and "reproject" not in first
    path.write_bytes(b"22")
    assert media.url(path) != first and Media().url(path) != media.url(path)


@pytest.mark.parametrize("asked", ["media/0000/file.png", "media/../../etc/passwd", "media/%2e%2e%2fetc/passwd"])
def test_addresses_that_were_not_given_are_not_found(served: tuple[Media, TestClient], asked: str) -> None:
    assert served[1].get(asked).status_code == 404


def test_a_file_that_is_gone_is_told(tmp_path: Path, served: tuple[Media, TestClient]) -> None:
    media, client = served
    path = tmp_path / "a.jpg"
    assert media.url_if_there(path) == ""
    path.write_bytes(b"1")
    url = media.url(path)
    path.unlink()
    answer = client.get(url)
    assert answer.status_code == 404 and "Reload" in answer.json()["detail"]
