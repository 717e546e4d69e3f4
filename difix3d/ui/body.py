"""The body of a request to one of the app's own addresses."""

from __future__ import annotations

import json
from typing import Any

from fastapi import Request

from difix3d.errors import Difix3DError


async def json_object(request: Request, most_bytes: int, too_long: str, error: type[Difix3DError]) -> dict[str, Any]:
    """What was sent, {} where nothing was. Raises `error`, with the words `too_long` past `most_bytes`, or where it is
    no JSON object; no more than that is ever held."""
    received = b""
    async for chunk in request.stream():
        received += chunk
        if len(received) > most_bytes:
            raise error(too_long)
    try:
        body = json.loads(received or b"{}")
    except ValueError as problem:
        raise error("Expected JSON. Reload the page to go on.") from problem
    if not isinstance(body, dict):
        raise error("Expected a JSON object. Reload the page to go on.")
    return body
