"""What all cards of one run share: its config and its sizes. Recorded on ``main``, so that a card needs no source."""

from __future__ import annotations

from dataclasses import dataclass

from publish.card.config import ConfigFacts
from publish.card.details import Sizes, details_of
from publish.card.fact import Fact


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The run as configured and as measured; ``deviations`` are what the conversion had to state."""

    config: ConfigFacts
    sizes: Sizes
    deviations: tuple[str, ...] = ()

    def details(self, last_step: int) -> tuple[Fact, ...]:
        """The details table of a run that ends at ``last_step``."""
        return details_of(self.config, self.sizes, last_step=last_step)
