"""Several suites at once, and samples of their weights."""

from __future__ import annotations

import numpy as np

from publish.records.findings import AuditReport
from publish.rehearsal.server import RehearsalHub
from tests.audit.conftest import Audit
from tests.audit.suites import publish_suite, safetensors, single, tensors_at

STEPS = (0, 1, 2, 512, 1000, 2000)
SEEDS = tuple(f"lab/pythia-160m-weight-seed{seed}" for seed in range(1, 5))


def kinds(report: AuditReport) -> list[tuple[str, tuple[int, ...], str]]:
    return sorted((finding.kind, finding.steps, finding.repo) for finding in report.findings)


def test_pythia_203_four_repos_equal_at_step_1_up_to_the_sign_of_zero(hub: RehearsalHub, audit: Audit) -> None:
    """Weight seeds whose step 0 is of another run than their later steps, which are one model."""
    for number, repo in enumerate(SEEDS):
        suite = publish_suite(hub.root, repo, STEPS, seed=number)
        for step in STEPS[1:]:
            same = tensors_at(step, seed=7)
            bias = same["gpt_neox.layers.0.input_layernorm.bias"]
            if step == 1:
                bias[:] = 0
                bias[number] = -0.0
            else:
                bias[number] += np.float16(0.5)
            suite.put(f"step{step}", single(same))
        suite.put("main", suite.weights("step2000"))
    plain = audit(*SEEDS)
    assert plain.ok, [finding.detail for finding in plain.findings]
    report = audit(*SEEDS, deep=(0, 1))
    assert kinds(report) == sorted(
        [
            ("duplicate-weights", (1,), ", ".join(SEEDS)),
            *(("not-as-recorded", (0,), repo) for repo in SEEDS),
        ]
    )
    equal = next(finding for finding in report.findings if finding.kind == "duplicate-weights")
    assert "equal up to the sign of zero" in equal.detail
    assert {item.repo for item in equal.evidence} == set(SEEDS)
    assert len({item.sha256 for item in equal.evidence}) == 4
    assert "step0 is not of the same run as step1 and step2" in report.findings[-1].detail


def test_seeds_that_are_copies_of_each_other(hub: RehearsalHub, audit: Audit) -> None:
    for repo, seed in zip(SEEDS[:3], (1, 1, 2), strict=True):
        publish_suite(hub.root, repo, STEPS, seed=seed)
    assert kinds(audit(*SEEDS[:3])) == [("duplicate-weights", STEPS, ", ".join(SEEDS[:2]))]


def test_runs_that_differ_in_their_data_alone_may_start_from_the_same_weights(hub: RehearsalHub, audit: Audit) -> None:
    repos = [f"lab/tiny-data-seed{seed}" for seed in (1, 2)]
    for number, repo in enumerate(repos):
        suite = publish_suite(hub.root, repo, STEPS, seed=3 + number)
        for step in (0, 1):
            suite.put(f"step{step}", single(tensors_at(0, seed=2)))
    assert audit(*repos).ok


def test_a_model_saved_again_is_found_by_sampling(hub: RehearsalHub, audit: Audit) -> None:
    """Another file with the same values: only the digests differ."""
    suite = publish_suite(hub.root, "lab/a", STEPS)
    again = safetensors(tensors_at(512), {"format": "pt", "saved": "again"})
    suite.put("step1000", {"model.safetensors": again})
    assert audit("lab/a").ok
    report = audit("lab/a", deep=(1000,))
    assert kinds(report) == [("duplicate-weights", (512, 1000), "lab/a")]
    assert "are equal" in report.findings[0].detail


def test_a_model_that_hardly_changed_in_a_thousand_steps(hub: RehearsalHub, audit: Audit) -> None:
    suite = publish_suite(hub.root, "lab/a", STEPS)
    nearly = tensors_at(1000)
    nearly["embed_out.weight"][0, 0] += np.float16(1e-4)
    suite.put("step2000", single(nearly))
    suite.put("main", single(nearly))
    assert kinds(audit("lab/a", deep=(2000,))) == [("duplicate-weights", (1000, 2000), "lab/a")]


def test_sampling_a_clean_suite_finds_nothing(hub: RehearsalHub, audit: Audit) -> None:
    publish_suite(hub.root, "lab/a", STEPS)
    publish_suite(hub.root, "lab/b", STEPS, seed=1)
    report = audit("lab/a", "lab/b", deep=STEPS)
    assert report.ok, report.findings
    again = audit("lab/a", "lab/b", deep=STEPS)
    assert (again.requests, again.weight_bytes) == (2, 0)


def test_models_with_other_tensor_names(hub: RehearsalHub, audit: Audit) -> None:
    """The largest matrix is sampled instead of embeddings; vectors alone are equal at the start of any two runs."""
    for seed, repo in enumerate(("lab/a", "lab/b")):
        suite = publish_suite(hub.root, repo, STEPS, seed=seed)
        for step in STEPS:
            rng = np.random.default_rng((seed, step if step < 512 else 512))
            renamed = {"w": rng.normal(size=(40, 8)).astype(np.float32), "norm": np.ones(8, np.float32)}
            suite.put(f"step{step}", single(renamed if step != 2 else {"norm": renamed["norm"]}))
        suite.put("main", suite.weights("step2000"))
    found = kinds(audit("lab/a", "lab/b", deep=(0, 1)))
    assert [kind for kind, steps, _ in found if kind == "duplicate-weights" and steps == (0,)] == []
    repeated = [finding for finding in found if finding[1] == (512, 1000, 2000)]
    assert repeated == [("duplicate-weights", (512, 1000, 2000), repo) for repo in ("lab/a", "lab/b")]
