"""``publish explain``."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click

from publish.cards.sentences import drawn_before
from publish.cli import output
from publish.explain.explain import Answer, explain_location
from publish.neox.state import CPU
from publish.records.manifest import REPRODUCED
from publish.sources.runs import parse_location
from publish.text import count

_SEEDS = re.compile(r"(\d+)(?:[:-](\d+))?")
_MOST_SEEDS = 2**32


def _seeds(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Sequence[int] | None:
    """A seed or a range of seeds, both ends included."""
    if value is None:
        return None
    found = _SEEDS.fullmatch(value)
    if found is None:
        raise click.BadParameter(f"{value!r} is neither a seed nor a range like 0:99999")
    first, last = int(found[1]), int(found[2] or found[1])
    if not first <= last < _MOST_SEEDS:
        raise click.BadParameter(f"{value!r} is not an ascending range of seeds below 2^32")
    return range(first, last + 1)


@click.command("explain")
@click.argument("location")
@click.option("--step", type=click.IntRange(min=0), help="The step, if LOCATION is a whole run.")
@click.option("--seed", "seeds", callback=_seeds, help="Try only this seed, or a range of seeds: 0:99999.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.pass_context
def command(ctx: click.Context, location: str, step: int | None, seeds: Sequence[int] | None, as_json: bool) -> None:
    """Find the seed and generator that produced a model's initial weights, and recompute every value.

    LOCATION is a checkpoint, raw GPT-NeoX or Hugging Face, in a folder or on a Hub (owner/name@revision).
    """
    answer = explain_location(parse_location(location), step, seeds)
    output.as_json(answer.document()) if as_json else click.echo(_text(answer))
    ctx.exit(0 if answer.explanation.outcome == REPRODUCED else 1)


def _text(answer: Answer) -> str:
    found, state = answer.explanation, answer.explanation.rng_state
    rows: list[tuple[str, object]] = [("checkpoint", answer.where), ("outcome", found.outcome)]
    if state is not None:
        before = "numbers drawn before" if state.generator == CPU else "offset"
        rows += [
            ("seed", None if state.seed is None else str(state.seed)),
            ("generator", f"{state.generator}, seeded with {', '.join(map(str, state.seeds))}"),
            (before, state.position),
            ("drawn before", drawn_before(found)),
            ("threads", state.threads),
            ("GPUs", ", ".join(state.devices) or None),
            ("bit-equal", f"{found.bit_equal:,} of {found.values:,} values in {count(found.tensors, 'tensor')}"),
        ]
        if found.within_one_ulp != found.bit_equal:
            rows.append(("within one unit", count(found.within_one_ulp, "value")))
    rows.append(("stored state", found.stored_state))
    return output.facts(rows) + "\n\n" + "\n".join(f"- {reason}" for reason in answer.reasons)
