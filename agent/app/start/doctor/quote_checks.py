"""Who quotes swaps besides our own arithmetic: a row of `trimtab doctor` for each venue."""

from __future__ import annotations

from collections.abc import Iterator

from agent import wiring
from agent.amm.swap_errors import ContractRevert, KnownTicksExceeded
from agent.app.documents.owner import OK, WARN, CheckLine
from agent.chain.second_quote import LIBRARY_QUOTER_NAME, NoSecondQuote, UniswapPythonQuoter
from agent.model import Leg, LegPlace, Pool, Snapshot

DEPTH_DIVISOR = 10_000
"""The quoted swap is this part of what the pool pays out of within two percent."""


def quote_checks(context: wiring.AgentContext, snapshot: Snapshot) -> Iterator[CheckLine]:
    """Yield a row for each venue with a pool in the snapshot: a small swap is quoted by every second
    source, and compared with our own quote. None without limits.second_quote_deviation.
    """
    if context.limits.second_quote_deviation_bps is None:
        return
    leg_by_venue: dict[str, Leg] = {}
    for pool in snapshot.pools:
        if pool.venue not in leg_by_venue and (leg := _small_swap(pool)) is not None:
            leg_by_venue[pool.venue] = leg
    for venue, leg in sorted(leg_by_venue.items()):
        yield _venue_check(context, snapshot, venue, leg)


def _small_swap(pool: Pool) -> Leg | None:
    """Return a small swap of the pool, quoted by our arithmetic; None if it pays nothing."""
    amount_in_raw = pool.depth(pool.token0) // DEPTH_DIVISOR
    try:
        amount_out_raw = pool.quote(pool.token0, amount_in_raw) if amount_in_raw else 0
    except (ContractRevert, KnownTicksExceeded):
        return None
    if amount_out_raw == 0:
        return None
    return Leg(
        pool.address,
        pool.venue,
        pool.token0,
        pool.token1,
        pool.fee_pips,
        amount_in_raw,
        amount_out_raw,
        0,
        0,
        0,
        LegPlace.WALLET,
        LegPlace.WALLET,
    )


def _venue_check(
    context: wiring.AgentContext, snapshot: Snapshot, venue: str, leg: Leg
) -> CheckLine:
    check_name = f"second quote {venue}"
    try:
        quoted_raw = context.quoter.quote(leg, leg.amount_in_raw, snapshot.head.hash)
    except NoSecondQuote as error:
        return (
            check_name,
            WARN,
            error.message,
            f"correct the addresses of the venue {venue} in [[venues]]",
        )
    sources = context.quoter.sources(leg)
    finding = f"quoted by {' and '.join(sources)}"
    if LIBRARY_QUOTER_NAME not in sources:
        why = "cannot quote it" if UniswapPythonQuoter.is_installed() else "is not installed"
        finding += f"; {LIBRARY_QUOTER_NAME} {why}"
    if quoted_raw != leg.amount_out_raw:
        finding += f": {quoted_raw} instead of our {leg.amount_out_raw} base units"
        return check_name, WARN, finding, f"look at pool {leg.pool}; plans over it may be refused"
    return check_name, OK, finding, ""
