"""Display names of pools: pair and fee instead of the address."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.model import StepInput

_POOL = re.compile("(?:pool )?(0x[0-9a-fA-F]{40})")


def pool_names(step: StepInput) -> dict[str, str]:
    """Return unique names of the pools read, by address: WETH/USDC 0.05 %, or V2 after the pair for
    a V2 pool.
    """
    portfolio = step.portfolio

    def quoted(token: str) -> int:
        """Return the rank of a token in a pair, from first to last: other tokens, wrapped native
        coin, dollars, numeraire.
        """
        money = (
            token == portfolio.numeraire.address,
            any(unit in portfolio.token(token).label for unit in ("USD", "DAI")),
        )
        return 3 if money[0] else 2 if money[1] else int(token == portfolio.wrapped_native)

    names: dict[str, str] = {}
    for pool in step.snapshot.pools:
        pair = "/".join(
            portfolio.token(side).label for side in sorted((pool.token0, pool.token1), key=quoted)
        )
        name = f"{pair}{pool.label} {pool.fee_pips / 10_000:g} %"
        names[pool.address] = (
            f"{name} {pool.address[:6]}…{pool.address[-4:]}" if name in names.values() else name
        )
    return names


def replace_pool_addresses(text: str, names: Mapping[str, str], *, addresses: bool = False) -> str:
    """Replace pool addresses in the text by their names, or by both."""

    def name(found: re.Match[str]) -> str:
        known = names.get(found[1])
        return found[0] if known is None else f"{known} ({found[1]})" if addresses else known

    return _POOL.sub(name, text)
