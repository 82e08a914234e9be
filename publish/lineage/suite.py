"""A suite as a whole: no step repeats another, none is out of line, and what the release declares is so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from publish.lineage.order import Course, course_findings
from publish.lineage.repeats import JUMP, OUT_OF_ORDER, LineageFinding, Suite, repeats
from publish.records.gates import Gate, failed, passed, skipped
from publish.release_file import Release
from publish.text import some

REPEATS, LINEAGE = "repeats", "lineage"


@dataclass(frozen=True)
class Lineage:
    """What was found in a suite; ``figures`` are the distances of its course."""

    findings: tuple[LineageFinding, ...]
    course: Course

    def gates(self) -> tuple[Gate, Gate]:
        """The findings as two gates: equal weights, and the course from step to step."""
        course = [each for each in self.findings if each.kind in (OUT_OF_ORDER, JUMP)]
        equal = [each for each in self.findings if each not in course]
        steps = self.course.steps
        if len(steps) < 2:
            return skipped(REPEATS, "one step alone"), skipped(LINEAGE, "one step alone")
        figures = {
            "steps": len(steps),
            "findings": len(course),
            "largest_distance_between_neighbours": max(self.course.moved),
            "distance_from_first_to_last": self.course.distance(0, -1),
        }
        return (
            _gate(REPEATS, equal, f"{len(steps)} steps, none with another's weights but as declared", len(steps)),
            failed(LINEAGE, _said(course), **figures)
            if course
            else passed(LINEAGE, f"each of {len(steps)} steps lies between its neighbours, without a jump", **figures),
        )


def _gate(name: str, found: list[LineageFinding], fine: str, steps: int) -> Gate:
    figures = {"steps": steps, "findings": len(found)}
    return failed(name, _said(found), **figures) if found else passed(name, fine, **figures)


def _said(found: list[LineageFinding], most: int = 3) -> str:
    return some((each.detail for each in found), most, "; ")


def trace(suite: Suite, release: Release) -> Lineage:
    """Every finding of a suite that the release does not declare, by the steps' sketches alone."""
    ordered = dict(sorted(suite.items()))
    course = Course(ordered)
    return Lineage(tuple(_findings(ordered, course, release)), course)


def _findings(suite: Suite, course: Course, release: Release) -> Iterator[LineageFinding]:
    yield from repeats(suite, release)
    for each in course_findings(course):
        if not any(release.expected_jump(step) for step in each.steps):
            yield each
