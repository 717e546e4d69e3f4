"""One error for all: what fails in one of several processes is told by all, instead of leaving the others waiting."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from accelerate import Accelerator
from accelerate.utils import gather_object

from difix3d.errors import Difix3DError

T = TypeVar("T")


def everywhere(work: Callable[[], T]) -> T:
    """Do `work` in every process; returns this one's result. The first Difix3DError of any is raised in all."""
    result, error = _attempt(work)
    for one in gather_object([error]):
        if one is not None:
            raise one
    return result  # type: ignore[return-value]


def on_main(accelerator: Accelerator, work: Callable[[], T]) -> T:
    """Do `work` in the main process; its result (which must pickle), or its Difix3DError, comes to all."""
    result, error = gather_object([_attempt(work) if accelerator.is_main_process else (None, None)])[0]
    if error is not None:
        raise error
    return result


def _attempt(work: Callable[[], T]) -> tuple[T | None, Difix3DError | None]:
    try:
        return work(), None
    except Difix3DError as error:
        return None, error
