"""``publish compare``."""

from __future__ import annotations

from pathlib import Path

import click

from publish.cards.sentences import COLUMNS, COUNTS, layer_type_rows, verdict
from publish.cli import output
from publish.compare.pair import compare
from publish.compare.report import Report
from publish.compare.side import open_side
from publish.errors import StorageError
from publish.explain.explain import explained_apart
from publish.sources.runs import parse_location


@click.command("compare")
@click.argument("left")
@click.argument("right")
@click.option("--step", type=click.IntRange(min=0), help="Which step, where a side is a whole run.")
@click.option("--tensors", is_flag=True, help="List the tensors that differ too.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the table: .svg, .png or .pdf.")
@click.option("--markdown", is_flag=True, help="The table as Markdown, for a card.")
@click.option("--explain", is_flag=True, help="Recompute both initialisations, and say how their random states differ.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def command(
    left: str,
    right: str,
    step: int | None,
    tensors: bool,
    plot: Path | None,
    markdown: bool,
    explain: bool,
    as_json: bool,
) -> None:
    """Compare two models tensor by tensor, and say what they are to each other.

    LEFT and RIGHT are checkpoints, raw or Hugging Face, in a folder or on a Hub (owner/name@revision). Both are read
    once and nothing is written.
    """
    sides, places = [], (parse_location(left), parse_location(right))
    explained = explained_apart(*places, step) if explain else ()
    try:
        sides = [open_side(place, step) for place in places]
        report = Report(compare(*sides), explained)
    finally:
        for side in sides:
            side.close()
    if plot is not None:
        _draw(report, plot)
    if as_json:
        output.as_json(report.document())
    else:
        click.echo(report.markdown() if markdown else _text(report, tensors), nl=not markdown)


def _draw(report: Report, path: Path) -> None:
    from publish.plots import comparison_plot

    sides = (f"left: {report.comparison.left.where}", f"right: {report.comparison.right.where}")
    content = comparison_plot(report.record, verdict(report.record), sides, path.suffix.lower())
    try:
        path.write_bytes(content)
    except OSError as error:
        raise StorageError(f"cannot write: {error.strerror}", path, "name another file") from error


def _text(report: Report, tensors: bool) -> str:
    comparison, record = report.comparison, report.record
    numbers = [(name, getattr(record, name)) for name in COUNTS]
    head = output.facts(
        [
            ("left", f"{comparison.left.where} ({comparison.left.format})"),
            ("right", f"{comparison.right.where} ({comparison.right.format})"),
            *((name.replace("_", " "), number) for name, number in numbers if number or name == "tensors"),
        ]
    )
    parts = [head, output.table([column.lower() for column in COLUMNS], layer_type_rows(record))]
    if tensors:
        parts.append(_tensors(report))
    reasons = "\n".join(f"  - {reason}" for reason in report.reasons)
    return "\n\n".join([*parts, f"{verdict(record)}\n{reasons}"])


def _tensors(report: Report) -> str:
    rows = [
        (
            tensor.name,
            tensor.outcome,
            *(
                ("", "", "")
                if (f := tensor.statistics) is None
                else map(_figure, (f.max_abs_diff, f.relative_l2, f.cosine))
            ),
        )
        for tensor in report.comparison.tensors
        if tensor.outcome != "bitwise-equal"
    ]
    return output.table(("tensor", "outcome", "max |difference|", "relative L2", "cosine"), rows)


def _figure(value: float) -> str:
    return f"{value:.6g}"
