"""Cost of a mined futures action: the receipt's fills compared with the snapshot's index, and moved
collateral with the granted amount.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from agent.layers.futures.accounting import margin_reading
from agent.layers.futures.planning.plans import moved_raw
from agent.layers.futures.policy.exposure import margin_holdings
from agent.layers.futures.state import collateral_token, futures_policy
from agent.margin import account as margin
from agent.model import (
    FuturesGrant,
    FuturesPolicy,
    Intent,
    MarginReading,
    PerpFill,
    PerpOrder,
    Receipt,
    Snapshot,
    StepInput,
)
from agent.ports.perpetuals import futures_grant
from agent.store.store import Store
from agent.units import Price, Value, ceil_int


def book_futures_action(
    store: Store, intent: Intent, basis: StepInput, native_price: Price, chain_s: int
) -> Value:
    """Book a mined futures transaction, including a reverted one, and return its loss in numeraire
    base units: gas, fee, the fill's shortfall against the index, and collateral paid above a
    deposit or missing from a withdrawal.

    Outside of emergencies, the turnover of a reduction is its notional at the index, and that of a
    deposit is its collateral; both count against their budgets. An order without a fill of exactly
    its size counts as filled at its bound, so that an endpoint cannot hide a loss with an event. An
    off-chain venue may fill a part; only that part counts. A limit order is booked again with each
    new fill, since its receipt has all fills so far; without one it costs nothing.
    """
    receipt, granted = intent.receipt, futures_grant(store.journal.grant(intent.id))
    if receipt is None:
        raise ValueError(f"intent {intent.id} has no receipt to book")
    lost, turnover = receipt.gas_cost_wei * native_price, Fraction(0)
    if granted is not None and receipt.status == 1:
        unit = Fraction(granted.account.quote.unit, basis.portfolio.numeraire.unit)
        if isinstance(granted.action, PerpOrder):
            is_partly = intent.tx.is_venue_order
            cost, moved = _order_cost(granted.action, granted, receipt, is_partly=is_partly)
        else:
            cost, moved = _collateral_cost(granted, receipt, basis.snapshot, futures_policy(basis))
        lost, turnover = lost + cost / unit, moved / unit
    store.budgets.book(intent, turnover, lost, receipt.gas_cost_wei, chain_s)
    return lost


def _order_cost(
    order: PerpOrder, granted: FuturesGrant, receipt: Receipt, *, is_partly: bool
) -> tuple[Value, Value]:
    """Return the cost of an order and the notional that counts against its budget, in quote base
    units.
    """
    if order.kind.rests and not receipt.fills:
        return Fraction(0), Fraction(0)
    market, size_raw = granted.account.market(order.market), order.size_raw
    paid, fee_raw = (
        order.bound_raw,
        ceil_int(order.bound_raw * Fraction(market.fee_ppm, margin.PPM)),
    )
    if (fill := order_fill(order, receipt, is_partly=is_partly)) is not None:
        size_raw, paid, fee_raw = fill.size_raw, abs(fill.quote_raw), fill.fee_raw
    fair = abs(size_raw) * market.index
    worse = paid - fair if order.size_raw > 0 else fair - paid
    counts = order.is_reduce_only and not granted.is_emergency and granted.is_budgeted
    return max(Fraction(0), worse) + fee_raw, fair if counts else Fraction(0)


def _collateral_cost(
    granted: FuturesGrant, receipt: Receipt, snapshot: Snapshot, policy: FuturesPolicy | None
) -> tuple[Value, Value]:
    """Return the wallet's shortfall against the granted amount, and the deposit that counts against
    its budget, in quote base units.
    """
    expected_raw, unit = moved_raw(granted.action), granted.account.settlement_raw
    lacks_raw = expected_raw - receipt.net(snapshot.owner).get(collateral_token(policy), 0)
    return Fraction(max(0, lacks_raw) * unit), Fraction(max(0, -expected_raw) * unit)


def order_fill(order: PerpOrder, receipt: Receipt, *, is_partly: bool) -> PerpFill | None:
    """Return the fill of an order from its receipt, the sum of all fills of a limit order; None if
    no event has its market and size (with `is_partly`, a part of its size).
    """
    fills = [fill for fill in receipt.fills if fill.market == order.market]
    if order.kind.rests and fills:
        fills = [_summed(fills)]
    fills = [
        fill
        for fill in fills
        if fill.size_raw == order.size_raw
        or (is_partly and 0 < Fraction(fill.size_raw, order.size_raw) < 1)
    ]
    return fills[0] if len(fills) == 1 else None


def _summed(fills: Sequence[PerpFill]) -> PerpFill:
    return replace(
        fills[0],
        size_raw=sum(fill.size_raw for fill in fills),
        quote_raw=sum(fill.quote_raw for fill in fills),
        fee_raw=sum(fill.fee_raw for fill in fills),
        realised_raw=sum(fill.realised_raw for fill in fills),
        fill_id="",
    )


def account_readings(step: StepInput) -> dict[str, MarginReading]:
    """Return the reading of the margin account by its collateral; empty if it counts nowhere."""
    reading = margin_reading(step.snapshot, futures_policy(step))
    return {} if reading is None else dict.fromkeys(margin_holdings(step), reading)
