"""Guards of futures actions: age of the index, order bounds, basis, the account after all actions,
margin moves, and the daily budgets of deposits and reductions.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

from agent.guards.case import GuardCase, GuardMeasurement, MissingData, measure_in_layer
from agent.guards.guard import Guard, fixed_guard, format_money, format_ratio, format_seconds
from agent.layers.futures.guard_case import FuturesCase
from agent.layers.futures.policy.books import completes_set
from agent.layers.futures.policy.exposure import (
    is_delegate_wallet,
    margin_value,
    quote_per_numeraire,
    uncertain_spot_reason,
)
from agent.layers.futures.policy.needs import (
    index_requires_reduction,
    reopening_s,
    spendable_collateral_raw,
    uses_reduction_budget,
)
from agent.layers.futures.policy.targets import emergency_sizes, unnamed_market_reasons
from agent.layers.futures.state import (
    FuturesState,
    futures_policy,
)
from agent.margin import account as margin
from agent.margin.contract_sizes import index_bound_raw
from agent.margin.state import (
    after_action,
    after_resting_fills,
    breaches_after,
    is_reduction,
)
from agent.model import (
    AdjustFutures,
    DelegateChange,
    FuturesAction,
    FuturesLimits,
    FuturesPlan,
    FuturesPolicy,
    FuturesReading,
    MarginAccount,
    MarginDeposit,
    MarginWithdrawal,
    PerpOrder,
    StopOrder,
)
from agent.policy.step_faults import decision_faults
from agent.units import BPS, Value, decimal_text, format_bps


def _require_futures(case: GuardCase) -> tuple[FuturesPlan, FuturesPolicy, MarginAccount]:
    """Return orders, policy and account. Raises MissingData."""
    answers = case.layer_answers
    if not isinstance(answers, FuturesCase):
        raise MissingData("the plan has no futures actions")
    return measure_in_layer(answers.known_futures)


def index_age(case: GuardCase) -> GuardMeasurement:
    """Return the age of the oldest index, by block time, among the markets of the orders and,
    unless every action is a reduction, of the positions. A reduction needs only the index of its
    own market.
    """
    layer_plan, policy, account = _require_futures(case)
    judged_markets = {order.market for order in (*layer_plan.orders, *layer_plan.resting_actions)}
    if layer_plan.account_actions or not case.layer_answers.only_reduces():
        judged_markets |= {position.market for position in account.positions}
    now_s = case.step.snapshot.head.timestamp_s
    ages_and_symbols = [
        (now_s - market.index_s, market.symbol)
        for market in account.markets
        if market.market in judged_markets
    ]
    if any(age_s < 0 for age_s, _ in ages_and_symbols):
        return GuardMeasurement("an index dated in the future", False)
    if not ages_and_symbols:
        return GuardMeasurement("no market has an order or a position", True)
    age_s, symbol = max(ages_and_symbols)
    limit_s = policy.limits.index_age_s
    return GuardMeasurement(
        f"{format_seconds(age_s)} ({symbol})", age_s <= limit_s, format_seconds(limit_s)
    )


def order_bound(case: GuardCase) -> GuardMeasurement:
    """Require each order's bound to be within the slippage from the index. The wider bound of
    emergencies is valid only while positions are near liquidation (T12).
    """
    layer_plan, policy, account = _require_futures(case)
    limits = policy.limits
    emergency_size_by_market = emergency_sizes(account, policy)
    for order in layer_plan.orders:
        market = account.market(order.market)
        slippage_bps = limits.slippage_bps
        if layer_plan.is_emergency:
            if order.market not in emergency_size_by_market or not is_reduction(account, order):
                return GuardMeasurement(f"no emergency in {market.symbol}", False)
            slippage_bps = limits.emergency_slippage_bps
        bound_raw = index_bound_raw(market, order.size_raw, slippage_bps)
        excess_raw = (
            order.bound_raw - bound_raw if order.size_raw > 0 else bound_raw - order.bound_raw
        )
        if excess_raw > 0 or order.bound_raw <= 0:
            excess_text = decimal_text(max(excess_raw, 0), account.quote.decimals)
            return GuardMeasurement(f"{market.symbol} is {excess_text} beyond the bound", False)
    for stop in layer_plan.resting_actions:
        if isinstance(stop, StopOrder) and not _is_protective(account, stop, limits):
            stop_text = (
                f"the stop of {account.market(stop.market).symbol} is not one of its position"
            )
            return GuardMeasurement(stop_text, False)
    return GuardMeasurement("every order within the bound", True)


def _is_protective(account: MarginAccount, stop: StopOrder, limits: FuturesLimits) -> bool:
    """True if a stop closes the whole position, on the losing side of mark and index, with a bound
    within the slippage of emergencies from its trigger.
    """
    market = account.market(stop.market)
    size_raw = account.size_raw(stop.market)
    if not size_raw or stop.size_raw != -size_raw or min(stop.trigger_raw, stop.bound_raw) <= 0:
        return False
    slippage_share = Fraction(limits.emergency_slippage_bps, BPS)
    is_within_slippage = (
        stop.bound_raw >= stop.trigger_raw * (1 - slippage_share)
        if size_raw > 0
        else stop.bound_raw <= stop.trigger_raw * (1 + slippage_share)
    )
    return is_within_slippage and market.is_on_losing_side(size_raw, stop.trigger_raw)


def basis(case: GuardCase) -> GuardMeasurement:
    """Return the largest distance between mark and index among the markets in which orders open
    positions.
    """
    layer_plan, policy, account = _require_futures(case)
    limit_share = Fraction(policy.limits.max_basis_bps, BPS)
    shares_and_symbols = [
        (abs(market.mark / market.index - 1), market.symbol)
        for order in layer_plan.orders
        if not is_reduction(account, order)
        for market in [account.market(order.market)]
    ]
    if not shares_and_symbols:
        return GuardMeasurement("no position is opened", True)
    largest_share, symbol = max(shares_and_symbols)
    return GuardMeasurement(
        f"{_percent_text(largest_share)} ({symbol})",
        largest_share <= limit_share,
        _percent_text(limit_share),
    )


def reopening(case: GuardCase) -> GuardMeasurement:
    """Return the time since the newest emergency of a plan that opens a position, so that prices
    which gap back and forth do not close and open it at every tick.
    """
    layer_plan, policy, account = _require_futures(case)
    limit_text = format_seconds(policy.limits.emergency_cooldown_s)
    last_emergency_s = case.step.layer(FuturesState).last_emergency_s
    if last_emergency_s is None or all(is_reduction(account, order) for order in layer_plan.orders):
        return GuardMeasurement("no emergency, or nothing opened", True, limit_text)
    elapsed_s = case.step.snapshot.head.timestamp_s - last_emergency_s
    is_cooldown_over = case.step.snapshot.head.timestamp_s >= reopening_s(
        futures_policy(case.step), case.step.layer(FuturesState)
    )
    return GuardMeasurement(
        f"{format_seconds(elapsed_s)} after an emergency", is_cooldown_over, limit_text
    )


def account_after_plan(case: GuardCase) -> GuardMeasurement:
    """Require that the account keeps every limit after all actions, with each order filled at its
    bound and each resting order at its price, or only those that enlarge a position; or that every
    action is a deposit or a reduction.
    """
    layer_plan, policy, account = _require_futures(case)
    if not layer_plan.actions:
        return GuardMeasurement("no action", False)
    if case.layer_answers.only_reduces():
        return GuardMeasurement("every action reduces or deposits", True)
    if all(isinstance(action, DelegateChange) for action in layer_plan.actions):
        return GuardMeasurement("no position and no margin changes", True)
    if stale_reason := case.step.snapshot.layer(FuturesReading).stale_reason():
        return GuardMeasurement(stale_reason, False)
    reason_by_unconfigured_market = unnamed_market_reasons(account)
    if reason_by_unconfigured_market and any(
        not is_reduction(account, order) for order in layer_plan.orders
    ):
        return GuardMeasurement("; ".join(reason_by_unconfigured_market.values()), False)
    account_after = after_resting_fills(account)
    for action in layer_plan.actions:
        if _opens_by_reduction(account_after, action):
            return GuardMeasurement("a reduction that opens", False)
        account_after = after_action(account_after, action)
    spot_value = (
        None
        if is_delegate_wallet(case.step.snapshot, futures_policy(case.step))
        else _spot_value(case)
    )
    account_breaches = breaches_after(
        account, layer_plan.actions, policy.limits, spot_value, policy.leverage_bps
    )
    if account_breaches:
        breach_text = "; ".join(
            f"{breach.limit_name} {breach.measured_text}, limit {breach.limit_text}"
            for breach in account_breaches
        )
        return GuardMeasurement(breach_text, False)
    leverage_after = margin.leverage(account_after)
    return GuardMeasurement(
        f"{'unknown' if leverage_after is None else f'{float(leverage_after):.2f}x'} after the plan",
        True,
    )


def _opens_by_reduction(account: MarginAccount, action: FuturesAction) -> bool:
    """True for an order marked as a reduction that would not reduce."""
    return (
        isinstance(action, PerpOrder)
        and action.is_reduce_only
        and not is_reduction(account, action)
    )


def margin_move(case: GuardCase) -> GuardMeasurement:
    """Require the account's own key for deposits, withdrawals and delegates; a deposit within the
    spendable balance, a withdrawal within the free margin, and only the configured delegate.
    """
    if _ends_delegate(case) and not is_delegate_wallet(
        case.step.snapshot, futures_policy(case.step)
    ):
        return GuardMeasurement("only revokes a delegate", True)
    layer_plan, policy, account = _require_futures(case)
    if not layer_plan.account_actions:
        return GuardMeasurement("no margin moved", True)
    if not account.is_on_chain:
        return GuardMeasurement("an off-chain venue", False)
    if is_delegate_wallet(case.step.snapshot, futures_policy(case.step)):
        return GuardMeasurement(f"a delegate of {policy.trader}", False)
    portfolio = case.step.portfolio
    quote_per_collateral = account.collateral_unit_raw
    collateral = portfolio.token(policy.collateral)
    for action in layer_plan.account_actions:
        match action:
            case DelegateChange(delegate, is_allowed):
                if is_allowed and delegate != policy.delegate:
                    return GuardMeasurement(f"the delegate {delegate}", False)
                continue
            case MarginDeposit(moved_raw):
                asset = next(
                    candidate for candidate in portfolio.assets if candidate.token == collateral
                )
                available_raw = case.investable_raw(asset)
                place_text = "in the wallet"
            case MarginWithdrawal(moved_raw):
                available_raw = margin.free_margin_raw(account) // quote_per_collateral
                place_text = "of free margin"
        if not 0 < moved_raw <= available_raw:
            amount_text, available_text = (
                decimal_text(max(0, amount_raw), collateral.decimals)
                for amount_raw in (moved_raw, available_raw)
            )
            return GuardMeasurement(
                f"{amount_text} of {available_text} {collateral.label} {place_text}", False
            )
    return GuardMeasurement("within wallet, free margin and delegate", True)


def top_up_budget(case: GuardCase) -> GuardMeasurement:
    """Return the collateral deposited in 24 h, this plan included, as a share of the spot
    portfolio: a manipulated mark must not drain the wallet into the account (T12). While prices
    are missing or contradictory, only the wallet's collateral counts. Owner deposits pass.
    """
    layer_plan, policy, account = _require_futures(case)
    limit_bps = policy.limits.top_up_per_day_bps
    if limit_bps is None:
        return GuardMeasurement("not measured", True, "off")
    limit_text = f"{format_bps(limit_bps)} of the spot portfolio"
    if _by_owner(case) or not layer_plan.top_up_raw:
        return GuardMeasurement("no top-up", True, limit_text)
    case.require_known_day()
    numeraire_in_quote = quote_per_numeraire(case.step.snapshot, case.step.portfolio)
    deposited_value = (
        case.step.layer(FuturesState).top_up_value_24h * numeraire_in_quote
        + layer_plan.top_up_raw * account.collateral_unit_raw
    )
    spot_value = Fraction(
        spendable_collateral_raw(
            case.step.snapshot, case.step.portfolio, case.step.limits, policy.collateral
        )
        * account.collateral_unit_raw
    )
    if not decision_faults(case.step, case.references):
        spot_value = _spot_value(case)
    share_text = (
        "all of the spot portfolio"
        if spot_value <= 0
        else _percent_text(deposited_value / spot_value)
    )
    return GuardMeasurement(share_text, deposited_value * BPS <= limit_bps * spot_value, limit_text)


def reduction_budget(case: GuardCase) -> GuardMeasurement:
    """Return the notional closed by reductions in 24 h, this plan included, as a share of the
    account value: repeated pushes of the mark must not bleed the account (T12). Not counted are
    emergencies, the owner's reductions, closed hedges, and reductions that the index alone demands,
    because in a crash a breached limit cannot wait for the next day.
    """
    layer_plan, policy, account = _require_futures(case)
    limit_share = Fraction(policy.limits.reduction_per_day_bps, BPS)
    reduction_orders = [order for order in layer_plan.orders if order.is_reduce_only]
    if (
        layer_plan.is_emergency
        or not reduction_orders
        or not limit_share
        or not uses_reduction_budget(case.plan)
    ):
        return GuardMeasurement(
            "not measured", True, "off" if not limit_share else _multiple_text(limit_share)
        )
    spot_fault = uncertain_spot_reason(case.step) or decision_faults(case.step, case.references)
    if index_requires_reduction(
        case.step.snapshot, futures_policy(case.step), None if spot_fault else _spot_value(case)
    ):
        return GuardMeasurement("required by the index", True, _multiple_text(limit_share))
    case.require_known_day()
    account_value = margin.account_value_raw(account)
    closed_notional = case.step.layer(FuturesState).reduced_notional_24h * quote_per_numeraire(
        case.step.snapshot, case.step.portfolio
    )
    closed_notional += sum(
        (abs(order.size_raw) * account.market(order.market).index for order in reduction_orders),
        Fraction(0),
    )
    if account_value <= 0:
        return GuardMeasurement("an account without value", True, _multiple_text(limit_share))
    return GuardMeasurement(
        _multiple_text(closed_notional / account_value),
        closed_notional <= limit_share * account_value,
        _multiple_text(limit_share),
    )


def hedge_size(case: GuardCase) -> GuardMeasurement:
    """Require that no hedge exceeds the wallet's holding of its asset: a hedge replaces a sale, and
    a larger one would be a bet against the asset. A hedge that the plan leaves counts as far as the
    account still holds it.
    """
    layer_plan, policy, account = _require_futures(case)
    if case.layer_answers.only_reduces():
        return GuardMeasurement("every order reduces", True)
    recorded_hedges = case.step.layer(FuturesState).hedges
    changed_hedges = [hedge for hedge in layer_plan.hedges if hedge not in recorded_hedges]
    changed_tokens = {hedge.token for hedge in changed_hedges}
    unchanged_hedges = [hedge for hedge in policy.hedges if hedge.token not in changed_tokens]
    numeraire_in_quote = quote_per_numeraire(case.step.snapshot, case.step.portfolio)
    shares_and_texts = [(Fraction(0), "no hedge")]
    asset_by_token = {asset.token.address: asset for asset in case.step.portfolio.assets}
    for hedge in (*changed_hedges, *unchanged_hedges):
        if not hedge.size_raw:
            continue
        if (asset := asset_by_token.get(hedge.token)) is None:
            raise MissingData("the asset of a hedge is not in the portfolio")
        spot_value = case.investable_raw(asset) * case.price(hedge.token)
        short_value = -hedge.size_raw * account.market(hedge.market).index / numeraire_in_quote
        short_share = short_value / spot_value if spot_value > 0 else Fraction(2)
        shares_and_texts.append(
            (short_share, f"{_percent_text(short_share)} of {asset.token.label}")
        )
    largest_share, share_text = max(shares_and_texts)
    return GuardMeasurement(share_text, largest_share <= 1, _percent_text(Fraction(1)))


def plan_cost(case: GuardCase, limit_bps: int) -> GuardMeasurement | None:
    """Return fees, basis and gas of the orders per notional; None without futures actions.
    Reductions and closed hedges pass, and orders that complete a set: its cost was judged as a
    whole before the first of them.
    """
    if not isinstance(case.layer_answers, FuturesCase):
        return None
    if case.layer_answers.only_reduces():
        return GuardMeasurement(case.layer_answers.exemption_text, True)
    if case.layer_answers.ends_hedges():
        return GuardMeasurement("not applied to a closing hedge", True)
    layer_plan, _, account = _require_futures(case)
    set_goals = case.step.layer(FuturesState).set_goals
    if layer_plan.completes_set and completes_set(account, layer_plan.orders, set_goals):
        return GuardMeasurement("judged with the set that it completes", True)
    cost = case.cost()
    notional = sum(
        (abs(order.size_raw) * account.market(order.market).index for order in layer_plan.orders),
        Fraction(0),
    ) / quote_per_numeraire(case.step.snapshot, case.step.portfolio)
    if notional == 0:
        return GuardMeasurement(f"{format_money(cost, case.numeraire)} of gas, no trade", True)
    return GuardMeasurement(
        f"{format_ratio(cost / notional)} ({format_money(cost, case.numeraire)})",
        cost * BPS <= limit_bps * notional,
    )


def _ends_delegate(case: GuardCase) -> bool:
    return isinstance(case.layer_answers, FuturesCase) and case.layer_answers.ends_delegate()


def _unless_revoking(
    measure: Callable[[GuardCase], GuardMeasurement],
) -> Callable[[GuardCase], GuardMeasurement]:
    """Return the measurement, or a pass if the plan only revokes a delegate. A revocation needs no
    account and no price, and must work even if a stolen key makes the account unknown.
    """

    def measure_unless_revoking(case: GuardCase) -> GuardMeasurement:
        if _ends_delegate(case):
            return GuardMeasurement("only revokes a delegate", True)
        return measure(case)

    return measure_unless_revoking


def _by_owner(case: GuardCase) -> bool:
    decision = case.plan.decision
    return isinstance(decision, AdjustFutures) and decision.by_owner


def _spot_value(case: GuardCase) -> Value:
    """Return the value of the spot portfolio in quote base units. Raises MissingData."""
    spot_value = case.portfolio_value() - margin_value(case.step, case.prices)
    return spot_value * quote_per_numeraire(case.step.snapshot, case.step.portfolio)


def _percent_text(share: Fraction) -> str:
    return f"{float(share) * 100:.2f} %"


def _multiple_text(share: Fraction) -> str:
    return f"{float(share):.2f}x"


_futures_guard = partial(fixed_guard, applies_to=lambda plan: plan.acts_in_layer)
FUTURES_GUARDS: tuple[Guard[Any], ...] = (
    _futures_guard(
        "index_age",
        "futures.limits.index_age",
        _unless_revoking(index_age),
        "wait for a fresh round of the index, or raise futures.limits.index_age",
    ),
    _futures_guard(
        "order_bound",
        "within the slippage from the index",
        _unless_revoking(order_bound),
        "plan again at a new block",
    ),
    _futures_guard(
        "basis",
        "futures.limits.max_basis",
        _unless_revoking(basis),
        "wait until the mark returns to its index, or raise futures.limits.max_basis",
    ),
    _futures_guard(
        "reopening",
        "futures.limits.emergency_cooldown",
        _unless_revoking(reopening),
        "wait until the cooldown has passed, or lower futures.limits.emergency_cooldown",
    ),
    _futures_guard(
        "futures_state",
        "every futures limit kept, or only reductions",
        _unless_revoking(account_after_plan),
        "lower the leverage, deposit margin, or raise the named limit",
    ),
    _futures_guard(
        "margin_move",
        "wallet, free margin and configured delegate",
        margin_move,
        "move at most what is available, with the account's own key; allow only futures.delegate",
    ),
    _futures_guard(
        "top_up_per_day",
        "futures.limits.max_top_up_per_day",
        _unless_revoking(top_up_budget),
        "deposit by hand with trimtab margin --deposit, or raise futures.limits.max_top_up_per_day",
    ),
    _futures_guard(
        "reduction_per_day",
        "futures.limits.max_reduction_per_day",
        _unless_revoking(reduction_budget),
        "check why the mark moves; deposit margin, reduce by hand, or "
        "raise futures.limits.max_reduction_per_day",
    ),
    _futures_guard(
        "hedge",
        "the value of the held asset",
        _unless_revoking(hedge_size),
        "close the hedge with trimtab hedge --close, or lower futures.hedge.ratio",
    ),
)
"""Guards of plans with futures actions, after all others."""
