"""The names under which suites publish their checkpoints: every known convention, and what it states."""

from __future__ import annotations

import pytest

from publish.audit.names import CONVENTIONS, STEPS, TOKENS, WORDS, Label, read_names
from publish.errors import ScheduleError
from publish.schedule import PYTHIA

# release, the names that it uses, their axis, and what each name states
RELEASES: dict[str, tuple[str, dict[str, Label]]] = {
    "Pythia, PolyPythias": (
        STEPS,
        {"step0": Label(0), "step1": Label(1), "step512": Label(512), "step143000": Label(143_000)},
    ),
    "OLMo 1": (STEPS, {"step1000-tokens4B": Label(1000), "step738020-tokens3095B": Label(738_020)}),
    "OLMo 2": (
        STEPS,
        {
            "stage1-step1000-tokens5B": Label(1000, "stage1"),
            "step2000-tokens9B": Label(2000, "stage1"),
            "stage2-ingredient1-step1000-tokens5B": Label(1000, "stage2-ingredient1"),
            "stage2-ingredient3-step11931-tokens50B": Label(11_931, "stage2-ingredient3"),
        },
    ),
    "OLMo 3": (
        STEPS,
        {
            "stage1-step0": Label(0, "stage1"),
            "stage1-step1413814": Label(1_413_814, "stage1"),
            "stage2-step1000": Label(1000, "stage2"),
            "stage3-step11921": Label(11_921, "stage3"),
        },
    ),
    "OLMo RLVR": (STEPS, {"step_60": Label(60), "step_360": Label(360)}),
    "DataDecide": (
        STEPS,
        {
            "step69369-seed-default": Label(69_369, seed="default"),
            "step69369-seed-small-aux-2": Label(69_369, seed="small-aux-2"),
            "step0-seed-large-aux-3": Label(0, seed="large-aux-3"),
        },
    ),
    "SmolLM3": (
        STEPS,
        {"stage1-step-40000": Label(40_000, "stage1"), "stage2-step-4200000": Label(4_200_000, "stage2")},
    ),
    "SmolLM2": (STEPS, {"step-160000": Label(160_000), "step-125000": Label(125_000)}),
    "OpenEuroLLM Prelude": (STEPS, {"iter_0124800": Label(124_800), "iter_0000200": Label(200)}),
    "FineWeb ablations": (STEPS, {"step-001000-2BT": Label(1000), "step-167000-350BT": Label(167_000)}),
    "OpenCoder": (
        STEPS,
        {"pretrain_iter_0373000": Label(373_000, "pretrain"), "anneal_iter_0023841": Label(23_841, "anneal")},
    ),
    "TinyLlama": (STEPS, {"step-480k-token-1007B": Label(480_000), "step-1431k-token-3T": Label(1_431_000)}),
    "RedPajama-INCITE": (TOKENS, {"240b_tokens": Label(240 * 10**9), "1t_tokens": Label(10**12)}),
    "BabyLM": (WORDS, {"chck_1M": Label(10**6), "chck_10M": Label(10**7), "chck_100M": Label(10**8)}),
    "HPLT": (STEPS, {"step3125": Label(3125), "step31250": Label(31_250)}),
    "LLM360 Amber": (STEPS, {"ckpt_356": Label(356), "ckpt_000": Label(0)}),
    "LLM360 K2": (STEPS, {"ckpt_12": Label(12), "ckpt_120": Label(120)}),
    "folders of transformers' Trainer": (STEPS, {"checkpoint-500": Label(500), "checkpoint-10000": Label(10_000)}),
    "commits of pico-lm": (STEPS, {"Saving HF Model -- Step 1000": Label(1000), "Saving HF Model -- Step 0": Label(0)}),
    "commits of the Trainer": (STEPS, {"Training in progress, step 500": Label(500)}),
    "repos of MultiBERTs": (
        STEPS,
        {
            "multiberts-seed_0-step_20k": Label(20_000, seed="0"),
            "multiberts-seed_24-step_2000k": Label(2_000_000, seed="24"),
        },
    ),
    "repos of TinyLlama": (STEPS, {"TinyLlama-1.1B-intermediate-step-480k-1T": Label(480_000)}),
    "folders of a GPT-NeoX run": (STEPS, {"global_step500": Label(500), "global_step143000": Label(143_000)}),
}

# how the names of a suite are made, and what they state: (name, axis, label) of a position and a number in the list
LISTS = {
    "step{p}": (STEPS, lambda p: Label(p)),
    "step{p}-tokens{b}B": (STEPS, lambda p: Label(p)),
    "stage1-step{p}-tokens{b}B": (STEPS, lambda p: Label(p, "stage1")),
    "stage2-ingredient2-step{p}-tokens{b}B": (STEPS, lambda p: Label(p, "stage2-ingredient2")),
    "stage3-step{p}": (STEPS, lambda p: Label(p, "stage3")),
    "step_{p}": (STEPS, lambda p: Label(p)),
    "step{p}-seed-small-aux-2": (STEPS, lambda p: Label(p, seed="small-aux-2")),
    "stage1-step-{p}": (STEPS, lambda p: Label(p, "stage1")),
    "step-{p}": (STEPS, lambda p: Label(p)),
    "iter_{p:07}": (STEPS, lambda p: Label(p)),
    "step-{p:06}-{b}BT": (STEPS, lambda p: Label(p)),
    "pretrain_iter_{p:07}": (STEPS, lambda p: Label(p, "pretrain")),
    "step-{p}k-token-{b}B": (STEPS, lambda p: Label(p * 1000)),
    "{p}b_tokens": (TOKENS, lambda p: Label(p * 10**9)),
    "chck_{p}M": (WORDS, lambda p: Label(p * 10**6)),
    "ckpt_{p}": (STEPS, lambda p: Label(p)),
    "checkpoint-{p}": (STEPS, lambda p: Label(p)),
    "Saving HF Model -- Step {p}": (STEPS, lambda p: Label(p)),
    "Training in progress, step {p}": (STEPS, lambda p: Label(p)),
    "multiberts-seed_4-step_{p}k": (STEPS, lambda p: Label(p * 1000, seed="4")),
    "global_step{p}": (STEPS, lambda p: Label(p)),
}
POSITIONS = {154: PYTHIA, 1490: tuple(range(0, 1_490_000, 1000))}
OTHERS = ("main", "it-SFT", "dev", "gh-pages", "refs-convert-parquet", "v1.0", "fp16", "8bit", "revert-1")


@pytest.mark.parametrize("release", RELEASES)
def test_the_names_of_a_release(release: str) -> None:
    axis, labels = RELEASES[release]
    names = read_names([*labels, *OTHERS])
    assert (names.labels, names.axis, names.malformed) == (labels, axis, ())
    assert set(names.others) == set(OTHERS) - {"main"}
    assert sum(names.conventions.values()) == len(labels)


@pytest.mark.parametrize("count", POSITIONS)
@pytest.mark.parametrize("template", LISTS)
def test_long_lists_of_names(template: str, count: int) -> None:
    axis, label = LISTS[template]
    expected = {template.format(p=p, b=p // 250): label(p) for p in POSITIONS[count]}
    names = read_names([*expected, *OTHERS])
    assert len(expected) == count
    assert (names.labels, names.axis, names.malformed) == (expected, axis, ())
    assert list(names.conventions.values()) == [count]


def test_a_suite_of_1490_branches_in_three_stages() -> None:
    expected = {f"stage1-step{step}": Label(step, "stage1") for step in range(0, 1_413_000, 1000)}
    expected |= {f"stage2-step{step}": Label(step, "stage2") for step in range(0, 48_000, 1000)}
    expected |= {f"stage3-step{step}": Label(step, "stage3") for step in range(0, 12_000, 1000)}
    assert read_names(expected).labels == expected


@pytest.mark.parametrize("convention", CONVENTIONS, ids=lambda convention: convention.example)
def test_an_example_follows_its_own_convention_alone(convention: object) -> None:
    matching = [other for other in CONVENTIONS if other.pattern.fullmatch(convention.example)]  # type: ignore[attr-defined]
    assert matching == [convention]


def test_conventions_may_be_mixed() -> None:
    names = read_names(["step0", "step1", "step-2", "iter_0000003", "main"])
    assert names.labels == {"step0": Label(0), "step1": Label(1), "step-2": Label(2), "iter_0000003": Label(3)}
    assert names.conventions == {"step1000": 2, "step-1000": 1, "iter_0001000": 1}


def test_a_name_without_a_stage_is_of_the_first_one_where_there_are_stages() -> None:
    labels = read_names(["step1000-tokens5B", "stage1-step1000-tokens5B", "stage2-ingredient1-step0-tokens0B"]).labels
    assert labels["step1000-tokens5B"] == labels["stage1-step1000-tokens5B"] == Label(1000, "stage1")


def test_names_on_another_axis_are_malformed() -> None:
    names = read_names(["240b_tokens", "280b_tokens", "step1000"])
    assert (list(names.labels), names.axis, names.malformed) == (["240b_tokens", "280b_tokens"], TOKENS, ("step1000",))


@pytest.mark.parametrize(
    "name", ["step01", "Step5", "step5x", "stage1-5", "ckpt5", "iter-3", "checkpoint_500", "step-"]
)
def test_what_looks_like_a_step_and_follows_no_convention(name: str) -> None:
    names = read_names(["step1", name])
    assert (list(names.labels), names.malformed) == (["step1"], (name,))


def test_a_pattern_replaces_the_conventions() -> None:
    assert read_names(["v007-final", "dev"], "v{step}-final").labels == {"v007-final": Label(7)}
    pattern = r"(?P<stage>\w+)/(?P<seed>\w+)/(?P<step>\d+k?)"
    assert read_names(["warm/b/3k"], pattern).labels == {"warm/b/3k": Label(3000, "warm", "b")}
    assert read_names(["at9b"], "at(?P<tokens>.+)").axis == TOKENS
    assert read_names(["step5", "x"], "x(?P<step>[0-9]+)?").labels == {}
    with pytest.raises(ScheduleError, match="'many' is not a number"):
        read_names(["at-many"], "at-(?P<step>.+)")
