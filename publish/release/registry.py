"""No two steps hold the same weights unless the release says so, and what it says has to hold, before a push."""

from __future__ import annotations

import threading

from publish.errors import GateError
from publish.lineage.repeats import Repeats
from publish.lineage.sketch import StepSketch
from publish.release_file import Release


class Registry:
    """The weights seen in this run, by digest. Safe to share between threads."""

    def __init__(self, release: Release) -> None:
        self._release = release
        self._lock = threading.Lock()
        self._steps: dict[str, list[int]] = {}
        self._repeats = Repeats(release)

    def note(self, step: int, weights: tuple[str, ...]) -> None:
        """Remember the weight files of a step that is published already."""
        with self._lock:
            for digest in weights:
                self._steps.setdefault(digest, []).append(step)

    def check(self, step: int, fingerprint: str, weights: tuple[str, ...], sketch: StepSketch) -> None:
        """Note the weights of ``step``.

        Raises:
            GateError: another step has the same weights, shares a weight file or matrices that should have changed,
                and the release does not say so; or it says so and they differ.
        """
        with self._lock:
            for digest in (fingerprint, *weights):
                self._check_file(step, digest, whole=digest == fingerprint or len(weights) == 1)
            for finding in self._repeats.findings(step, sketch):
                raise GateError(finding.detail, self._release.source, finding.fix)
            self._repeats.add(step, sketch)

    def _check_file(self, step: int, digest: str, *, whole: bool) -> None:
        others = self._steps.setdefault(digest, [])
        for other in others:
            if other != step and not self._release.expected_equal(step, other):
                what = "holds the same weights as" if whole else "shares a weight file with"
                raise GateError(
                    f"step {step:,} {what} step {other:,}",
                    self._release.source,
                    "one of them is another checkpoint's; if they are equal, declare it under expect: "
                    f"- {{equal: [{other}, {step}], because: ...}}",
                )
        others.append(step)
