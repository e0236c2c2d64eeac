"""Book mined transactions: loss and turnover, at the prices before the trade where known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from agent import codec
from agent.errors import ConfigError, ErrorCode, OperatorNeeded, PassingFault
from agent.layers.memories import bookings_of
from agent.model import (
    MAX_BLOCK_LEAD_S,
    NATIVE_VENUE,
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
from agent.policy.cash_flows import balance_changes
from agent.reference import reference_prices
from agent.store.accounts.balances import BalanceStore
from agent.store.accounts.budgets import BudgetStore
from agent.store.journal.intents import IntentStore
from agent.store.journal.steps import StepStore
from agent.store.prices import PriceStore
from agent.store.store import Store
from agent.units import DAY_S, NATIVE

NATIVE_PRICE_AGE_S = 7 * DAY_S
"""Largest age of a recorded price of the native coin at which gas without another is booked."""

# --- Result of a mined transaction: amounts by leg, turnover, and loss at the prices before (T6).


@dataclass(frozen=True, slots=True)
class LegExecution:
    """A leg of a plan and the amounts that it exchanged, base units, by its pool's Transfer events,
    or by the PoolManager's Swap events; None if there is no receipt, or it does not show them.
    """

    leg: Leg
    in_raw: int | None = None
    out_raw: int | None = None

    @property
    def is_known(self) -> bool:
        """True if the receipt shows both amounts."""
        return None not in (self.in_raw, self.out_raw)

    @property
    def difference_share(self) -> Fraction | None:
        """Realised against planned output per unit of input, as a share; negative for a worse
        price, None if an amount is unknown.
        """
        if not self.in_raw or self.out_raw is None or not self.leg.amount_out_raw:
            return None
        planned_rate = Fraction(self.leg.amount_out_raw, self.leg.amount_in_raw)
        return Fraction(self.out_raw, self.in_raw) / planned_rate - 1


def realised_legs(plan: Plan, receipt: Receipt) -> tuple[LegExecution, ...]:
    """Return the plan's legs as executed.

    Pools that serve several legs are matched in leg order. An amount that passes directly from one
    pool to the next is output of the first leg and input of the second.
    """
    outgoing_transfers = list(receipt.transfers)
    incoming_transfers = list(receipt.transfers)
    wrap_transfers = list(receipt.wrap_transfers)
    unused_swaps = list(receipt.managed_swaps)

    def take_transfer(
        unused_transfers: list[Transfer], matches: Callable[[Transfer], bool]
    ) -> int | None:
        for index, transfer in enumerate(unused_transfers):
            if matches(transfer):
                return unused_transfers.pop(index).raw
        return None

    def leg_amounts(leg: Leg) -> tuple[int | None, int | None]:
        if leg.venue == NATIVE_VENUE:
            wrapped_raw = take_transfer(wrap_transfers, lambda transfer: _is_wrap_of(transfer, leg))
            return wrapped_raw, wrapped_raw
        for index, swap in enumerate(unused_swaps):
            if swap.pool == leg.pool:
                del unused_swaps[index]
                return swap.in_raw, swap.out_raw
        return (
            take_transfer(
                incoming_transfers,
                lambda transfer: (transfer.token, transfer.recipient) == (leg.token_in, leg.pool),
            ),
            take_transfer(
                outgoing_transfers,
                lambda transfer: (transfer.token, transfer.sender) == (leg.token_out, leg.pool),
            ),
        )

    return tuple(LegExecution(leg, *leg_amounts(leg)) for leg in plan.legs)


def _is_wrap_of(transfer: Transfer, leg: Leg) -> bool:
    """True if the Deposit or Withdrawal event belongs to a leg that wraps or unwraps."""
    native_side = transfer.sender if leg.token_in == NATIVE else transfer.recipient
    return transfer.token == leg.pool and native_side == NATIVE


def trade_loss(
    balances_before: Mapping[str, int],
    balances_after: Mapping[str, int],
    prices: Mapping[str, Fraction],
    gas_value: Fraction,
) -> Fraction:
    """Return numeraire base units lost (negative: gained): balances before less balances after, at
    the prices before the trade, plus gas.

    Balances are base units by token; `prices` are numeraire base units per token base unit. An
    increase of a token without a price counts as zero; a decrease cannot be valued now and raises
    PassingFault.
    """
    loss = gas_value
    for token in sorted({*balances_before, *balances_after}):
        delta_raw = balances_after.get(token, 0) - balances_before.get(token, 0)
        price = prices.get(token)
        if price is None and delta_raw < 0:
            raise PassingFault(
                f"{-delta_raw} base units of {token} left the wallet without a reference price",
                "check the receipt, then add a feed for it",
                code=ErrorCode.REFERENCE_PRICE,
            )
        loss -= delta_raw * (price or 0)
    return loss


def trade_turnover(change_by_token: Mapping[str, int], prices: Mapping[str, Fraction]) -> Fraction:
    """Return half the sum of absolute changes in value, numeraire base units, without tokens that
    have no price.
    """
    value_changes = (
        abs(change_raw) * prices.get(token, Fraction(0))
        for token, change_raw in change_by_token.items()
    )
    return sum(value_changes, Fraction(0)) / 2


@dataclass(frozen=True, slots=True)
class BookingPrices:
    """Reference prices before the trade, in base units of the numeraire: of a base unit of each
    token, and of one wei. Only tokens in `price_by_token` count.

    Native coin counts as its token `wrapped_native`, so that wrapping costs nothing. Prices of
    another time cannot prove a gain.
    """

    price_by_token: Mapping[str, Fraction]
    native_price: Fraction
    wrapped_native: str = ""
    can_prove_gain: bool = True


@dataclass(frozen=True, slots=True)
class TradePurpose:
    """What limits treat unlike an ordinary trade: a payout is an outflow, not a loss;
    `exempt_turnover` is the value of a purchase or of a withdrawal's sale; an exit sells for the
    token `exit_proceeds_token`, and only its purchases of other tokens are turnover, as in the
    guards.
    """

    payout: Payout | None = None
    exempt_turnover: Fraction = Fraction(0)
    exit_proceeds_token: str = ""


def book_intent(
    budgets: BudgetStore,
    intent: Intent,
    wallet: str,
    prices: BookingPrices,
    chain_s: int,
    balances_before_after: tuple[Mapping[str, int], Mapping[str, int]] | None = None,
    purpose: TradePurpose = TradePurpose(),
) -> Fraction:
    """Book a mined intent, including a reverted one and a cancel, and return its loss. Booking is
    idempotent. `chain_s` is the time of the block, or later.

    Of the losses by receipt events and by balances, if read, the larger counts, so neither false
    events nor a deposit in between hides a loss.
    """
    receipt = intent.receipt
    if receipt is None:
        raise ValueError(f"intent {intent.id} has no receipt to book")
    price_by_token = prices.price_by_token
    wrapped_native = prices.wrapped_native
    gas_value = receipt.gas_cost_wei * prices.native_price
    change_by_token = {
        token: raw
        for token, raw in intent.traded_raw_by_token(wallet, wrapped_native).items()
        if token in price_by_token
    }
    payout_raw_by_token = _payout_raw(receipt, purpose.payout, wrapped_native)
    outflow_value = Fraction(0)
    for token, raw in payout_raw_by_token.items():
        change_by_token[token] = change_by_token.get(token, 0) + raw
        outflow_value += raw * price_by_token.get(token, Fraction(0))
    loss = trade_loss({}, change_by_token, price_by_token, gas_value)
    if balances_before_after is not None:
        loss = max(loss, trade_loss(*balances_before_after, price_by_token, gas_value))
    if not prices.can_prove_gain:
        loss = max(loss, gas_value)
    gross_turnover = Fraction(0)
    if purpose.exit_proceeds_token:
        other_values = (
            raw * price_by_token[token]
            for token, raw in change_by_token.items()
            if token != purpose.exit_proceeds_token
        )
        gross_turnover = sum(
            (other_value for other_value in other_values if other_value > 0), gross_turnover
        )
    elif purpose.payout is None:
        gross_turnover = trade_turnover(change_by_token, price_by_token)
    turnover = max(Fraction(0), gross_turnover - purpose.exempt_turnover)
    budgets.book_intent(intent, turnover, loss, receipt.gas_cost_wei, chain_s, outflow_value)
    return loss


def _payout_raw(receipt: Receipt, payout: Payout | None, wrapped_native: str) -> dict[str, int]:
    """Return the base units, by token, of a successful payout."""
    if payout is None or receipt.status != 1:
        return {}
    return {wrapped_native if payout.token == NATIVE else payout.token: payout.raw}


# --- Booking before each step; balances that differ from the expected ones are external transfers.


def record_balance_changes(
    balance_store: BalanceStore, snapshot: Snapshot, current_step: Callable[[], StepInput]
) -> tuple[ExpectedBalances, tuple[ExternalTransfer, ...]]:
    """Record what differs from the expected balances, and the balances of `snapshot` as the new
    basis. Return the expected balances and the recorded transfers: new ones, and older ones newly
    valued or accepted.

    `current_step` is called only if a balance may have changed. If the snapshot cannot be compared,
    or another process wrote first, nothing is recorded, and the next cycle compares again.
    """
    current_raw = balance_changes.balances_of(snapshot)

    def is_explained(expected_balances: ExpectedBalances) -> bool:
        return (
            balance_changes.is_comparable(snapshot, expected_balances)
            and not balance_changes.balance_differences(snapshot, expected_balances)
            and not balance_changes.transfer_may_change(snapshot, expected_balances)
        )

    expected_before, is_recorded = balance_store.record_explained(
        snapshot, current_raw, is_explained
    )
    if is_recorded or not balance_changes.is_comparable(snapshot, expected_before):
        return expected_before, ()
    step = current_step()
    expected_balances = balance_store.expected()  # more external transactions may be known now
    transfers = balance_changes.changes_to_record(step, expected_balances)
    if not balance_store.record(snapshot, current_raw, transfers, expected_balances.version):
        return expected_balances, ()
    return expected_balances, transfers


def settle_mined(
    store: Store,
    snapshot: Snapshot,
    current_step: Callable[[], StepInput],
    snapshot_before: Snapshot | None = None,
) -> frozenset[int]:
    """Book every mined transaction missing from the budgets, at the reference prices of its own
    step, end withdrawals that are paid, then compare balances. Return the blocks of the newest known
    changes of balances.

    `current_step` is called only if a balance may have changed, or if that step is unreadable
    (written by another version): then current prices are used and no gain counts. While a token
    spent in an unreadable step has no price, the transaction stays unbooked and nothing is planned.
    With `snapshot_before`, read before the last trade, the larger of the losses by balances and by
    events counts, unless every expected balance is known: then a difference is an external transfer
    and is counted as one. Tokens without a price, foreign ones included, count as zero, because a
    plan cannot spend them and events of unknown contracts prove nothing (T11).
    """
    unbooked_intents = store.journal.unbooked_intents()
    all_balances_expected = True
    if unbooked_intents and snapshot_before is not None:
        expected_tokens = {opening.token for opening in store.balances.expected().openings}
        all_balances_expected = expected_tokens >= {holding.token for holding in snapshot.holdings}
    for intent in unbooked_intents:
        intent_step = originating_step(store.steps, intent)
        price_step = intent_step or current_step()
        prices = reference_prices(price_step).price_by_token
        if intent_step is None and _spent_unpriced_asset(
            intent, price_step.portfolio, price_step.snapshot.owner, prices
        ):
            continue
        wrapped_native = price_step.portfolio.wrapped_native
        booked_at_s = _booking_time_s(snapshot, intent_step)
        native_price = prices.get(wrapped_native)
        if native_price is None:
            native_price = _recorded_native_price(store.prices, price_step)
        if (layer_bookings := bookings_of(intent.kind)) is not None:
            snapshot_after = None if snapshot_before is None else snapshot
            layer_bookings.book_intent(
                store, intent, intent_step, price_step, snapshot_after, native_price, booked_at_s
            )
            continue
        balances_before_after = None
        if (
            snapshot_before is not None
            and not all_balances_expected
            and intent.kind in _TRADE_KINDS
        ):
            balances_before_after = _priced_balances(snapshot_before, snapshot, prices)
            if intent.native_change_wei(snapshot.owner, wrapped_native):
                balances_before_after = _with_native(
                    balances_before_after, (snapshot_before, snapshot), intent, wrapped_native
                )
        book_intent(
            store.budgets,
            intent,
            snapshot.owner,
            BookingPrices(prices, native_price, wrapped_native, intent_step is not None),
            booked_at_s,
            balances_before_after,
            _purpose(store.journal, intent, price_step.portfolio),
        )
    store.requests.end_paid_withdrawals(snapshot.now_s)
    expected_balances, transfers = record_balance_changes(store.balances, snapshot, current_step)
    transfer_blocks = [transfer.block for transfer in (*expected_balances.transfers, *transfers)]
    return frozenset(
        [*transfer_blocks, *(change.block for change in expected_balances.own_changes)]
    )


def _recorded_native_price(prices: PriceStore, step: StepInput) -> Fraction:
    """Return the last recorded price of a wei, for gas while its feed is stale: at most
    NATIVE_PRICE_AGE_S old, else zero.
    """
    now_s = step.snapshot.head.timestamp_s
    price_points = prices.prices_between(
        step.portfolio.numeraire.address, now_s - NATIVE_PRICE_AGE_S, now_s
    )
    native_prices = [
        price_point.price
        for price_point in price_points
        if price_point.token == step.portfolio.wrapped_native
    ]
    return native_prices[-1] if native_prices else Fraction(0)


_TRADE_KINDS = (IntentKind.SWAP, IntentKind.UNWRAP)


def _purpose(journal: IntentStore, intent: Intent, portfolio: Portfolio) -> TradePurpose:
    """Return the purpose for which a payout or swap was granted."""
    if intent.kind is IntentKind.PAYOUT:
        return TradePurpose(payout=journal.grant(intent.id).payout)
    plan = journal.grant(intent.id).plan if intent.kind is IntentKind.SWAP else None
    if plan is None:
        return TradePurpose()
    return TradePurpose(
        exempt_turnover=(
            plan.decision.exempt_turnover if isinstance(plan.decision, Rebalance) else Fraction(0)
        ),
        exit_proceeds_token=portfolio.numeraire.address if plan.is_exit else "",
    )


def after_gas(step_input: StepInput, intent: Intent) -> StepInput:
    """Return the input with the gas cost of `intent` deducted."""
    gas_cost_wei = 0 if intent.receipt is None else intent.receipt.gas_cost_wei
    history = step_input.history
    snapshot = step_input.snapshot
    return replace(
        step_input,
        history=replace(
            history,
            budgets=replace(
                history.budgets, gas_24h_wei=history.budgets.gas_24h_wei + gas_cost_wei
            ),
        ),
        snapshot=replace(snapshot, native_wei=max(0, snapshot.native_wei - gas_cost_wei)),
    )


def originating_step(steps: StepStore, intent: Intent) -> StepInput | None:
    """Return the input of the step that an intent belongs to; None if it is unreadable."""
    try:
        input_json = steps.input_json(intent.step_id)
        return None if input_json is None else _parse_step(input_json)
    except (ConfigError, OperatorNeeded):
        return None


@lru_cache(maxsize=2)
def _parse_step(input_json: str) -> StepInput:
    """Parse a recorded step; cached, since a step's transactions are booked one by one."""
    return codec.loads(StepInput, input_json)


def _spent_unpriced_asset(
    intent: Intent, portfolio: Portfolio, owner: str, prices: dict[str, Fraction]
) -> bool:
    """True if the transaction spent an asset that has no price now; native coin counts as its
    wrapped token.
    """
    if intent.receipt is None:
        return False
    spent_tokens = {token for token, raw in intent.receipt.net_transfers(owner).items() if raw < 0}
    if intent.native_change_wei(owner, portfolio.wrapped_native) < 0:
        spent_tokens.add(portfolio.wrapped_native)
    asset_tokens = {asset.token.address for asset in portfolio.assets}
    return bool(spent_tokens & asset_tokens - prices.keys())


def _priced_balances(
    snapshot_before: Snapshot, snapshot_after: Snapshot, prices: dict[str, Fraction]
) -> tuple[dict[str, int], dict[str, int]]:
    """Return balances before and after by token, for priced tokens that are in both snapshots,
    because an unread balance is not zero.
    """
    old_raw_by_token = {holding.token: holding.raw for holding in snapshot_before.holdings}
    new_raw_by_token = {holding.token: holding.raw for holding in snapshot_after.holdings}
    shared_tokens = old_raw_by_token.keys() & new_raw_by_token.keys() & prices.keys()
    return {token: old_raw_by_token[token] for token in shared_tokens}, {
        token: new_raw_by_token[token] for token in shared_tokens
    }


def _with_native(
    balances_before_after: tuple[dict[str, int], dict[str, int]],
    snapshots: tuple[Snapshot, Snapshot],
    intent: Intent,
    wrapped_native: str,
) -> tuple[dict[str, int], dict[str, int]]:
    """Return the balances with native coin added to its wrapped token, before the gas of
    `intent`.
    """
    gas_wei = 0 if intent.receipt is None else intent.receipt.gas_cost_wei
    native_wei_before_after = snapshots[0].native_wei, snapshots[1].native_wei + gas_wei
    old_raw_by_token, new_raw_by_token = (
        {
            token: raw + (native_wei if token == wrapped_native else 0)
            for token, raw in balance_by_token.items()
        }
        for balance_by_token, native_wei in zip(
            balances_before_after, native_wei_before_after, strict=True
        )
    )
    return old_raw_by_token, new_raw_by_token


def _booking_time_s(snapshot: Snapshot, intent_step: StepInput | None) -> int:
    """Return the booking time: not after the clock, and not before the trade's own step. So a
    header from the future neither halts the agent until that time nor moves an entry out of the
    last 24 hours (T6).
    """
    latest_s = snapshot.now_s + MAX_BLOCK_LEAD_S
    if intent_step is not None:
        latest_s = max(latest_s, intent_step.snapshot.head.timestamp_s)
    return min(snapshot.head.timestamp_s, latest_s)
