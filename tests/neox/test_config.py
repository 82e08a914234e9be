"""Training configs: what is read, and what is refused."""

from __future__ import annotations

import pytest

from publish.errors import ConfigError
from publish.neox.config import HARMLESS, MAPPED, REFUSED, check_options, load, merge


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_mup": True}, "use_mup: True cannot be converted: muP scales"),
        ({"num_layrs": 6}, "unknown option num_layrs"),
    ],
)
def test_an_option_that_is_refused_or_unknown_is_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_options(options, "model.yml")


def test_every_option_is_in_one_table() -> None:
    check_options({"use_mup": False, "num_layers": 6, "wandb_team": "lab"}, "model.yml")
    assert not MAPPED.keys() & HARMLESS.keys()
    assert not REFUSED.keys() & (MAPPED.keys() | HARMLESS.keys())


def test_files_that_contradict_each_other_are_named() -> None:
    files = {"a.yml": b"num-layers: 6\nseed: 1\n", "b.yml": b"num_layers: 6\nhidden-size: 1e3\n"}
    assert merge(files, "configs") == {"num_layers": 6, "seed": 1, "hidden_size": 1000.0}
    with pytest.raises(ConfigError, match=r"seed is 1 in a\.yml and 2 in c\.yml"):
        merge(files | {"c.yml": b"seed: 2\n"}, "configs")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a: &a [x, x]\nb: &b [*a, *a]\n", "aliases are not used"),
        (b"[" * 20_000, "not valid YAML"),
        (b"a: 1\n" * 100_000, "500,000 bytes are too many for a config"),
        (b"a: !!python/object/apply:os.system [id]\n", "could not determine a constructor"),
        (b"num-layers: 6\nnum_layers: 7\n", "num_layers is given twice"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (b"- 1\n", "expected a mapping of options"),
        (b"a: " + b"9" * 10_000, "not valid YAML"),
    ],
)
def test_configs_ask_for_no_endless_work(text: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(text, "model.yml")
