"""Book mined transactions: loss and turnover at the prices before the trade where they are known.
Missing prices never block the agent for good.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from agent import codec
from agent.amm.lp import positions as change
from agent.amm.lp import positions as exact
from agent.amm.lp import positions as own
from agent.errors import ConfigError, ErrorCode, OperatorNeeded
from agent.model import (
    Collect,
    ExternalTransfer,
    Intent,
    IntentKind,
    Leg,
    LpAction,
    LpPosition,
    LpPositionChange,
    LpV2Position,
    LpV3Position,
    Payout,
    Plan,
    Provide,
    Rebalance,
    Receipt,
    Snapshot,
    StepInput,
    Withdraw,
)
from agent.planning.gas import NATIVE_VENUE
from agent.policy.cash_flows import balance_changes
from agent.ports import BalanceJournal, BudgetJournal, Journal, StepJournal, StepStorage
from agent.reference import reference_prices
from agent.units import NATIVE, Price, Value

# --- Realised result of a mined transaction: amounts by leg, turnover, and its loss at the prices
# before the trade (T6).


@dataclass(frozen=True, slots=True)
class RealisedLeg:
    """Amounts exchanged by one leg per its pool's Transfer events, base units; None if no event
    fits the leg.
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

    Pools that serve several legs are matched in leg order. An amount that passes from one pool
    directly into the next is output of one leg and input of the other.
    """
    outgoing, incoming = list(receipt.transfers), list(receipt.transfers)

    def take(token: str, pool: str, *, into_pool: bool) -> int | None:
        unused = incoming if into_pool else outgoing
        for position, transfer in enumerate(unused):
            if (
                transfer.token == token
                and (transfer.recipient if into_pool else transfer.sender) == pool
            ):
                return unused.pop(position).raw
        return None

    turned = list(receipt.wrapped)

    def turn(leg: Leg) -> int | None:
        for position, made in enumerate(turned):
            if (made.token, NATIVE) == (
                leg.pool,
                made.sender if leg.token_in == NATIVE else made.recipient,
            ):
                return turned.pop(position).raw
        return None

    return tuple(
        (
            _turned(leg, turn(leg))
            if leg.venue == NATIVE_VENUE
            else RealisedLeg(
                pool=leg.pool,
                token_in=leg.token_in,
                token_out=leg.token_out,
                amount_in_raw=take(leg.token_in, leg.pool, into_pool=True),
                amount_out_raw=take(leg.token_out, leg.pool, into_pool=False),
                planned_in_raw=leg.amount_in_raw,
                planned_out_raw=leg.amount_out_raw,
            )
        )
        for leg in plan.legs
    )


def _turned(leg: Leg, raw: int | None) -> RealisedLeg:
    return RealisedLeg(
        leg.pool, leg.token_in, leg.token_out, raw, raw, leg.amount_in_raw, leg.amount_out_raw
    )


def native_delta(intent: Intent, wallet: str, coin: str) -> int:
    """Return the change of native coin by a mined intent, without gas, wei: wrapped native coin
    `coin` unwrapped by the wallet or the called contract, less the value sent.
    """
    receipt = intent.receipt
    if receipt is None or receipt.status != 1:
        return 0
    return receipt.unwrapped(coin, wallet, intent.tx.to) - (
        intent.tx.value_wei if intent.tx.to != wallet else 0
    )


def trade_loss(
    before: Mapping[str, int],
    after: Mapping[str, int],
    prices: Mapping[str, Fraction],
    gas_value: Fraction,
) -> Fraction:
    """Return numeraire base units lost (negative: gained): balances before minus after at the
    prices before the trade, plus gas. Balances in base units per token; `prices` in numeraire base
    units per token base unit. A token without a price counts zero if it grew; if it shrank its loss
    cannot be valued: OperatorNeeded.
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
    """Half the sum of absolute changes in value, numeraire base units; tokens without a price are
    excluded.
    """
    return (
        sum(
            (abs(delta) * prices.get(token, Fraction(0)) for token, delta in deltas.items()),
            Fraction(0),
        )
        / 2
    )


def book_intent(  # noqa: PLR0913
    budgets: BudgetJournal,
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
) -> Fraction:
    """Book a mined intent, also a reverted or cancelling one, and return its loss; booking is
    idempotent.

    `prices` are the reference prices before the trade, `native_price` that of one wei. `balances`
    are those before and after, if read: the loss is the worse of balances and receipt events, so
    that neither false events nor a deposit in between hides a loss. `chain_s` is the time of the
    block, or later. Only tokens in `prices` count. Without `gain_counts` the loss is at least the
    gas: prices of another time prove no gain. Native coin counts as `coin`, its wrapped token, so
    that wrapping is no loss. A payout is an outflow and not a loss. `apart` is the value of a
    purchase or of a withdrawal's sale, which turnover limits do not count.
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
        deltas[token], outflow = (
            deltas.get(token, 0) + raw,
            outflow + raw * prices.get(token, Fraction(0)),
        )
    lost = trade_loss({}, deltas, prices, gas_value)
    if balances is not None:
        lost = max(lost, trade_loss(*balances, prices, gas_value))
    if not gain_counts:
        lost = max(lost, gas_value)
    moved = (
        max(Fraction(0), trade_turnover(deltas, prices) - apart) if payout is None else Fraction(0)
    )
    budgets.book(intent, moved, lost, receipt.gas_cost_wei, chain_s, outflow)
    return lost


def _paid(receipt: Receipt, payout: Payout | None, coin: str) -> dict[str, int]:
    """Base units by token that a successful payout paid at its owner's request."""
    if payout is None or receipt.status != 1:
        return {}
    return {coin if payout.token == NATIVE else payout.token: payout.raw}


# --- Realised cost of a liquidity action: wallet and positions together, before and after, at one
# set of reference prices.


NO_FEES = (0, 0)


def book_liquidity_action(
    store: StepStorage,
    intent: Intent,
    basis: StepInput | None,
    after: Snapshot | None,
    prices: Mapping[str, Price],
    native_price: Price,
    chain_s: int,
) -> Value:
    """Book a mined liquidity action, also a reverted one, and return its loss in numeraire base
    units; its turnover is zero. `basis` is the step that planned it (None if unreadable: then only
    its gas counts as lost), `after` a snapshot read right after it. The loss is the worse of the
    receipt and both snapshots: wallet payments and changed positions at reference prices. A
    withdrawal that pays less than the liquidity's value is a loss, as is overpaid liquidity.
    """
    receipt = intent.receipt
    if receipt is None:
        raise ValueError(f"intent {intent.id} has no receipt to book")
    gas_value = receipt.gas_cost_wei * native_price
    action = store.journal.grant(intent.id).action
    lost = gas_value
    if basis is not None and action is not None and receipt.status == 1:
        done = own.position_change(action, receipt, basis.snapshot.owner)
        bookings = [_by_receipt(action, done, basis, receipt, prices)]
        if after is not None:
            bookings.append(_by_snapshots(action, done, basis.snapshot, after, prices))
        lost += max((loss for loss in bookings if loss is not None), default=Fraction(0))
    store.budgets.book(intent, Fraction(0), lost, receipt.gas_cost_wei, chain_s)
    return lost


def _by_receipt(
    action: LpAction,
    done: LpPositionChange | None,
    basis: StepInput,
    receipt: Receipt,
    prices: Mapping[str, Price],
) -> Value | None:
    """Loss by the receipt's transfers, and by the contracts' own account of the position as read
    before.
    """
    before = next(
        (position for position in basis.snapshot.positions if position.name == action.name), None
    )
    after = _became(action, done, before)
    if after is None:
        return None
    change_of_position = _position_value(after, prices) - (
        Fraction(0) if before is None else _position_value(before, prices)
    )
    moved = receipt.net(basis.snapshot.owner)
    return (
        -sum((raw * prices[token] for token, raw in moved.items() if token in prices), Fraction(0))
        - change_of_position
    )


def _became(
    action: LpAction, done: LpPositionChange | None, before: LpPosition | None
) -> LpPosition | None:
    """The position after the action; None if it cannot be derived."""
    match action, before:
        case [Collect(), LpV3Position()]:
            return change.after_collect(before)
        case [Provide(token_id=None, ticks=tuple()), None] if done is not None:
            return _minted(action, done)
        case [_, LpV2Position() | LpV3Position()] if done is not None:
            return (
                change.after_provision(before, done.liquidity, done.amounts_raw)
                if done.liquidity > 0
                else change.after_withdrawal(before, -done.liquidity)
            )
        case _:
            return None


def _minted(action: Provide, done: LpPositionChange) -> LpV3Position:
    """The minted position, complete enough to value: it has earned no fees yet."""
    lower, upper = done.ticks or (0, 0)
    return LpV3Position(
        action.venue, action.contract, done.token_id or 0, action.pool, action.token0, action.token1, action.fee_pips, lower, upper,
        done.liquidity, NO_FEES, NO_FEES, 0, lower, NO_FEES, NO_FEES, NO_FEES, done.liquidity, NO_FEES, NO_FEES,
    )  # fmt: skip


def _by_snapshots(
    action: LpAction,
    done: LpPositionChange | None,
    before: Snapshot,
    after: Snapshot,
    prices: Mapping[str, Price],
) -> Value | None:
    """Loss by balances and positions read before and after; None while the changed position could
    not be read.
    """
    name = action.name if done is None else done.name
    had, has = (
        {position.name: position for position in read.positions} for read in (before, after)
    )
    known = {*had, name}
    if isinstance(action, Withdraw) and action.liquidity == action.held and name not in has:
        known.discard(name)  # an empty position is no longer read
    if not known <= set(has):
        return None
    return _total(before, list(had.values()), after, prices) - _total(
        after, [has[one] for one in known], before, prices
    )


def _total(
    read: Snapshot, positions: list[LpPosition], other: Snapshot, prices: Mapping[str, Price]
) -> Value:
    """Value of the positions and of the tokens with a price that both snapshots could read."""
    both = {holding.token for holding in other.holdings} & set(prices)
    held = sum(
        (holding.raw * prices[holding.token] for holding in read.holdings if holding.token in both),
        Fraction(0),
    )
    return held + sum((_position_value(position, prices) for position in positions), Fraction(0))


def _position_value(position: LpPosition, prices: Mapping[str, Price]) -> Value:
    """Value at reference prices, uncollected fees included; zero if a token has no price, as in the
    value before.
    """
    if not {position.token0, position.token1} <= set(prices):
        return Fraction(0)
    price0, price1 = prices[position.token0], prices[position.token1]
    raw0, raw1 = exact.owned_amounts(position, price0, price1)
    return raw0 * price0 + raw1 * price1


# --- Comparison of the wallet's balances with expected ones before each step; differences become
# external transfers.


def record_balance_changes(
    balances: BalanceJournal, snapshot: Snapshot, present: Callable[[], StepInput]
) -> tuple[ExternalTransfer, ...]:
    """Record unexplained balance changes, and the balances of `snapshot` as the new basis.

    Return what it wrote: new transfers, and older ones newly valued or accepted. `present` is
    called only if something changed or may have. If the snapshot cannot be compared, or another
    process was faster, nothing changes: the next cycle compares again.
    """
    books = balances.expected()
    if not balance_changes.is_comparable(snapshot, books):
        return ()
    found: tuple[ExternalTransfer, ...] = ()
    if balance_changes.differences(snapshot, books) or balance_changes.may_change(books):
        step = present()
        books = balances.expected()  # external transactions may have become known
        found = balance_changes.changes_to_record(step, books)
    return (
        found
        if balances.record(snapshot, balance_changes.balances_of(snapshot), found, books.turn)
        else ()
    )


MAX_CLOCK_LEAD_S = 30
"""Largest lead of a block's time over the agent's clock that is believed, in seconds."""


def settle_mined(
    store: StepStorage,
    snapshot: Snapshot,
    present: Callable[[], StepInput],
    before: Snapshot | None = None,
) -> None:
    """Book every mined transaction missing from the budgets, at the reference prices of its own
    step; then compare balances.

    `present` is called only if that step is unreadable (written by another version): then present
    prices count, and no gain. While a spent token has no price, the transaction waits unbooked, and
    nothing is planned. With the snapshot `before` the last trade, its loss is the worse of balances
    and events, unless every expected balance is known: then a difference is an external transfer
    and counts there. Tokens without a price, foreign ones included, count zero: a plan cannot spend
    them, and events of unknown contracts prove nothing (T11).
    """
    kept = {opening.token for opening in store.balances.expected().openings}
    for intent in store.journal.unbooked():
        own = originating_step(store.steps, intent)
        basis = own or present()
        prices = reference_prices(basis).by_token
        if own is None and _unpriced(intent, basis, prices):
            continue
        native = prices.get(basis.portfolio.wrapped_native, Fraction(0))
        if intent.kind is IntentKind.LIQUIDITY:
            after = None if before is None else snapshot
            book_liquidity_action(
                store, intent, own, after, prices, native, _chain_s(snapshot, own)
            )
            continue
        coin = basis.portfolio.wrapped_native
        trade = before is not None and intent.kind in (IntentKind.SWAP, IntentKind.UNWRAP)
        trade = trade and not kept >= {holding.token for holding in snapshot.holdings}
        balances = _balances(before, snapshot, prices) if trade and before is not None else None
        if (
            balances is not None
            and before is not None
            and native_delta(intent, snapshot.owner, coin)
        ):
            balances = _with_native(balances, (before, snapshot), intent, coin)
        paid = store.journal.grant(intent.id).payout if intent.kind is IntentKind.PAYOUT else None
        at_s, apart = _chain_s(snapshot, own), _exempt_turnover(store.journal, intent)
        book_intent(
            store.budgets,
            intent,
            snapshot.owner,
            prices,
            native,
            at_s,
            balances,
            own is not None,
            coin,
            paid,
            apart,
        )
    record_balance_changes(store.balances, snapshot, present)


def _exempt_turnover(journal: Journal, intent: Intent) -> Fraction:
    """Value of a granted swap that limits of turnover do not count."""
    plan = journal.grant(intent.id).plan if intent.kind is IntentKind.SWAP else None
    return (
        plan.decision.apart
        if plan is not None and isinstance(plan.decision, Rebalance)
        else Fraction(0)
    )


def review_time_s(snapshot: Snapshot) -> int:
    """Chain time to record a review at: a header from the future must not delay every later step
    until that day.
    """
    return min(snapshot.head.timestamp_s, snapshot.now_s + MAX_CLOCK_LEAD_S)


def after_gas(step_input: StepInput, intent: Intent) -> StepInput:
    """Return the input with the gas money of `intent` deducted."""
    paid_wei = 0 if intent.receipt is None else intent.receipt.gas_cost_wei
    history, snapshot = step_input.history, step_input.snapshot
    return replace(
        step_input,
        history=replace(history, gas_24h_wei=history.gas_24h_wei + paid_wei),
        snapshot=replace(snapshot, native_wei=max(0, snapshot.native_wei - paid_wei)),
    )


def originating_step(steps: StepJournal, intent: Intent) -> StepInput | None:
    """Input of the step that an intent belongs to; None if it cannot be read any more."""
    try:
        text = steps.input_json(intent.step_id)
        return None if text is None else _read(text)
    except (ConfigError, OperatorNeeded):
        return None


@lru_cache(maxsize=2)
def _read(text: str) -> StepInput:
    """Parse a recorded step; cached, since its transactions are booked and posted one by one."""
    return codec.loads(StepInput, text)


def _unpriced(intent: Intent, basis: StepInput, prices: dict[str, Fraction]) -> bool:
    """True if the transaction spent an asset without a present price."""
    if intent.receipt is None:
        return False
    ours = {asset.token.address for asset in basis.portfolio.assets}
    return any(
        raw < 0 and token in ours and token not in prices
        for token, raw in intent.receipt.net(basis.snapshot.owner).items()
    )


def _balances(
    before: Snapshot, after: Snapshot, prices: dict[str, Fraction]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return balances by token, of priced tokens read both times: unread is not zero."""
    had = {holding.token: holding.raw for holding in before.holdings}
    has = {holding.token: holding.raw for holding in after.holdings}
    both = had.keys() & has.keys() & prices.keys()
    return {token: had[token] for token in both}, {token: has[token] for token in both}


def _with_native(
    balances: tuple[dict[str, int], dict[str, int]],
    snapshots: tuple[Snapshot, Snapshot],
    intent: Intent,
    coin: str,
) -> tuple[dict[str, int], dict[str, int]]:
    """Balances with native coin counted as its wrapped token, before the gas of `intent`."""
    gas_wei = 0 if intent.receipt is None else intent.receipt.gas_cost_wei
    natives_wei = snapshots[0].native_wei, snapshots[1].native_wei + gas_wei
    had, has = (
        {token: raw + (wei if token == coin else 0) for token, raw in held.items()}
        for held, wei in zip(balances, natives_wei, strict=True)
    )
    return had, has


def _chain_s(snapshot: Snapshot, own: StepInput | None) -> int:
    """Return the booking time: no later than the clock, and no earlier than the trade's own step.

    A header from the future then neither halts the agent until that day, nor moves an entry out of
    the last 24 hours (T6).
    """
    believed_s = max(
        snapshot.now_s + MAX_CLOCK_LEAD_S, 0 if own is None else own.snapshot.head.timestamp_s
    )
    return min(snapshot.head.timestamp_s, believed_s)
