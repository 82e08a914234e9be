"""A figure and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of a table: what, its value, and where the value comes from. ``literal``: shown as code."""

    name: str
    value: str
    source: str
    literal: bool = False
