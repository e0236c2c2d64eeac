"""Book mined transactions: loss and turnover, at the prices before the trade where known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from agent import codec
from agent.errors import ConfigError, ErrorCode, OperatorNeeded
from agent.layers.memories import BOOKINGS
from agent.model import (
    ExpectedBalances,
    ExternalTransfer,
    Intent,
    IntentKind,
    Leg,
    Payout,
    Plan,
    Portfolio,
    Rebalance,
    Receipt,
    Snapshot,
    StepInput,
    Transfer,
)
from agent.planning.gas import NATIVE_VENUE
from agent.policy.cash_flows import balance_changes
from agent.reference import reference_prices
from agent.store.accounts.balances import BalanceStore
from agent.store.budgets import BudgetStore
from agent.store.journal import IntentStore, StepStore
from agent.store.store import Store
from agent.units import NATIVE

# --- Result of a mined transaction: amounts by leg, turnover, and loss at the prices before (T6).


@dataclass(frozen=True, slots=True)
class RealisedLeg:
    """Amounts exchanged by one leg, base units, by its pool's Transfer events; None if no event
    matches the leg.
    """

    pool: str
    token_in: str
    token_out: str
    amount_in_raw: int | None
    amount_out_raw: int | None
    planned_in_raw: int
    planned_out_raw: int


def realised_legs(plan: Plan, receipt: Receipt) -> tuple[RealisedLeg, ...]:
    """Return the plan's legs as executed.

    Pools that serve several legs are matched in leg order. An amount that passes directly from one
    pool to the next is output of the first leg and input of the second.
    """
    outgoing, incoming, wrapped = (
        list(receipt.transfers),
        list(receipt.transfers),
        list(receipt.wrapped),
    )

    def take(unused: list[Transfer], matches: Callable[[Transfer], bool]) -> int | None:
        for position, transfer in enumerate(unused):
            if matches(transfer):
                return unused.pop(position).raw
        return None

    def amounts(leg: Leg) -> tuple[int | None, int | None]:
        if leg.venue == NATIVE_VENUE:
            raw = take(wrapped, lambda transfer: _wraps(transfer, leg))
            return raw, raw
        return (
            take(incoming, lambda t: (t.token, t.recipient) == (leg.token_in, leg.pool)),
            take(outgoing, lambda t: (t.token, t.sender) == (leg.token_out, leg.pool)),
        )

    return tuple(
        RealisedLeg(
            leg.pool,
            leg.token_in,
            leg.token_out,
            *amounts(leg),
            planned_in_raw=leg.amount_in_raw,
            planned_out_raw=leg.amount_out_raw,
        )
        for leg in plan.legs
    )


def _wraps(transfer: Transfer, leg: Leg) -> bool:
    """True if the Deposit or Withdrawal event belongs to a leg that wraps or unwraps."""
    end = transfer.sender if leg.token_in == NATIVE else transfer.recipient
    return transfer.token == leg.pool and end == NATIVE


def native_delta(intent: Intent, wallet: str, coin: str) -> int:
    """Return the change of native coin by a mined intent, in wei and without gas: wrapped coin
    (`coin`) that the wallet or the called contract unwrapped, less the value sent.
    """
    receipt = intent.receipt
    if receipt is None or receipt.status != 1:
        return 0
    sent_wei = 0 if intent.tx.to == wallet else intent.tx.value_wei
    return receipt.unwrapped(coin, wallet, intent.tx.to) - sent_wei


def trade_loss(
    before: Mapping[str, int],
    after: Mapping[str, int],
    prices: Mapping[str, Fraction],
    gas_value: Fraction,
) -> Fraction:
    """Return numeraire base units lost (negative: gained): balances before less balances after, at
    the prices before the trade, plus gas.

    Balances are base units by token; `prices` are numeraire base units per token base unit. An
    increase of a token without a price counts as zero; a decrease cannot be valued and raises
    OperatorNeeded.
    """
    total = gas_value
    for token in sorted({*before, *after}):
        delta = after.get(token, 0) - before.get(token, 0)
        price = prices.get(token)
        if price is None and delta < 0:
            raise OperatorNeeded(
                f"{-delta} base units of {token} left the wallet without a reference price",
                "check the receipt, then add a feed for it",
                code=ErrorCode.REFERENCE_PRICE,
            )
        total -= delta * (price or 0)
    return total


def trade_turnover(deltas: Mapping[str, int], prices: Mapping[str, Fraction]) -> Fraction:
    """Return half the sum of absolute changes in value, numeraire base units, without tokens that
    have no price.
    """
    changes = (abs(delta) * prices.get(token, Fraction(0)) for token, delta in deltas.items())
    return sum(changes, Fraction(0)) / 2


def book_intent(  # noqa: PLR0913
    budgets: BudgetStore,
    intent: Intent,
    wallet: str,
    prices: Mapping[str, Fraction],
    native_price: Fraction,
    chain_s: int,
    balances: tuple[Mapping[str, int], Mapping[str, int]] | None = None,
    gain_counts: bool = True,
    coin: str = "",
    payout: Payout | None = None,
    apart: Fraction = Fraction(0),
    exit_into: str = "",
) -> Fraction:
    """Book a mined intent, including a reverted one and a cancel, and return its loss. Booking is
    idempotent. `prices` are the reference prices before the trade, and `native_price` is the price
    of one wei. `balances` are the balances before and after, if read. The larger of the losses by
    balances and by receipt events counts, so neither false events nor a deposit in between hides a
    loss. `chain_s` is the time of the block, or later. Only tokens in `prices` count. Without
    `gain_counts` the loss is at least the gas, because prices of another time cannot prove a gain.
    Native coin counts as `coin`, its wrapped token, so that wrapping costs nothing. A payout is an
    outflow, not a loss. `apart` is the value of a purchase or of a withdrawal's sale, which
    turnover limits exclude. Of an exit into the token `exit_into` they count purchases of other
    tokens only, as the guards do.
    """
    receipt = intent.receipt
    if receipt is None:
        raise ValueError(f"intent {intent.id} has no receipt to book")
    gas_value = receipt.gas_cost_wei * native_price
    deltas = {token: raw for token, raw in receipt.net(wallet).items() if token in prices}
    native_wei = native_delta(intent, wallet, coin)
    if native_wei and coin in prices:
        deltas[coin] = deltas.get(coin, 0) + native_wei
    paid, outflow = _paid(receipt, payout, coin), Fraction(0)
    for token, raw in paid.items():
        deltas[token] = deltas.get(token, 0) + raw
        outflow += raw * prices.get(token, Fraction(0))
    lost = trade_loss({}, deltas, prices, gas_value)
    if balances is not None:
        lost = max(lost, trade_loss(*balances, prices, gas_value))
    if not gain_counts:
        lost = max(lost, gas_value)
    moved = Fraction(0)
    if exit_into:
        bought = (raw * prices[token] for token, raw in deltas.items() if token != exit_into)
        moved = sum((value for value in bought if value > 0), moved)
    elif payout is None:
        moved = trade_turnover(deltas, prices)
    turnover = max(Fraction(0), moved - apart)
    budgets.book(intent, turnover, lost, receipt.gas_cost_wei, chain_s, outflow)
    return lost


def _paid(receipt: Receipt, payout: Payout | None, coin: str) -> dict[str, int]:
    """Return the base units, by token, of a successful payout."""
    if payout is None or receipt.status != 1:
        return {}
    return {coin if payout.token == NATIVE else payout.token: payout.raw}


# --- Booking before each step; balances that differ from the expected ones are external transfers.


def record_balance_changes(
    balances: BalanceStore, snapshot: Snapshot, present: Callable[[], StepInput]
) -> tuple[ExpectedBalances, tuple[ExternalTransfer, ...]]:
    """Record what differs from the expected balances, and the balances of `snapshot` as the new
    basis. Return the expected balances and the recorded transfers: new ones, and older ones newly
    valued or accepted.

    `present` is called only if a balance may have changed. If the snapshot cannot be compared, or
    another process wrote first, nothing is recorded, and the next cycle compares again.
    """
    read = balance_changes.balances_of(snapshot)

    def is_explained(books: ExpectedBalances) -> bool:
        return (
            balance_changes.is_comparable(snapshot, books)
            and not balance_changes.differences(snapshot, books)
            and not balance_changes.may_change(books)
        )

    before, recorded = balances.record_explained(snapshot, read, is_explained)
    if recorded or not balance_changes.is_comparable(snapshot, before):
        return before, ()
    step = present()
    books = balances.expected()  # more external transactions may be known now
    transfers = balance_changes.changes_to_record(step, books)
    return books, transfers if balances.record(snapshot, read, transfers, books.turn) else ()


MAX_CLOCK_LEAD_S = 30
"""Largest accepted lead of a block's timestamp over the agent's clock."""


def settle_mined(
    store: Store,
    snapshot: Snapshot,
    present: Callable[[], StepInput],
    before: Snapshot | None = None,
) -> frozenset[int]:
    """Book every mined transaction missing from the budgets, at the reference prices of its own
    step; then compare balances. Return the blocks of the newest known changes of balances.

    `present` is called only if a balance may have changed, or if that step is unreadable (written
    by another version): then current prices are used and no gain counts. While a token spent in an
    unreadable step has no price, the transaction stays unbooked and nothing is planned. With
    `before`, read before the last trade, the larger of the losses by balances and by events counts,
    unless every expected balance is known: then a difference is an external transfer and is counted
    as one. Tokens without a price, foreign ones included, count as zero, because a plan cannot
    spend them and events of unknown contracts prove nothing (T11).
    """
    unbooked = store.journal.unbooked()
    all_expected = True
    if unbooked and before is not None:
        expected = {opening.token for opening in store.balances.expected().openings}
        all_expected = expected >= {holding.token for holding in snapshot.holdings}
    for intent in unbooked:
        own = originating_step(store.steps, intent)
        basis = own or present()
        prices = reference_prices(basis).by_token
        if own is None and _unpriced(intent, basis.portfolio, basis.snapshot.owner, prices):
            continue
        coin, at_s = basis.portfolio.wrapped_native, _chain_s(snapshot, own)
        native = prices.get(coin, Fraction(0))
        if (book := BOOKINGS.get(intent.kind)) is not None:
            after = None if before is None else snapshot
            book(store, intent, own, basis, after, native, at_s)
            continue
        balances = None
        if before is not None and not all_expected and intent.kind in _TRADES:
            balances = _balances(before, snapshot, prices)
            if native_delta(intent, snapshot.owner, coin):
                balances = _with_native(balances, (before, snapshot), intent, coin)
        payout = None
        if intent.kind is IntentKind.PAYOUT:
            payout = store.journal.grant(intent.id).payout
        book_intent(
            store.budgets,
            intent,
            snapshot.owner,
            prices,
            native,
            at_s,
            balances,
            gain_counts=own is not None,
            coin=coin,
            payout=payout,
            apart=_exempt_turnover(store.journal, intent),
            exit_into=_exit_into(store.journal, intent, basis.portfolio),
        )
    books, transfers = record_balance_changes(store.balances, snapshot, present)
    transferred = [flow.block for flow in (*books.flows, *transfers)]
    return frozenset([*transferred, *(change.block for change in books.own)])


_TRADES = (IntentKind.SWAP, IntentKind.UNWRAP)


def _exempt_turnover(journal: IntentStore, intent: Intent) -> Fraction:
    """Return the part of a granted swap's value that turnover limits exclude."""
    plan = journal.grant(intent.id).plan if intent.kind is IntentKind.SWAP else None
    if plan is None or not isinstance(plan.decision, Rebalance):
        return Fraction(0)
    return plan.decision.apart


def _exit_into(journal: IntentStore, intent: Intent, portfolio: Portfolio) -> str:
    """Return the numeraire if the swap is a granted exit; empty otherwise."""
    plan = journal.grant(intent.id).plan if intent.kind is IntentKind.SWAP else None
    return portfolio.numeraire.address if plan is not None and plan.exits else ""


def review_time_s(snapshot: Snapshot) -> int:
    """Return the chain time at which a review is recorded, capped so that a header from the future
    cannot delay later reviews.
    """
    return min(snapshot.head.timestamp_s, snapshot.now_s + MAX_CLOCK_LEAD_S)


def after_gas(step_input: StepInput, intent: Intent) -> StepInput:
    """Return the input with the gas cost of `intent` deducted."""
    paid_wei = 0 if intent.receipt is None else intent.receipt.gas_cost_wei
    history, snapshot = step_input.history, step_input.snapshot
    return replace(
        step_input,
        history=replace(
            history,
            budgets=replace(history.budgets, gas_24h_wei=history.budgets.gas_24h_wei + paid_wei),
        ),
        snapshot=replace(snapshot, native_wei=max(0, snapshot.native_wei - paid_wei)),
    )


def originating_step(steps: StepStore, intent: Intent) -> StepInput | None:
    """Return the input of the step that an intent belongs to; None if it is unreadable."""
    try:
        text = steps.input_json(intent.step_id)
        return None if text is None else _read(text)
    except (ConfigError, OperatorNeeded):
        return None


@lru_cache(maxsize=2)
def _read(text: str) -> StepInput:
    """Parse a recorded step; cached, since a step's transactions are booked one by one."""
    return codec.loads(StepInput, text)


def _unpriced(
    intent: Intent, portfolio: Portfolio, owner: str, prices: dict[str, Fraction]
) -> bool:
    """True if the transaction spent an asset that has no price now."""
    if intent.receipt is None:
        return False
    ours = {asset.token.address for asset in portfolio.assets}
    return any(
        raw < 0 and token in ours and token not in prices
        for token, raw in intent.receipt.net(owner).items()
    )


def _balances(
    before: Snapshot, after: Snapshot, prices: dict[str, Fraction]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return balances before and after by token, for priced tokens that are in both snapshots,
    because an unread balance is not zero.
    """
    old = {holding.token: holding.raw for holding in before.holdings}
    new = {holding.token: holding.raw for holding in after.holdings}
    both = old.keys() & new.keys() & prices.keys()
    return {token: old[token] for token in both}, {token: new[token] for token in both}


def _with_native(
    balances: tuple[dict[str, int], dict[str, int]],
    snapshots: tuple[Snapshot, Snapshot],
    intent: Intent,
    coin: str,
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the balances with native coin added to its wrapped token, before the gas of
    `intent`.
    """
    gas_wei = 0 if intent.receipt is None else intent.receipt.gas_cost_wei
    natives_wei = snapshots[0].native_wei, snapshots[1].native_wei + gas_wei
    old, new = (
        {token: raw + (wei if token == coin else 0) for token, raw in balance.items()}
        for balance, wei in zip(balances, natives_wei, strict=True)
    )
    return old, new


def _chain_s(snapshot: Snapshot, own: StepInput | None) -> int:
    """Return the booking time: not after the clock, and not before the trade's own step. So a
    header from the future neither halts the agent until that time nor moves an entry out of the
    last 24 hours (T6).
    """
    latest_s = snapshot.now_s + MAX_CLOCK_LEAD_S
    if own is not None:
        latest_s = max(latest_s, own.snapshot.head.timestamp_s)
    return min(snapshot.head.timestamp_s, latest_s)
