"""[[venues]] as text of a config."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

_COMMENTS = {
    "quoter": "QuoterV2, for the second quote",
    "quoter_v1": "Quoter, for uniswap-python if installed",
}
_OTHER_VENUES = (
    '# Traded with router = "rebalancer" alone, once trimtab deploy shows that it is on this chain:'
)


def venues_text(
    venues: Sequence[Mapping[str, Any]], other_venues: Sequence[Mapping[str, Any]] = ()
) -> str:
    """Return the tables of deployments, given as the config's keys and values; `other_venues`, in
    which the router of a new config does not trade, as comments.
    """
    lines = [line for venue in venues for line in _table_lines(venue)]
    if other_venues:
        commented = [line for venue in other_venues for line in _table_lines(venue)]
        lines += [_OTHER_VENUES, *(f"# {line}" for line in commented)]
    return "".join(f"{line}\n" for line in lines)


def _table_lines(venue: Mapping[str, Any]) -> list[str]:
    return ["[[venues]]", *(_line(key, value) for key, value in venue.items())]


def _line(key: str, value: Any) -> str:
    comment = f"   # {_COMMENTS[key]}" if key in _COMMENTS else ""
    return f"{key} = {json.dumps(value)}{comment}"
