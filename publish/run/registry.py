"""No two steps hold the same weights unless the release says so, and what it says has to hold."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from publish.errors import GateError
from publish.hub.checkpoints import CheckpointRecord
from publish.release import Release


class Registry:
    """The weights seen in this run, by digest. Safe to share between threads."""

    def __init__(self, release: Release) -> None:
        self._release = release
        self._lock = threading.Lock()
        self._steps: dict[str, list[int]] = {}

    def note(self, step: int, weights: tuple[str, ...]) -> None:
        """Remember the weight files of a step that is published already."""
        with self._lock:
            for digest in weights:
                self._steps.setdefault(digest, []).append(step)

    def check(self, step: int, fingerprint: str, weights: tuple[str, ...]) -> None:
        """Note the weights of ``step``.

        Raises:
            GateError: another step has the same weights, or shares a weight file, and the release does not say so.
        """
        with self._lock:
            for digest in (fingerprint, *weights):
                others = self._steps.setdefault(digest, [])
                for other in others:
                    if other != step and not self._release.expected_equal(step, other):
                        raise GateError(
                            f"step {step:,} holds the same weights as step {other:,}",
                            self._release.source,
                            "one of them is another checkpoint's; if they are equal, declare it under expect: "
                            f"- {{equal: [{other}, {step}], because: ...}}",
                        )
                others.append(step)

    def check_expected(self, records: Mapping[int, CheckpointRecord]) -> None:
        """Declared equalities that do not hold.

        Raises:
            GateError: steps that the release declares equal differ.
        """
        for each in self._release.expect:
            weights = {records[step].weights for step in each.steps if step in records}
            if len(weights) > 1:
                raise GateError(
                    f"steps {', '.join(map(str, each.steps))} are declared equal and differ",
                    self._release.where,
                    "take the line out of expect, or find out which checkpoint is wrong",
                )
