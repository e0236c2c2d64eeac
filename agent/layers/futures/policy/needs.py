"""Decision of the futures layer at a block: a reduction that a limit requires, or orders towards
the targets. In an emergency, positions are closed ahead of liquidation, with a separate fee ceiling
and gas budget. The daily budget of reductions bounds the loss from repeated pushes of a mark (T12).
An owner's reduction cuts every position by the same share, or one market.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from fractions import Fraction

from agent.layers.futures.policy.exposure import (
    account_fault,
    is_delegate_wallet,
    quote_per_numeraire,
    spot_portfolio_value,
    uncertain_spot_reason,
)
from agent.layers.futures.policy.resting_stops import stop_changes
from agent.layers.futures.policy.targets import (
    DRIFT_REASONS,
    LIMIT_TRIGGERS,
    REDUCING_TRIGGERS,
    FuturesTrigger,
    due_triggers,
    emergency_sizes,
    fired_triggers,
    funding_notes,
    isolated_positions_reason,
    position_notes,
    stale_index_reasons,
    uncertain_profit_reason,
    unfinished_sizes,
    unnamed_market_reasons,
)
from agent.layers.futures.state import (
    FuturesProgress,
    FuturesState,
    futures_policy,
    futures_progress,
    futures_state,
    hold_futures,
    margin_account,
)
from agent.margin import account as margin
from agent.margin.contract_sizes import index_bound_raw
from agent.margin.state import after_resting_fills
from agent.model import (
    MARGIN_PLACE,
    AdjustFutures,
    AssetDrift,
    FuturesPlan,
    FuturesPolicy,
    FuturesReading,
    History,
    Limits,
    MarginAccount,
    PerpMarket,
    Plan,
    Portfolio,
    Position,
    RestingAction,
    Snapshot,
    StaleReadKind,
    StepInput,
)
from agent.policy import failures, native_coin
from agent.policy.decision import DecisionResult
from agent.units import BPS, DAY_S, Value, ceil_int, floor_int, format_time

ASK_REMEDY = "futures.ask requires a confirmation: trimtab rebalance --send"
"""Remedy of a trigger in futures.ask."""
AGENT_KEY_WARNING_S = 7 * DAY_S
"""Time before the expiry of an agent key's approval at which an alert begins."""
ORDER_GAS = 1_100_000
"""Gas of an order; the largest measured on the real contracts was 1.08 million."""


def due_futures_adjustment(step: StepInput, drifts: Sequence[AssetDrift]) -> AdjustFutures | None:
    """Return the futures adjustment due at this block; None without futures, if every weight and
    limit is kept, and while account or indexes are unknown (`add_notes` reports that). If an
    index is unknown, reductions continue in the other markets. `drifts` are empty while spot prices
    or balances are unknown, which blocks only the actions that depend on them.
    """
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    if account is None or policy is None or futures_progress(step).hold_reason:
        return None
    reason_by_stale_market = stale_market_reasons(step.snapshot, policy)
    if reason_by_stale_market and reason_by_stale_market.keys() >= {
        position.market for position in account.positions
    }:
        return None
    if emergency_sizes(account, policy).keys() - reason_by_stale_market.keys():
        return AdjustFutures("futures: liquidation is near", is_reducing=True)
    if unfinished_sizes(account, open_reduction_goals(step)).keys() - reason_by_stale_market.keys():
        return AdjustFutures("futures: a reduction is in progress", is_reducing=True)
    triggers = due_triggers(account, policy, spot_value_in_quote(step, drifts))
    if triggers and triggers[0] in LIMIT_TRIGGERS:
        return AdjustFutures(f"futures: {triggers[0].value} is above its limit", is_reducing=True)
    if account.resting_orders:
        triggers = due_triggers(
            after_resting_fills(account), policy, spot_value_in_quote(step, drifts)
        )
    is_rebalance = triggers and triggers[0] in DRIFT_REASONS
    is_opening_blocked = (
        reason_by_stale_market
        or unnamed_market_reasons(account)
        or step.snapshot.layer(FuturesReading).stale_reason()
    )
    if is_rebalance and not is_opening_blocked:
        return AdjustFutures(f"futures: {DRIFT_REASONS[triggers[0]]}", is_reducing=False)
    if due_stops(step.snapshot, step.history, futures_policy(step)):
        return STOPS_CHANGE
    return None


def is_reduction_due(snapshot: Snapshot, policy: FuturesPolicy | None) -> bool:
    """True if the account, judged without the spot portfolio, is near liquidation or breaches a
    limit.
    """
    account = margin_account(snapshot)
    if account is None or policy is None:
        return False
    triggers = due_triggers(account, policy, None)
    return bool(emergency_sizes(account, policy) or set(triggers) & set(LIMIT_TRIGGERS))


def needs_prompt_look(step: StepInput) -> bool:
    """True if the next look must not wait for the interval of a run: a reduction is due, or the
    account is unknown by a fault that passes.
    """
    policy = futures_policy(step)
    if policy is None:
        return False
    return step.snapshot.layer(FuturesReading).is_passing or is_reduction_due(step.snapshot, policy)


def hold_blocked_futures(step: StepInput) -> StepInput:
    """Return the step with futures held while the venue refuses orders by the agent's key."""
    block_reason = step.snapshot.layer(FuturesReading).blocked_reason
    if futures_policy(step) is None or not block_reason:
        return step
    return hold_futures(step, f"futures: no order, {block_reason}")


def account_for_planning(step: StepInput, drifts: Sequence[AssetDrift]) -> MarginAccount | None:
    """Return the account from which orders are planned: as if every resting limit order were
    filled, unless a reduction is due; None without an account.
    """
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    if account is None or policy is None or not account.resting_orders:
        return account
    triggers = due_triggers(account, policy, spot_value_in_quote(step, drifts))
    is_reduction_due = emergency_sizes(account, policy) or unfinished_sizes(
        account, open_reduction_goals(step)
    )
    return (
        account
        if is_reduction_due or (triggers and triggers[0] in LIMIT_TRIGGERS)
        else after_resting_fills(account)
    )


STOPS_CHANGE_REASON = "resting stops do not match the positions"
STOPS_CHANGE = AdjustFutures(f"futures: {STOPS_CHANGE_REASON}", is_reducing=True)
"""Due adjustment of resting stops alone."""
RESTING_STOP = "resting_stop"
"""Trigger of changes of resting stops, and name under which their failures are counted."""


def due_stops(
    snapshot: Snapshot, history: History, policy: FuturesPolicy | None
) -> tuple[RestingAction, ...]:
    """Return the changes of resting stops that are due, without those of markets that back off;
    empty while the open orders may be old.
    """
    account = margin_account(snapshot)
    if account is None or policy is None:
        return ()
    if snapshot.layer(FuturesReading).stale_reason(StaleReadKind.ORDERS):
        return ()
    reason_by_stale_market = stale_market_reasons(snapshot, policy)
    return tuple(
        stop_change
        for stop_change in stop_changes(account, policy)
        if stop_change.market not in reason_by_stale_market
        and not back_off_reason(snapshot, history, f"{RESTING_STOP} {stop_change.market}")
    )


def reduction_goals(snapshot: Snapshot, plan: FuturesPlan) -> tuple[tuple[str, int], ...]:
    """Return the size at which each position of a limit's reduction ends; empty for other plans.
    Orders are sent one by one, each planned again. After the first order the limit may hold again,
    but the others must still be cut by the same share.
    """
    account = margin_account(snapshot)
    if account is None or plan.trigger not in {trigger.value for trigger in REDUCING_TRIGGERS}:
        return ()
    return tuple(
        (order.market, account.size_raw(order.market) + order.size_raw) for order in plan.orders
    )


def open_reduction_goals(step: StepInput) -> tuple[tuple[str, int], ...]:
    """Return the goals of the cycle's reduction without those of markets that back off: while they
    wait, the limits are judged anew and the other markets are reduced.
    """
    return tuple(
        (market, goal_raw)
        for market, goal_raw in futures_progress(step).reduction_goals
        if not back_off_reason(step.snapshot, step.history, market)
    )


def stale_market_reasons(snapshot: Snapshot, policy: FuturesPolicy | None) -> dict[str, str]:
    """Return, by market, why each unknown index is unknown; empty without an account."""
    account = margin_account(snapshot)
    if policy is None or account is None:
        return {}
    return stale_index_reasons(account, policy, snapshot.head.timestamp_s)


def futures_fault(snapshot: Snapshot, policy: FuturesPolicy | None) -> str:
    """Return why the futures layer opens no position at this block; empty if it may."""
    reasons = (
        "" if policy is None else snapshot.layer(FuturesReading).stale_reason(),
        *blocking_market_reasons(snapshot, policy).values(),
    )
    return account_fault(snapshot, policy) or ", ".join(filter(None, reasons))


def blocking_market_reasons(snapshot: Snapshot, policy: FuturesPolicy | None) -> dict[str, str]:
    """Return, by market, why its position prevents new positions and is not reduced first: its
    index is unknown, or the config does not name the market. Empty without an account.
    """
    account = margin_account(snapshot)
    return (
        {}
        if account is None
        else {**unnamed_market_reasons(account), **stale_market_reasons(snapshot, policy)}
    )


def reopening_s(policy: FuturesPolicy | None, state: FuturesState) -> int:
    """Return the chain time from which positions may be opened again after an emergency; zero if
    there was none. The wait prevents a price that gaps back from opening and closing them once
    more.
    """
    last_emergency_s = state.last_emergency_s
    if policy is None or last_emergency_s is None or not policy.limits.emergency_cooldown_s:
        return 0
    return last_emergency_s + policy.limits.emergency_cooldown_s


def cooldown_reason(opens_from_s: int, now_s: int) -> str:
    """Return why no position is opened after an emergency; empty if one may be."""
    if now_s >= opens_from_s:
        return ""
    return f"no position is opened before {format_time(opens_from_s)}, after an emergency"


def add_notes(step: StepInput, decision_result: DecisionResult) -> DecisionResult:
    """Return the decision with notes on a futures layer that cannot act or waits for the user, on
    positions kept small by funding, and on a delegate's key.
    """
    notes = []
    drifts = decision_result.drifts
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    waiting_reasons = [
        DRIFT_REASONS.get(trigger, f"{trigger.value} is above its limit")
        for trigger in waiting_triggers(step, drifts)
    ]
    if fault := futures_fault(step.snapshot, policy):
        open_count = 0 if account is None else len(account.positions)
        has_other_positions = open_count > len(blocking_market_reasons(step.snapshot, policy))
        notes.append(
            f"futures: {'nothing is opened' if has_other_positions else 'no order'}, {fault}"
        )
    else:
        if why := spot_multiple_fault(step, drifts):
            notes.append(f"futures: spot_multiple is not judged, {why}")
        if waiting_reasons:
            notes.append(f"futures: {', '.join(waiting_reasons)}; {ASK_REMEDY}")
        if policy is not None and account is not None:
            position_messages = (*position_notes(account, policy), *funding_notes(account, policy))
            notes += [f"futures: {why}" for why in position_messages]
    if cooldown_text := cooldown_reason(
        reopening_s(policy, futures_state(step)), step.snapshot.head.timestamp_s
    ):
        notes.append(f"futures: {cooldown_text}")
    if futures_progress(step).hold_reason:
        notes.append(futures_progress(step).hold_reason)
    notes += [f"futures: {why}" for why in _silent_back_offs(step)]
    if account is not None and (why := isolated_positions_reason(account)):
        notes.append(f"futures: {why}")
    if account is not None and (why := uncertain_profit_reason(account)):
        notes.append(f"futures: {why}")
    if policy is not None and is_delegate_wallet(step.snapshot, policy):
        notes.append(
            f"futures: this key is a delegate of {policy.trader}; it trades and neither"
            " deposits nor withdraws margin, which counts in the owner's portfolio alone"
        )
    return decision_result.with_notes(*notes)


def _silent_back_offs(step: StepInput) -> list[str]:
    """Return which resting stops and deposits back off after failures; of orders the plan says
    it.
    """
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    if account is None or policy is None:
        return []
    name_by_key = {MARGIN_PLACE: "deposits of margin"} | {
        f"{RESTING_STOP} {change.market}": f"the resting stop of {account.market(change.market).symbol}"
        for change in stop_changes(account, policy)
    }
    return [
        f"{name}: {why}"
        for failure_key, name in name_by_key.items()
        if (why := back_off_reason(step.snapshot, step.history, failure_key))
    ]


def spot_multiple_fault(step: StepInput, drifts: Sequence[AssetDrift]) -> str:
    """Return why the spot multiple is not judged; empty if it is judged or off."""
    if (policy := futures_policy(step)) is None or not policy.limits.spot_multiple_bps:
        return ""
    if not drifts:
        return "a price or balance of the spot portfolio is missing or contradictory"
    return uncertain_spot_reason(step)


def waiting_triggers(step: StepInput, drifts: Sequence[AssetDrift]) -> tuple[FuturesTrigger, ...]:
    """Return the triggers that fired and wait for the user; empty while prices are unknown."""
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    if step.snapshot.layer(FuturesReading).blocked_reason or futures_fault(step.snapshot, policy):
        return ()
    if account is None or policy is None or not policy.manual_triggers or not drifts:
        return ()
    triggers = fired_triggers(account, policy, spot_value_in_quote(step, drifts))
    return tuple(trigger for trigger in triggers if trigger.value in policy.manual_triggers)


def spot_value_in_quote(step: StepInput, drifts: Sequence[AssetDrift]) -> Value | None:
    """Return the spot portfolio's value in base units of the futures quote; None if it is
    uncertain, because drifts are missing or assets count as zero.
    """
    if not drifts or uncertain_spot_reason(step):
        return None
    return spot_portfolio_value(drifts) * quote_per_numeraire(step.snapshot, step.portfolio)


def depositable_raw(step: StepInput, drifts: Sequence[AssetDrift]) -> int:
    """Return the collateral that this step may deposit, in its own base units: the wallet's
    spendable balance, within futures.limits.max_top_up_per_day. Zero for a delegate's key, after
    failed deposits, and while the last 24 h are unknown. Without drifts only the collateral, which
    is the numeraire, counts in the value of the spot portfolio.
    """
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    if (
        account is None
        or policy is None
        or is_delegate_wallet(step.snapshot, policy)
        or step.history.budgets.unknown_reason
    ):
        return 0
    if drifts:
        spendable_raw = sum(
            drift.investable_raw for drift in drifts if drift.token == policy.collateral
        )
        spot_value = spot_portfolio_value(drifts)
    else:
        spendable_raw = spendable_collateral_raw(
            step.snapshot, step.portfolio, step.limits, policy.collateral
        )
        spot_value = Fraction(spendable_raw)
    if back_off_reason(step.snapshot, step.history, MARGIN_PLACE):
        return 0
    if (budget_bps := policy.limits.top_up_per_day_bps) is None:
        return spendable_raw
    daily_budget = spot_value * budget_bps / BPS  # only the known part
    budget_left = (daily_budget - futures_state(step).top_up_value_24h) * quote_per_numeraire(
        step.snapshot, step.portfolio
    )
    return max(0, min(spendable_raw, floor_int(budget_left / account.collateral_unit_raw)))


def spendable_collateral_raw(
    snapshot: Snapshot, portfolio: Portfolio, limits: Limits, token: str
) -> int:
    """Return the wallet's spendable balance of a token, base units; zero unless it is known for
    certain.
    """
    read_balances_raw = {holding.raw for holding in snapshot.holdings if holding.token == token}
    asset = portfolio.find_asset(token)
    if asset is None or len(read_balances_raw) != 1:
        return 0
    if any(item.address == token for item in snapshot.unreadable_items):
        return 0
    return max(0, read_balances_raw.pop() - native_coin.reserved_raw(limits, asset))


def agent_key_ends_soon(snapshot: Snapshot) -> bool:
    """True within AGENT_KEY_WARNING_S of the time at which the agent key's approval expires."""
    return (
        0
        < snapshot.layer(FuturesReading).key_approval_expires_s
        < snapshot.now_s + AGENT_KEY_WARNING_S
    )


def back_off_reason(
    snapshot: Snapshot, history: History, market: str, *, is_emergency: bool = False
) -> str:
    """Return why a market backs off after failed reductions; empty if it does not."""
    market_failures = failures.exit_failures(history, market)
    retry_at_s = failures.retry_at_s(market_failures, is_emergency=is_emergency)
    if snapshot.head.timestamp_s >= retry_at_s:
        return ""
    return f"its orders failed or were refused; tried again at {format_time(retry_at_s)}"


MIN_BUDGET_SHARE = Fraction(1, 100)
"""Share of the budget below which the rest counts as used, so that no order is too small for its
gas.
"""


def index_requires_reduction(
    snapshot: Snapshot, policy: FuturesPolicy | None, spot_value: Fraction | None
) -> bool:
    """Return True if the account breaches a limit with every mark set to its index. A stale index
    is replaced by the mark if that is better for the account. An unknown spot value (None, else in
    quote base units) requires no reduction.
    """
    account = margin_account(snapshot)
    if account is None or policy is None:
        return False
    account_at_index = margin.with_index_marks(account, stale_market_reasons(snapshot, policy))
    return bool(set(due_triggers(account_at_index, policy, spot_value)) & set(LIMIT_TRIGGERS))


def uses_reduction_budget(plan: Plan) -> bool:
    """True unless the owner requested the plan or it closes a hedge by the hedge's own rules: these
    reductions neither count in futures.limits.max_reduction_per_day nor are cut to it.
    """
    decision = plan.decision
    return not (
        isinstance(decision, AdjustFutures) and (decision.by_owner or decision.closed_hedge_market)
    )


def reduction_budget_left(step: StepInput, spot_value: Fraction | None) -> Fraction | None:
    """Return the notional at the index, in quote base units, that reductions may still close within
    24 h; None if the budget does not bound them: it is off, the index requires the reduction, or
    the last 24 h are unknown, which the guard judges. Less than MIN_BUDGET_SHARE of the budget is
    zero.
    """
    account = margin_account(step.snapshot)
    policy = futures_policy(step)
    if account is None or policy is None or not policy.limits.reduction_per_day_bps:
        return None
    if step.history.budgets.unknown_reason or index_requires_reduction(
        step.snapshot, policy, spot_value
    ):
        return None
    account_value = max(0, margin.account_value_raw(account))
    daily_budget = Fraction(account_value * policy.limits.reduction_per_day_bps, BPS)
    budget_left = daily_budget - futures_state(step).reduced_notional_24h * quote_per_numeraire(
        step.snapshot, step.portfolio
    )
    return budget_left if budget_left > daily_budget * MIN_BUDGET_SHARE else Fraction(0)


def emergency_adjustment(
    snapshot: Snapshot, policy: FuturesPolicy | None, progress: FuturesProgress
) -> AdjustFutures | None:
    """Return the emergency of the account, judged at the marks, as liquidation is; None if there is
    none, while the account is unknown, and if no market of its orders has a fresh index.
    """
    account = margin_account(snapshot)
    if account is None or policy is None or progress.hold_reason:
        return None
    if not emergency_sizes(account, policy).keys() - stale_market_reasons(snapshot, policy).keys():
        return None
    return AdjustFutures("futures: liquidation is near", is_reducing=True)


def closing_sizes(account: MarginAccount, market: str) -> dict[str, int]:
    """Return the size of the order that closes the position in a market, by market; empty without a
    position.
    """
    size_raw = account.size_raw(market)
    return {market: -size_raw} if size_raw else {}


def deleverage_sizes(
    account: MarginAccount, max_leverage: Fraction, markets: Collection[str], slippage_bps: int
) -> dict[str, int]:
    """Return the sizes of the orders, by market, that reduce the positions in `markets` by the same
    share, in whole lots rounded up, until the leverage is at most `max_leverage`; empty if it
    already is. Each fill counts at its bound with its fee. Positions are closed if nothing less is
    enough.
    """
    gross_notional = margin.gross_notional_raw(account)
    account_value = margin.account_value_raw(account)
    positions = [position for position in account.positions if position.market in markets]
    excess_notional = gross_notional - max_leverage * max(0, account_value)
    if excess_notional <= 0 or not positions:
        return {}
    removable_excess = sum(
        (
            abs(margin.value_at_mark_raw(account, position))
            * (
                1
                - max_leverage
                * _closing_cost_share(account.market(position.market), position, slippage_bps)
            )
            for position in positions
        ),
        Fraction(0),
    )
    reduced_share = (
        min(Fraction(1), excess_notional / removable_excess)
        if removable_excess > 0
        else Fraction(1)
    )
    size_by_market = {}
    for position in positions:
        lot_raw = account.market(position.market).lot_raw
        abs_size_raw = min(
            abs(position.size_raw),
            ceil_int(abs(position.size_raw) * reduced_share / lot_raw) * lot_raw,
        )
        size_by_market[position.market] = position.reduction_raw(abs_size_raw)
    return size_by_market


def _closing_cost_share(market: PerpMarket, position: Position, slippage_bps: int) -> Fraction:
    """Return the cost of closing at the bound, fee included, per notional at the mark."""
    mark_value = abs(position.size_raw) * market.mark
    bound_raw = index_bound_raw(market, -position.size_raw, slippage_bps)
    slippage_value = mark_value - bound_raw if position.is_long else bound_raw - mark_value
    fee_value = max(mark_value, Fraction(bound_raw)) * market.fee_ppm / margin.PPM
    return (max(Fraction(0), Fraction(slippage_value)) + fee_value) / mark_value
