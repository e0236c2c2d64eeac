"""[[venues]] as text of a config."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

_COMMENTS = {
    "quoter": "QuoterV2, for the second quote",
    "quoter_v1": "Quoter, for uniswap-python if installed",
}
_COMMENTS_WITH_TIERS = {
    "factory": "PoolManager",
    "quoter": "V4Quoter, for the second quote",
    "tiers": "fee in millionths, tick spacing; without hooks",
}
_UNTRADED_VENUES_COMMENT = (
    '# Traded with router = "rebalancer" alone, once trimtab deploy shows that it is on this chain:'
)


def venues_text(
    venues: Sequence[Mapping[str, Any]], other_venues: Sequence[Mapping[str, Any]] = ()
) -> str:
    """Return the tables of deployments, given as the config's keys and values; `other_venues`, in
    which the router of a new config does not trade, as comments.
    """
    table_lines = [line for venue in venues for line in _table_lines(venue)]
    if other_venues:
        other_lines = [line for venue in other_venues for line in _table_lines(venue)]
        table_lines += [_UNTRADED_VENUES_COMMENT, *(f"# {line}" for line in other_lines)]
    return "".join(f"{line}\n" for line in table_lines)


def _table_lines(venue: Mapping[str, Any]) -> list[str]:
    comment_by_key = _COMMENTS_WITH_TIERS if "tiers" in venue else _COMMENTS
    return [
        "[[venues]]",
        *(_line(key, value, comment_by_key.get(key)) for key, value in venue.items()),
    ]


def _line(key: str, value: Any, comment: str | None) -> str:
    return f"{key} = {json.dumps(value)}" + (f"   # {comment}" if comment else "")
