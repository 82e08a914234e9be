"""One tree of errors. Each says what is wrong, where, and what to do about it.

Anything that is not a :class:`PublishError` is a bug and keeps its traceback.
"""

from __future__ import annotations


class PublishError(Exception):
    """What is wrong, where, and what to do. ``exit_code`` is what the command line ends with.

    2: it could not run (bad arguments, unreadable or unsupported input, no access);
    1: it ran and found something wrong.
    """

    exit_code = 2

    def __init__(self, what: str, where: object, fix: str) -> None:
        super().__init__(_short(what), str(where), fix)  # positional strings: survives pickling

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


def _short(text: str, limit: int = 2000) -> str:
    """``text``, its middle left out where a file's own content made it endless."""
    return text if len(text) <= limit else f"{text[: limit // 2]} [...] {text[-limit // 4 :]}"


class ReleaseError(PublishError):
    """The release file, or the arguments that stand for one, cannot be used."""


class ScheduleError(PublishError):
    """A schedule or a list of steps does not say which steps are meant."""


class SourceError(PublishError):
    """Raw checkpoints cannot be found or read where they are said to be."""


class CheckpointError(PublishError):
    """A file is not what GPT-NeoX writes: broken, hostile, or of an unknown kind."""


class ConfigError(PublishError):
    """A training config cannot be read, contradicts the tensors, or has no Hugging Face counterpart."""


class ConversionError(PublishError):
    """A checkpoint cannot be converted: tensors unmapped, missing or surplus."""


class TokenizerError(PublishError):
    """A tokenizer is missing, unreadable or does not fit the model."""


class GateError(PublishError):
    """A step is not what it claims to be."""

    exit_code = 1


class CardError(PublishError):
    """A card cannot be written from the facts at hand."""


class HubError(PublishError):
    """The Hub refused, or cannot be reached."""


class StorageError(PublishError):
    """A file cannot be written on this machine."""


class SlurmError(PublishError):
    """Slurm refuses, cannot be reached, or ended a task that left no result."""
