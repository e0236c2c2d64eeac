"""Every share of the config is written with its unit, since 0.5 may mean a half or half a percent (T21)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, get_args

import pytest
from pydantic import BeforeValidator, TypeAdapter, ValidationError

import agent.config.schema
import agent.config.writing.profile  # noqa: F401  # every table of the config is known once these are loaded
from agent.config.load import parse_config
from agent.config.tables.fields import ConfigTable, Share, ShareOrOff, Weight
from agent.config.tables.triggers import parse_band
from agent.errors import ConfigError
from agent.units import parse_share_with_unit_bps
from tests.support.configs.samples import config_text

WITHOUT = ["0.5", "0,5", "0.5 percent", "0,5%", "0.5 %%", 0.5, 1, 0, "5", "half", "", True, None]
WEIGHTS = {"AssetTable.target", "ProfileAssetTable.target", "StrategyTable.weights"}
"""What has to sum to 100 %, where a wrong unit never passes (R1.1)."""


def _tables(table: type[ConfigTable] = ConfigTable) -> Iterator[type[ConfigTable]]:
    yield table
    for inner in table.__subclasses__():
        if inner.__module__.startswith("agent.config."):  # those of agent.research have the same keys
            yield from _tables(inner)


def _validators(annotation: Any) -> Iterator[Any]:
    yield from (validator for validator in getattr(annotation, "__metadata__", ()) if isinstance(validator, BeforeValidator))
    for inner in get_args(annotation):
        yield from _validators(inner)


def _fields_of(*types: Any) -> dict[str, Any]:
    """Annotation of each field of any table that is of one of these types, by "Table.key"."""
    validator_ids = {id(validator) for kind in types for validator in _validators(kind)}
    fields_by_name = {}
    for table in _tables():
        for name, field in table.model_fields.items():
            own = [*field.metadata, *_validators(field.annotation)]
            if any(id(field) in validator_ids for field in own):
                fields_by_name[f"{table.__name__}.{name}"] = next(field for field in own if id(field) in validator_ids)
    return fields_by_name


SHARES = _fields_of(Share, ShareOrOff)


def test_only_weights_may_be_written_without_a_unit() -> None:
    assert set(_fields_of(Weight)) == WEIGHTS
    assert {
        "LimitsTable.slippage",
        "threshold_trigger.relative",
        "drawdown_trigger.fall",
        "StrategyTable.share",
        "PaceTable.budget",
        "LpTable.volatility",
    } <= {*SHARES}
    assert len(SHARES) > 40


@pytest.mark.parametrize("key", sorted(SHARES))
def test_every_share_key_needs_its_unit(key: str) -> None:
    read = TypeAdapter(Annotated[int, SHARES[key]])
    for value in WITHOUT:
        with pytest.raises(ValidationError, match="write"):
            read.validate_python(value)
    assert read.validate_python("0.5%") == read.validate_python("50bps") == read.validate_python(" 0.50 %") == 50
    assert read.validate_python("1.5x") == 15_000


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        pytest.param(
            'slippage = "0.3%"',
            'slippage = "0.5"',
            'limits.slippage: \'0.5\' has no unit; write "0.5%" or "50bps"',
            id="share as text without unit",
        ),
        pytest.param(
            'slippage = "0.3%"', "slippage = 0.5", 'limits.slippage: 0.5 has no unit; write "0.5%" or "50bps"', id="share as a number"
        ),
        pytest.param(
            'slippage = "0.3%"',
            'slippage = "0,5"',
            'limits.slippage: \'0,5\' has no unit; write "0.5%" or "50bps"',
            id="decimal comma without unit",
        ),
        pytest.param(
            'slippage = "0.3%"',
            'slippage = "0,5%"',
            'limits.slippage: \'0,5%\' is not a share; write "0.5%" or "50bps"',
            id="decimal comma",
        ),
        pytest.param(
            'turnover = "30%"',
            'turnover = "30 percent"',
            'limits.turnover: \'30 percent\' is not a share; write "30%" or "3000bps"',
            id="percent as a word",
        ),
        pytest.param(
            'kind = "threshold", relative = "10%"',
            'kind = "threshold", relative = "0.1"',
            'policy.trigger.relative: \'0.1\' has no unit; write "0.1%" or "10bps"',
            id="band without unit",
        ),
        pytest.param('volatility = "60%"', 'volatility = "0.6"', "lp.volatility: '0.6' has no unit", id="volatility without unit"),
        pytest.param('jitter = "10%" ', "jitter = 0.1 ", "policy.jitter: 0.1 has no unit", id="jitter without unit"),
        pytest.param('reserve = "0" ', 'reserve = "0"\nband = "0.1rel" ', "band: '0.1' has no unit", id="asset band without unit"),
    ],
)
def test_the_error_names_key_value_and_what_to_write(old: str, new: str, reason: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(config_text((old, new)))
    assert reason in caught.value.message


@pytest.mark.parametrize(
    ("value", "bps"),
    [("0.5%", 50), ("50bps", 50), ("50 bps", 50), (".5%", 50), ("1x", 10_000), ("1.5x", 15_000), ("0%", 0), ("250%", 25_000)],
)
def test_a_share_with_its_unit_is_read_exactly(value: str, bps: int) -> None:
    assert parse_share_with_unit_bps(value, "limits.slippage") == bps


def test_what_is_finer_than_a_basis_point_or_negative_is_refused() -> None:
    for value, why in (("0.005%", "finer"), ("-1%", "negative"), (-0.5, "negative"), (float("nan"), "not a share"), (1e300, "not a share")):
        with pytest.raises(ConfigError, match=why):
            parse_share_with_unit_bps(value, "limits.slippage")


def test_a_target_weight_may_still_be_a_fraction() -> None:
    assert [asset.target for asset in parse_config(config_text(('target = "50%"', "target = 0.5"))).portfolio.assets] == [5_000, 5_000]
    assert parse_band("10%rel", "--band").relative_bps == 1_000
