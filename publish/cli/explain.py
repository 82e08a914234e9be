"""``publish explain``."""

from __future__ import annotations

import re
from collections.abc import Sequence

import click

from publish.cards.sentences import drawn_before
from publish.cli import output
from publish.explain.answer import Answer
from publish.explain.explain import explain_one, open_any
from publish.neox.state import CPU
from publish.records.manifest import REPRODUCED
from publish.sources.runs import parse_location

_SEEDS = re.compile(r"(\d+)(?:[:-](\d+))?")
_MOST = 2**32


def _seeds(_ctx: click.Context, _param: click.Parameter, value: str | None) -> Sequence[int] | None:
    """A seed or a range of seeds, both ends included."""
    if value is None:
        return None
    found = _SEEDS.fullmatch(value)
    if found is None:
        raise click.BadParameter(f"{value!r} is neither a seed nor a range like 0:99999")
    first, last = int(found[1]), int(found[2] or found[1])
    if not first <= last < _MOST:
        raise click.BadParameter(f"{value!r} is no range of seeds below 2^32, the smaller one first")
    return range(first, last + 1)


@click.command("explain")
@click.argument("checkpoint")
@click.option("--step", type=click.IntRange(min=0), help="Which step of a run.")
@click.option("--seed", "seeds", callback=_seeds, help="Try only this seed, or a range: 0:99999.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def command(ctx: click.Context, checkpoint: str, step: int | None, seeds: Sequence[int] | None, as_json: bool) -> None:
    """Which random state made the initial weights of CHECKPOINT: recomputed, and proven value by value."""
    source, files = open_any(parse_location(checkpoint), step)
    try:
        answer = explain_one(source, files, seeds)
    finally:
        files.close()
    output.as_json(answer.document()) if as_json else click.echo(_text(answer))
    ctx.exit(0 if answer.outcome == REPRODUCED else 1)


def _text(answer: Answer) -> str:
    generator = answer.generator
    rows: list[tuple[str, object]] = [("checkpoint", answer.where), ("outcome", answer.outcome)]
    if generator is not None:
        before = "numbers drawn before" if generator.kind == CPU else "offset"
        rows += [
            ("seed", None if generator.seed is None else str(generator.seed)),
            ("generator", f"{generator.kind}, seeded with {', '.join(map(str, generator.rank_seeds))}"),
            (before, generator.preceding and generator.preceding.position),
            ("drawn before", drawn_before(answer.explanation)),
            ("threads", generator.threads),
            ("GPUs", ", ".join(generator.devices) or None),
            ("bit-equal", f"{answer.bit_equal:,} of {answer.values:,} values in {answer.tensors} tensors"),
        ]
        if answer.within_one_ulp != answer.bit_equal:
            rows.append(("within one unit", f"{answer.within_one_ulp:,} values"))
    rows.append(("stored state", answer.stored_state))
    return output.facts(rows) + "\n\n" + "\n".join(f"- {reason}" for reason in answer.reasons)
