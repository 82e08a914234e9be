"""``publish compare``."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import click

from publish.cards.sentences import COUNTS, layer_type_table, verdict
from publish.cli import output
from publish.compare.model import open_model
from publish.compare.pair import compare
from publish.compare.report import Report
from publish.errors import StorageError
from publish.explain.explain import explain_location
from publish.sources.runs import parse_location


@click.command("compare")
@click.argument("left")
@click.argument("right")
@click.option("--step", type=click.IntRange(min=0), help="The step to compare, if LEFT or RIGHT is a whole run.")
@click.option("--tensors", is_flag=True, help="Also list the tensors that differ.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Plot the table: .svg, .png or .pdf.")
@click.option("--markdown", is_flag=True, help="Print the table as Markdown, for a card.")
@click.option("--explain", is_flag=True, help="Recompute the initial weights of both models from their random states.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
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
    """Compare two models tensor by tensor, and say how they are related.

    LEFT and RIGHT are checkpoints, raw GPT-NeoX or Hugging Face, in a folder or on a Hub (owner/name@revision). Both
    are read once, and nothing is written.
    """
    locations = (parse_location(left), parse_location(right))
    explained = tuple(explain_location(location, step) for location in locations) if explain else ()
    with ExitStack() as stack:
        models = [stack.enter_context(closing(open_model(location, step))) for location in locations]
        report = Report(compare(*models), explained)
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
    header, rows = layer_type_table(record)
    parts = [head, output.table([column.lower() for column in header], rows)]
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
