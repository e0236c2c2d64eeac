"""`trimtab whatif` says when a portfolio has more assets than are easy to manage."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.cli.tools import CommandResult


@pytest.mark.parametrize(
    ("count", "reason"),
    [
        (6, ""),
        (7, "7 assets: 4 to 6 are easier to manage and cheaper to rebalance"),
        (12, "12 assets: 4 to 6 are easier to manage and cheaper to rebalance"),
        (13, "13 assets are more than 12: 4 to 6 are easier to manage and cheaper to rebalance"),
    ],
)
def test_more_than_six_assets_are_said_to_be_harder(bare: Callable[..., CommandResult], count: int, reason: str) -> None:
    target = ",".join(f"A{number}={1 if number else 101 - count}" for number in range(count))
    value = ",".join(f"A{number}=100" for number in range(count))
    result = bare("whatif", "--target", target, "--value", value, "--json")
    assert result.code == 0, result.why
    assert result.json["warnings"] == ([reason] if reason else [])
    assert reason in bare("whatif", "--target", target, "--value", value).err
