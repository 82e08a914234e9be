"""The errors that a user meets. Every error says what is wrong, where, and what to do about it.

An exception that is not a :class:`PublishError` is a bug and keeps its traceback.
"""

from __future__ import annotations


class PublishError(Exception):
    """What is wrong, where, and what to do. The command line ends with ``exit_code``.

    2: the command could not run (bad arguments, unreadable or unsupported input, no access);
    1: it ran and found something wrong.
    """

    exit_code = 2

    def __init__(self, what: str, where: object, fix: str) -> None:
        super().__init__(_shortened(what), str(where), fix)  # positional strings: survives pickling

    @property
    def what(self) -> str:
        return str(self.args[0])

    @property
    def where(self) -> str:
        return str(self.args[1])

    @property
    def fix(self) -> str:
        return str(self.args[2])

    def __str__(self) -> str:
        return f"{self.what}\n  at:  {self.where}\n  fix: {self.fix}"


def _shortened(text: str, limit: int = 2000) -> str:
    """``text`` without its middle if it is very long: the content of a file may be part of it."""
    return text if len(text) <= limit else f"{text[: limit // 2]} [...] {text[-limit // 4 :]}"


class ReleaseError(PublishError):
    """The release file, or the arguments in its place, cannot be used."""


class ScheduleError(PublishError):
    """A schedule or a list of steps is malformed, or names steps that do not exist."""


class SourceError(PublishError):
    """Raw checkpoints cannot be found or read at their location."""


class CheckpointError(PublishError):
    """A file is not what GPT-NeoX writes: broken, hostile, or of an unknown kind."""


class ConfigError(PublishError):
    """A training config cannot be read, contradicts the tensors, or has no Hugging Face counterpart."""


class ConversionError(PublishError):
    """A checkpoint cannot be converted: tensors are unmapped, missing or surplus."""


class TokenizerError(PublishError):
    """A tokenizer is missing, unreadable or does not fit the model."""


class GateError(PublishError):
    """A step is not what it claims to be."""

    exit_code = 1


class CardError(PublishError):
    """A card cannot be rendered from the facts."""


class HubError(PublishError):
    """The Hub refuses, answers something malformed, or cannot be reached."""


class StorageError(PublishError):
    """A file on this machine cannot be written or read."""


class SlurmError(PublishError):
    """Slurm refuses, cannot be reached, or a task ended without a result."""
