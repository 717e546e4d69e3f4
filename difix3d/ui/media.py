"""Files for the page: each gets an address that tells nothing of its place, for those who were given it.

An address holds a keyed hash of the path, so raters cannot read from it which picture is a fix, and no path ever comes
from a browser.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from pathlib import Path

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse

ROUTE = "media"
_HEADERS = {"Cache-Control": "private, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}


class Media:
    """Files that were given an address since the server started."""

    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)
        self._paths: dict[str, Path] = {}

    def url(self, path: Path, download: str = "") -> str:
        """Address of a file as it is now, relative to the page. download: the name to save it under."""
        status = path.stat()
        version = f"{path}\0{status.st_mtime_ns}\0{status.st_size}"
        token = hmac.new(self._key, version.encode(), hashlib.sha256).hexdigest()[:40]
        self._paths[token] = path
        return f"{ROUTE}/{token}/{download or 'file' + path.suffix}"

    def url_if_there(self, path: Path) -> str:
        """As `url`; "" where there is no such file."""
        return self.url(path) if path.is_file() else ""

    def mount(self, app: FastAPI) -> None:
        """Serve the addresses (with byte ranges, which videos in Safari need)."""

        def send(token: str, name: str) -> FileResponse:
            path = self._paths.get(token)
            if path is None or not path.is_file():
                raise HTTPException(404, "This file is no longer there. Reload the page.")
            return FileResponse(path, headers=_HEADERS)

        app.add_api_route(f"/{ROUTE}/{{token}}/{{name}}", send, methods=["GET", "HEAD"], include_in_schema=False)
