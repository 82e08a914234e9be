"""Metadata: what a release file says arrives in the front matter, and what the Hub would refuse is refused first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml

from publish.cards.metadata import check, front_matter
from publish.cards.render import render_suite
from publish.errors import CardError
from publish.rehearsal.front_matter import validate_card
from publish.release_file import parse_release
from tests.cards import samples

RELEASE = """\
source: runs/tiny
target: lab/tiny
card:
  title: Tiny
  license: other
  license_name: lab-terms
  license_link: https://lab.example/terms
  citation: |
    @misc{tiny, title={Tiny}}
  base_model: EleutherAI/pythia-14m
  base_model_relation: finetune
  errata: ["step512 was replaced."]
  results:
    - {task: text-generation, dataset: EleutherAI/lambada_openai, metric: acc, value: 0.25}
"""


def test_every_key_of_the_release_file_arrives() -> None:
    release = parse_release(RELEASE, "release.yaml")
    check(release.card, "lab/tiny")
    assert yaml.safe_load(front_matter(release.card, "lab/tiny").strip("-\n")) == {
        "base_model": "EleutherAI/pythia-14m",
        "base_model_relation": "finetune",
        "language": ["en"],
        "library_name": "transformers",
        "license": "other",
        "license_link": "https://lab.example/terms",
        "license_name": "lab-terms",
        "pipeline_tag": "text-generation",
        "model-index": [
            {
                "name": "tiny",
                "results": [
                    {
                        "dataset": {"name": "EleutherAI/lambada_openai", "type": "EleutherAI/lambada_openai"},
                        "metrics": [{"type": "acc", "value": 0.25}],
                        "task": {"type": "text-generation"},
                    }
                ],
            }
        ],
    }
    card = render_suite(samples.suite(release=release))
    assert validate_card(card) == ([], [])
    assert "```bibtex\n@misc{tiny, title={Tiny}}\n```" in card
    assert "- step512 was replaced." in card
    assert "| EleutherAI/lambada_openai | text-generation | acc | 0.25 |" in card
    assert "[lab-terms](https://lab.example/terms)" in card


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"license": "apache"}, '"license" must be one of'),
        ({"license": "other", "license_name": None}, '"license_name" is recommended'),
        ({"language": ("English",)}, "ISO 639"),
        ({"datasets": ("the Pile",)}, "ids of datasets"),
        ({"base_model": "a b"}, "ids of models"),
        ({"base_model_relation": "child"}, "adapter, finetune, merge, quantized"),
        ({"license": " "}, "no license"),
    ],
)
def test_what_the_hub_would_refuse_or_warn_of_is_an_error(change: dict[str, Any], said: str) -> None:
    with pytest.raises(CardError) as caught:
        check(replace(samples.CARD, **change), samples.REPO)
    assert said in caught.value.what
