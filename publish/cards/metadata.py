"""A card's front matter, by huggingface_hub's own ``ModelCardData``, and what the Hub asks of it. No key is empty.

huggingface_hub is imported when a card is written, so that importing this module stays light.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from publish.errors import CardError
from publish.release_file import CardMetadata

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData


# fmt: off
LICENSES = frozenset({
    "apache-2.0", "mit", "openrail", "bigscience-openrail-m", "creativeml-openrail-m", "bigscience-bloom-rail-1.0",
    "bigcode-openrail-m", "afl-3.0", "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause",
    "bsd-3-clause-clear", "c-uda", "cc", "cc0-1.0", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0",
    "cc-by-sa-3.0", "cc-by-sa-4.0", "cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-3.0",
    "cc-by-nc-nd-4.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0", "cdla-sharing-1.0",
    "cdla-permissive-1.0", "cdla-permissive-2.0", "wtfpl", "ecl-2.0", "epl-1.0", "epl-2.0", "etalab-2.0", "eupl-1.1",
    "eupl-1.2", "agpl-3.0", "gfdl", "gpl", "gpl-2.0", "gpl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0", "isc", "h-research",
    "intel-research", "lppl-1.3c", "ms-pl", "apple-ascl", "apple-amlr", "mpl-2.0", "odc-by", "odbl", "openmdw-1.0",
    "openrail++", "osl-3.0", "postgresql", "ofl-1.1", "ncsa", "unlicense", "zlib", "pddl", "lgpl-lr",
    "deepfloyd-if-license", "fair-noncommercial-research-license", "llama2", "llama3", "llama3.1", "llama3.2",
    "llama3.3", "llama4", "grok2-community", "gemma", "unknown", "other",
})
# fmt: on
RELATIONS = ("adapter", "finetune", "merge", "quantized")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*|code|multilingual")
_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_TEXTS = ("pipeline_tag", "library_name", "license_name", "license_link", "inference_provider", "thumbnail")
_LISTS = ("tags", "datasets", "metrics", "base_model", "language", "license")


def check_metadata(data: Mapping[str, Any], kind: str = "model") -> tuple[list[str], list[str]]:
    """Errors, for which the Hub refuses a commit, and warnings, which it only shows.

    ``kind`` is model, dataset or space; most is common to them.
    """
    errors = [problem for name in _LISTS if name in data for problem in _list_problems(name, data[name])]
    errors += [f'"{name}" must be a string' for name in _TEXTS if name in data and not _is_text(data[name])]
    if "model-index" in data:
        errors += _index_problems(data["model-index"])
    if data.get("base_model_relation", "finetune") not in RELATIONS:
        errors.append(f'"base_model_relation" must be one of [{", ".join(RELATIONS)}]')
    warnings = []
    if kind != "space" and "license" not in data:
        warnings.append('"license" is missing')
    if data.get("license") == "other" and "license_name" not in data:
        warnings.append('"license_name" is recommended when "license" is other')
    return errors, warnings


def _list_problems(name: str, value: Any) -> list[str]:
    """A field that may be one text or a list of texts."""
    values = value if isinstance(value, list) else [value]
    if name == "tags" and not isinstance(value, list):
        return ['"tags" must be an array']
    if value is None or not values:
        return [f'"{name}" must not be empty'] if value is None else []
    checks: dict[str, tuple[Callable[[str], Any], str]] = {
        "license": (lambda text: text in LICENSES, f"must be one of [{', '.join(sorted(LICENSES))}]"),
        "language": (_LANGUAGE.fullmatch, "must be ISO 639 codes, such as en"),
        "datasets": (_ID.fullmatch, "must be ids of datasets on the Hub"),
        "base_model": (_ID.fullmatch, "must be ids of models on the Hub"),
    }
    check, text = checks.get(name, (lambda text: text.strip(), "must not be empty"))
    problems = []
    for index, item in enumerate(values):
        where = f'"{name}[{index}]"' if isinstance(value, list) else f'"{name}"'
        if not _is_text(item):
            problems.append(f"{where} must be a string")
        elif not check(item):
            problems.append(f"{where} {text}")
    return problems


def _index_problems(index: Any) -> list[str]:
    """``model-index``: models with results; a result has a task, a dataset, and metrics with type and value."""
    if not isinstance(index, list):
        return ['"model-index" must be an array']
    problems = []
    for i, model in enumerate(index):
        where = f"model-index[{i}]"
        if not isinstance(model, dict) or not _is_text(model.get("name")):
            problems.append(f'"{where}.name" is required')
            continue
        results = model.get("results")
        if not isinstance(results, list):
            problems.append(f'"{where}.results" must be an array')
            continue
        for j, result in enumerate(results):
            problems += _result_problems(f"{where}.results[{j}]", result)
    return problems


def _result_problems(where: str, result: Any) -> list[str]:
    if not isinstance(result, dict):
        return [f'"{where}" must be a mapping']
    problems = []
    for part, needed in (("task", ("type",)), ("dataset", ("type", "name"))):
        inside = result.get(part)
        if not isinstance(inside, dict):
            problems.append(f'"{where}.{part}" is required')
        else:
            problems += [f'"{where}.{part}.{key}" is required' for key in needed if not _is_text(inside.get(key))]
    metrics = result.get("metrics")
    if not isinstance(metrics, list) or not metrics:
        return [*problems, f'"{where}.metrics" is required']
    for number, metric in enumerate(metrics):
        for key in ("type", "value"):
            if not isinstance(metric, dict) or metric.get(key) is None:
                problems.append(f'"{where}.metrics[{number}].{key}" is required')
    return problems


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


LIBRARY, PIPELINE = "transformers", "text-generation"


def front_matter(card: CardMetadata, repo: str) -> str:
    """The YAML block at the head of a card of ``repo``.

    Raises:
        CardError: the license is missing.
    """
    return f"---\n{_data(card, repo).to_yaml(line_break=chr(10))}\n---\n"


def check(card: CardMetadata, repo: str) -> None:
    """The metadata against the Hub's own rules, offline.

    Raises:
        CardError: the Hub would refuse it, or warn.
    """
    errors, warnings = check_metadata(dict(_data(card, repo).to_dict()))  # type: ignore[no-untyped-call]
    if errors or warnings:
        what = f"the Hub would refuse the card's metadata: {'; '.join([*errors, *warnings])}"
        raise CardError(what, repo, "correct card: in the release file")


def _data(card: CardMetadata, repo: str) -> ModelCardData:
    from huggingface_hub import EvalResult, ModelCardData

    if not card.license.strip():
        raise CardError("the card has no license", repo, "write card: license: in the release file")
    results = [
        EvalResult(
            task_type=result.task,
            dataset_type=result.dataset,
            dataset_name=result.dataset,
            metric_type=result.metric,
            metric_value=result.value,
        )
        for result in card.results
    ]
    return ModelCardData(
        license=card.license,
        language=_filled(card.language),
        library_name=LIBRARY,
        pipeline_tag=PIPELINE,
        tags=_filled(card.tags),
        datasets=_filled(card.datasets),
        base_model=card.base_model or None,
        base_model_relation=card.base_model_relation or None,
        license_name=card.license_name or None,
        license_link=card.license_link or None,
        eval_results=results or None,
        model_name=repo.rpartition("/")[2] if results else None,
    )


def _filled(values: tuple[str, ...]) -> list[str] | None:
    """The values that are not blank, without duplicates; None if all are, so that the key is left out."""
    return list(dict.fromkeys(value for value in values if value.strip())) or None
