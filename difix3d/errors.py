"""What a person is told when something cannot be done: found, expected, next step.

A Difix3DError is shown as it reads (app: a message; command line: exit status 2). Anything else is a bug and
keeps its traceback in the log. `kind` in JSON output is the class name.
"""

from __future__ import annotations


class Difix3DError(Exception):
    """Base of every error meant for the person using the program."""

    @property
    def kind(self) -> str:
        return type(self).__name__

    @property
    def message(self) -> str:
        return str(self)


class CaptureError(Difix3DError):
    """The uploaded photos or video cannot be used."""


class ReconstructionError(Difix3DError):
    """Cameras could not be found, or what was found is no scene."""


class SceneError(Difix3DError):
    """A scene folder lacks or contradicts something that a stage needs."""


class FormatError(Difix3DError):
    """A file is not what its name or header says."""


class ConfigError(Difix3DError):
    """A setting is out of range or unknown."""


class ShapeError(Difix3DError, ValueError):
    """An array has the wrong shape."""


class MissingBackendError(Difix3DError):
    """An optional library or device is needed and not there."""


class FixerError(Difix3DError):
    """A fixer cannot run on what it was given."""


class CheckpointError(Difix3DError):
    """A checkpoint's files or keys are not those of a model we know."""


class RatingError(Difix3DError):
    """A rating cannot be stored or exported as asked."""


class JobError(Difix3DError):
    """A job cannot be started, found or stopped."""
