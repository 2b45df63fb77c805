"""Settings of a variant as they reach the command line."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from penstock.compare import Variant, overrides, run_variant
from penstock.compare.variants import VariantFailed
from penstock.study import settings_of

names = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)
values = st.recursive(
    st.booleans() | st.integers(-(2**40), 2**40) | st.floats(-1e6, 1e6) | st.text('abc "\\é/=𝜈\n', max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, min_size=1, max_size=3),
    max_leaves=4,
).filter(lambda v: not isinstance(v, list) or not any(isinstance(x, dict | list) for x in v))


def plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(plain, value.values()))
    return not isinstance(value, list) or not any(isinstance(x, dict | list) for x in value)


@hypothesis_settings(suppress_health_check=[HealthCheck.too_slow])
@given(settings=st.dictionaries(names.map("table.{}".format), values.filter(plain), max_size=4))
def test_settings_survive_the_command_line(settings: dict[str, Any]) -> None:
    arguments = overrides(settings)
    assert arguments[::2] == ["--set"] * (len(arguments) // 2)
    assert settings_of(arguments[1::2]) == settings
    for text in arguments[1::2]:
        tomllib.loads(text)


def test_a_run_that_fails_says_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(VariantFailed, match=r"exit code 2:\n.*missing\.toml: cannot read the study file"):
        run_variant(tmp_path / "missing.toml", Variant("x", "online", 1), tmp_path, {})
