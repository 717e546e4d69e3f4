"""What every step of the page is given, and how its handlers tell a person what went wrong."""

from __future__ import annotations

import functools
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr

from difix3d.errors import Difix3DError
from difix3d.ui.studio import Studio

log = logging.getLogger(__name__)

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": 8}
"""For events that belong to the page and need no spinner. They go through the queue: outside it, Gradio 6.31 does not
tell a State's listeners that it changed."""

LATEST: dict[str, Any] = {**QUIET, "trigger_mode": "always_last"}
"""For what follows votes or a person's choice: one that comes while it works is followed after all."""

SLOW: dict[str, Any] = {"api_visibility": "private", "concurrency_id": "model", "concurrency_limit": 1}
"""For events that run a model: one at a time on the whole server."""


@dataclass
class Shared:
    """visitor: {"id", "scene"} that the browser keeps; scene_id: the open scene, "" for none; revision: changes
    whenever something in the open scene is complete, so that the steps read it again; filters: which votes Results
    counts and an export holds (the settings since, without, without_flagged of the export)."""

    studio: Studio
    visitor: gr.BrowserState
    scene_id: gr.State
    revision: gr.State
    filters: gr.State


def told(handler: Callable[..., Any]) -> Callable[..., Any]:
    """The handler, whose Difix3DError becomes a message on the page. Everything else is logged and owned up to."""

    def as_message(error: Exception) -> gr.Error:
        if isinstance(error, Difix3DError):
            return gr.Error(escape(error.message), title="", print_exception=False, duration=15)
        log.exception("handler %s failed", handler.__qualname__)
        return gr.Error(
            "Something went wrong inside the program; nothing was lost. The server's log has the details.",
            title="",
            print_exception=False,
        )

    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def generate(*arguments: Any, **named: Any) -> Any:
            try:
                yield from handler(*arguments, **named)
            except gr.Error:
                raise
            except Exception as error:
                raise as_message(error) from error

        return generate

    @functools.wraps(handler)
    def call(*arguments: Any, **named: Any) -> Any:
        try:
            return handler(*arguments, **named)
        except gr.Error:
            raise
        except Exception as error:
            raise as_message(error) from error

    return call


def facts(rows: list[tuple[str, str, str]]) -> str:
    """HTML of (what, value, small print) boxes."""
    boxes = "".join(
        f"<div><dt>{escape(what)}</dt><dd>{escape(value)} <small>{escape(small)}</small></dd></div>"
        for what, value, small in rows
    )
    return f"<dl class='dx-facts'>{boxes}</dl>"


def empty(text: str) -> str:
    """HTML of a place where nothing is yet, saying how something comes there."""
    return f"<div class='dx-empty'>{escape(text)}</div>"


def once_looked_at(read: Callable[..., Any], outputs: int) -> Callable[..., Any]:
    """Of what reads all votes: nothing before its tab was opened, which each page that only fixes would pay for. Its
    first argument is whether it was."""

    def read_if(looked: bool, *arguments: Any) -> Any:
        if looked:
            return read(*arguments)
        return gr.skip() if outputs == 1 else tuple(gr.skip() for _ in range(outputs))

    return read_if
