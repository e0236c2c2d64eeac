"""Cost of a mined futures action: the receipt's fills compared with the snapshot's index, and moved
collateral with the granted amount.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from agent.layers.futures.accounting import margin_reading
from agent.layers.futures.planning.plans import collateral_change_raw
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
    store: Store, intent: Intent, step: StepInput, native_price: Price, chain_s: int
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
    receipt = intent.receipt
    grant = futures_grant(store.journal.grant(intent.id))
    if receipt is None:
        raise ValueError(f"intent {intent.id} has no receipt to book")
    loss = receipt.gas_cost_wei * native_price
    turnover = Fraction(0)
    if grant is not None and receipt.status == 1:
        # By the granted account, since the snapshot's may be unread.
        quote_per_numeraire = Fraction(grant.account.quote.unit, step.portfolio.numeraire.unit)
        if isinstance(grant.action, PerpOrder):
            may_be_partial = intent.tx.is_venue_order
            cost, budgeted_value = _order_cost(
                grant.action, grant, receipt, may_be_partial=may_be_partial
            )
        else:
            cost, budgeted_value = _collateral_cost(
                grant, receipt, step.snapshot, futures_policy(step)
            )
        loss += cost / quote_per_numeraire
        turnover = budgeted_value / quote_per_numeraire
    store.budgets.book_intent(intent, turnover, loss, receipt.gas_cost_wei, chain_s)
    return loss


def _order_cost(
    order: PerpOrder, grant: FuturesGrant, receipt: Receipt, *, may_be_partial: bool
) -> tuple[Value, Value]:
    """Return the cost of an order and the notional that counts against its budget, in quote base
    units.
    """
    if order.kind.can_rest and not receipt.fills:
        return Fraction(0), Fraction(0)
    market = grant.account.market(order.market)
    size_raw = order.size_raw
    quote_raw = order.bound_raw
    fee_raw = ceil_int(order.bound_raw * Fraction(market.fee_ppm, margin.PPM))
    if (fill := order_fill(order, receipt, may_be_partial=may_be_partial)) is not None:
        size_raw = fill.size_raw
        quote_raw = abs(fill.quote_raw)
        fee_raw = fill.fee_raw
    index_value = abs(size_raw) * market.index
    slippage_value = quote_raw - index_value if order.size_raw > 0 else index_value - quote_raw
    cost = max(Fraction(0), slippage_value) + fee_raw
    counts_against_budget = order.is_reduce_only and not grant.is_emergency and grant.is_budgeted
    budgeted_value = index_value if counts_against_budget else Fraction(0)
    return cost, budgeted_value


def _collateral_cost(
    grant: FuturesGrant, receipt: Receipt, snapshot: Snapshot, policy: FuturesPolicy | None
) -> tuple[Value, Value]:
    """Return the wallet's shortfall against the granted amount, and the deposit that counts against
    its budget, in quote base units.
    """
    expected_change_raw = collateral_change_raw(grant.action)
    quote_per_collateral = grant.account.collateral_unit_raw
    missing_collateral_raw = expected_change_raw - receipt.net_transfers(snapshot.owner).get(
        collateral_token(policy), 0
    )
    shortfall = Fraction(max(0, missing_collateral_raw) * quote_per_collateral)
    deposit = Fraction(max(0, -expected_change_raw) * quote_per_collateral)
    return shortfall, deposit


def order_fill(order: PerpOrder, receipt: Receipt, *, may_be_partial: bool) -> PerpFill | None:
    """Return the fill of an order from its receipt, the sum of all fills of a limit order; None if
    no event has its market and size (with `may_be_partial`, a part of its size).
    """
    fills = [fill for fill in receipt.fills if fill.market == order.market]
    if order.kind.can_rest and fills:
        fills = [_summed_fill(fills)]
    fills = [
        fill
        for fill in fills
        if fill.size_raw == order.size_raw
        or (may_be_partial and 0 < Fraction(fill.size_raw, order.size_raw) < 1)
    ]
    return fills[0] if len(fills) == 1 else None


def _summed_fill(fills: Sequence[PerpFill]) -> PerpFill:
    return replace(
        fills[0],
        size_raw=sum(fill.size_raw for fill in fills),
        quote_raw=sum(fill.quote_raw for fill in fills),
        fee_raw=sum(fill.fee_raw for fill in fills),
        realised_raw=sum(fill.realised_raw for fill in fills),
        fill_id="",
    )


def margin_reading_by_collateral(step: StepInput) -> dict[str, MarginReading]:
    """Return the reading of the margin account by its collateral; empty if it counts nowhere."""
    reading = margin_reading(step.snapshot, futures_policy(step))
    return {} if reading is None else dict.fromkeys(margin_holdings(step), reading)
