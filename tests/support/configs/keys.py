"""Configs of every kind, and the places of their keys."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

from tests.support.configs.liquidity import V2, V3, with_positions
from tests.support.configs.lp_targets import V3_TARGET, config_with_targets
from tests.support.configs.samples import config_text
from tests.support.configs.zones import config_with_zone

HYBRID = ('trigger = { kind = "threshold", relative = "10%" }', 'trigger = { kind = "hybrid", absolute = "5%", every = "1d" }')
CRON = ('trigger = { kind = "threshold", relative = "10%" }', 'trigger = { kind = "time", cron = "0 8 * * 1", timezone = "UTC" }')
CAPS = """
[portfolio.weights]
kind = "market_cap"
every = "7d"
max_age = "2d"
keep = "14d"
churn = "1%"
until_chosen = "wait"
cap = "60%"
limits = { WETH = { min = "10%", max = "50%" } }
supplies = "supplies.csv"

[reference]"""
CHOSEN = ("\n[reference]", CAPS)
WRITTEN = (
    config_text(),
    config_with_zone(),
    with_positions(V3, V2),
    config_with_targets(V3_TARGET),
    config_text(HYBRID),
    config_text(CRON),
    config_text(CHOSEN),
)
BASES = [tomllib.loads(base) for base in WRITTEN]
Path_ = tuple[str | int, ...]


def places(document: Any, at: Path_ = ()) -> Iterator[Path_]:
    """Every key and list entry of a document."""
    children = document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    for key, value in children:
        yield (*at, key)
        yield from places(value, (*at, key))


PLACES = [(base, place) for base in BASES for place in places(base)]
