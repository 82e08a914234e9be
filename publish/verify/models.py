"""Who computes with torch and transformers for the gates, and what is known of the models already."""

from __future__ import annotations

import threading
from pathlib import Path

from publish.verify.apart import Compute, here
from publish.verify.hf_model import Skeleton, hollow_model

_KEPT = 16  # skeletons: a run has one, unless overrides change it


class Models:
    """The models of a run's configs; each skeleton is computed once. Safe to share between threads."""

    def __init__(self, compute: Compute = here) -> None:
        self.compute = compute
        self._lock = threading.Lock()
        self._known: dict[tuple[bytes, tuple[str, ...]], Skeleton] = {}

    def skeleton(self, folder: Path, config: bytes, names: tuple[str, ...]) -> Skeleton:
        """The model that transformers builds of ``config``, and what it calls tensors of these ``names``.

        Who asks while one is computed waits. ``folder`` is where the config lies.

        Raises:
            GateError: transformers builds none.
        """
        with self._lock:
            if (known := self._known.get((config, names))) is None:
                if len(self._known) >= _KEPT:
                    self._known.clear()
                known = self._known[config, names] = self.compute(skeleton, folder, config, names)
            return known


def skeleton(folder: Path, config: bytes, names: tuple[str, ...]) -> Skeleton:
    """As :meth:`Models.skeleton`, computed in this process."""
    with hollow_model(folder, config) as hollow:
        return hollow.skeleton(names)
