"""Tokens that an edit takes in: their pools with liquidity and code, whether they move as they should, and what prices them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from agent import wiring
from agent.amm import pools as amm
from agent.api import setup
from agent.api.screens import tried_out
from agent.config.load import LoadedConfig
from agent.errors import Refused
from agent.model import CodeHash, PoolState, ReferenceKind, StepInput, V3Pool, Verdict
from agent.reference import References, means, reference_prices
from agent.units import decimal_text, value_text


@dataclass(frozen=True, slots=True)
class Newcomers:
    """`told` are lines about each token: its price with the source, and how it moved when it was tried. `rows` are the contracts as
    `trimtab trust` shows them, pools with their `liquidity` in the numeraire; `backing` implementations of proxies.
    """

    told: tuple[str, ...] = ()
    rows: tuple[dict[str, str], ...] = ()
    backing: tuple[setup.Backing, ...] = ()

    @property
    def new(self) -> tuple[dict[str, str], ...]:
        """What a yes pins: a contract that was pinned with other code before waits for `trimtab trust`."""
        return tuple(row for row in self.rows if row["state"] == "new")


NONE = Newcomers()


def newcomers(desk: wiring.Desk, before: LoadedConfig | None) -> tuple[wiring.Desk, Newcomers]:
    """What the config takes in that `before` had not, and the desk with prices by means of their pools, as after a yes.

    Raises Refused for a token without price, one that does not move as it should, and an address without code.
    """
    known = {one.address for one in before.config.portfolio.listed} if before is not None else set(desk.tokens)
    tokens = [address for address in desk.tokens if address not in known]
    if not tokens:
        return desk, NONE
    snapshot = desk.reader.snapshot()
    theirs = {pool.address for pool in desk.pools if {pool.token0, pool.token1} & set(tokens)} | set(tokens)
    found, backing, empty = setup.contracts(desk, snapshot)
    backing = [one for one in backing if one[0] in tokens]
    theirs |= {address for _, address, _ in backing}
    setup.require_code([one for one in empty if any(address in one.measured for address in theirs)])
    rows = [row for row in found if row["address"] in theirs]
    coming = [CodeHash(row["address"], row["code_hash"]) for row in rows if row["state"] == "new"]
    desk = replace(desk, reference=replace(desk.reference, mean_pools=(*(desk.reference.mean_pools or ()), *coming)))
    step = desk.assemble(snapshot, desk.store.history(snapshot.head.timestamp_s))
    references = reference_prices(step)
    _require_prices(desk, references, tokens)
    told = [_priced(step, references, token, rows) for token in tokens]
    labels = {desk.portfolio.token(token).label for token in tokens}
    for label, one in tried_out(desk, step):
        if label in labels and not one.finding.accepted:
            verdict = Verdict("token_screen", f"{label}: {one.why}", "it moves as it should", False)
            raise Refused(f"{label} is not taken in: {one.why}", (verdict,), one.finding.remedy)
        told += [f"{label} was tried: {one.why}"] if label in labels else []
    pools = {pool.address: pool for pool in step.snapshot.pools}
    shown = tuple(row | {"liquidity": _liquidity(desk, references, pools.get(row["address"]))} for row in rows)
    return desk, Newcomers(tuple(told), shown, tuple(backing))


def _require_prices(desk: wiring.Desk, references: References, tokens: list[str]) -> None:
    lacking = [one for one in references.unpriced if one.token in tokens]
    if lacking:
        said = "; ".join(f"{one.label}: {one.why}" for one in lacking)
        raise Refused(
            f"there is no price for {said}",
            tuple(Verdict("price", f"{one.label}: {one.why}", "a source of reference.kind", False) for one in lacking),
            f"name its feed in dollars: --set portfolio.assets.{lacking[0].label}.feed=0x…; "
            'or let pools price it: reference.kind = ["feed", "twap"], see trimtab oracle',
        )


def _priced(step: StepInput, references: References, token: str, rows: Sequence[Mapping[str, str]]) -> str:
    found, one, numeraire = references.prices[token], step.portfolio.token(token), step.portfolio.numeraire
    counted = {
        pool.address
        for pool in step.snapshot.pools
        if token in (pool.token0, pool.token1) and isinstance(pool, V3Pool) and not means.outside(step, pool)
    }
    names = ", ".join(row["what"] for row in rows if row["address"] in counted)
    via = f" (its own that count: {names})" if found.source is ReferenceKind.TWAP else ""
    price = value_text(found.price * 10**one.decimals, numeraire.decimals, 6)
    return f"{one.label} is priced by {found.source.value}: {found.detail}{via}; now {price} {numeraire.label}"


def _liquidity(desk: wiring.Desk, references: References, pool: PoolState | None) -> str:
    """What counts as its depth on both sides, in the numeraire where both have a price; empty for what is no pool."""
    if pool is None:
        return ""
    numeraire, sides = desk.portfolio.numeraire, (pool.token0, pool.token1)
    if any(token not in references.prices for token in sides):
        coins = [(desk.portfolio.token(token), amm.depth(pool, token)) for token in sides]
        return " and ".join(f"{decimal_text(raw, token.decimals)} {token.label}" for token, raw in coins)
    value = sum((amm.depth(pool, token) * references.prices[token].price for token in sides), Fraction(0))
    return f"{value_text(value, numeraire.decimals, 0)} {numeraire.label}"
