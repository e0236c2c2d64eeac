"""Guards on what a plan costs and how much it moves, in value at reference prices."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.guards.case import Case, Measured, Missing
from agent.guards.words import bps, money, ratio
from agent.model import TopUp
from agent.policy import purchase
from agent.policy.flows import DAY_S
from agent.units import BPS


def plan_cost(case: Case, limit_bps: int) -> Measured:
    """Fees, impact, skew and gas, recomputed, per unit of value moved. A plan that moves nothing costs nothing,
    except that gas money may be refilled: limits.gas_price and limits.gas_per_day bound that.

    Actions with liquidity exchange nothing: theirs is the gas, and what liquidity is overpaid by in a pool off the reference, per
    unit of value put in, taken out or collected.
    """
    if case.plan.actions:
        return _action_cost(case, limit_bps)
    turnover, cost = case.turnover(), case.cost()
    if isinstance(case.plan.decision, TopUp):
        return Measured(f"{money(cost, case.numeraire)} of gas, nothing moved", turnover == 0)
    if turnover == 0:
        return Measured(money(cost, case.numeraire), cost <= 0)
    return Measured(f"{ratio(cost / turnover)} ({money(cost, case.numeraire)})", cost * BPS <= limit_bps * turnover)


def turnover(case: Case, limit_bps: int) -> Measured:
    """Value moved by this plan over the investable total. What an exit sells for the numeraire is not held back by it."""
    moved = case.counted_turnover()
    if moved == 0 and case.plan.exits and not case.apart():
        return Measured("an exit into the numeraire", True)
    return _beside(case, _share(case, moved, limit_bps), limit_bps)


def daily_turnover(case: Case, limit_bps: int) -> Measured:
    """Value moved in the last 24 h of chain time and by this plan, over the investable total.

    An exit that buys nothing besides the numeraire passes whatever was moved before, known or not.
    """
    moved = case.counted_turnover()
    if moved == 0 and case.plan.exits:
        return _beside(case, Measured("an exit into the numeraire", True), limit_bps)
    case.require_known_day()
    return _beside(case, _share(case, case.step.history.turnover_24h + moved, limit_bps), limit_bps)


def _beside(case: Case, measured: Measured, limit_bps: int) -> Measured:
    """The same with what a purchase or a withdrawal moves besides, and the most that it may."""
    most = case.apart()
    if most == 0:
        return measured
    name = "withdrawal" if case.plan.exits else "first rebalance" if purchase.is_first(case.step) else "purchase"
    moved, most_text = (money(value, case.numeraire) for value in (case.uncounted_turnover(), most))
    return replace(measured, text=f"{moved} of the {name}; besides {measured.text}", limit=f"{most_text}; besides {bps(limit_bps)}")


def daily_loss(case: Case, limit_bps: int) -> Measured:
    """Loss of the last 24 h of chain time and the worst case of this plan, over the investable total (T6, T21).

    The worst case is what is given up if every swap pays its minimum only, gas included; of an exit, which must not wait for what
    may never happen, it is the predicted cost, and it answers for what trades lost: not for what fell without a transaction of ours,
    nor for gas that exchanged nothing, which limits.gas_per_day bounds. A predicted gain does not make room for losses. Where the
    last 24 h cannot be told it refuses.
    """
    case.require_known_day()
    history, leaves = case.step.history, case.sells_only() or case.is_exit()
    lost = _held_against(case, history.loss_24h, history.fell_24h, history.wasted_24h_wei)
    return _share(case, lost + max(case.cost() if leaves else case.worst_cost(), Fraction(0)), limit_bps)


def total_loss(case: Case, limit_bps: int) -> Measured:
    """Loss since the store began and this plan's cost, over the investable total: what a day each forgives adds up.

    For an exit without falls and the gas of reverts, as in daily_loss.
    """
    history = case.step.history
    lost = _held_against(case, history.loss_total, history.fell_total, history.wasted_wei)
    return _share(case, lost + max(case.cost(), Fraction(0)), limit_bps)


def _held_against(case: Case, lost: Fraction, fell: Fraction, wasted_wei: int) -> Fraction:
    """The part of a loss that this plan answers for: all of it, but of an exit what trades lost. Raises Missing."""
    if not case.only_leaves():
        return lost
    return max(Fraction(0), lost - fell - wasted_wei * case.price(case.step.portfolio.wrapped_native))


def balance_jump(case: Case, limit_bps: int) -> Measured:
    """Changes of balances that nobody has explained, found in the last 24 h of chain time, over the investable total.

    One that went beyond the limit when it was found refuses until its owner has said what it was, or a rise is accepted. A rise
    without a price counts once it has one: what is planned never rests on it. An exit is not held back.
    """
    if case.only_leaves():
        return Measured("an exit is not held back", True)
    since_s = case.step.snapshot.head.timestamp_s - DAY_S
    opened = [flow for flow in case.step.history.flows if flow.halts or flow.chain_s > since_s]
    if not opened:
        return Measured("every balance is explained", True)
    if any(flow.value is None and flow.delta_raw < 0 for flow in opened):
        raise Missing("a balance changed and its token has no reference price")
    measured = _share(case, sum((abs(flow.value) for flow in opened if flow.value is not None), Fraction(0)), limit_bps)
    return replace(measured, passed=measured.passed and not any(flow.halts for flow in opened))


def min_trade(case: Case, limit: Fraction) -> Measured:
    """Smallest net trade: what the plan sells or buys of one token, its legs taken together, in value at reference prices.

    Of actions with liquidity the smallest; what a limit of liquidity demands may be smaller.
    """
    if case.plan.actions:
        return _smallest_action(case, limit)
    case.runs()
    sizes = [(raw * case.price(token), token) for side in (case.replay.sold, case.replay.bought) for token, raw in side.items()]
    if not sizes:
        return Measured("no trade", True)
    smallest, token = min(sizes)
    return Measured(f"{money(smallest, case.numeraire)} of {case.label(token)}", smallest >= limit)


def max_live_value(case: Case, limit: Fraction) -> Measured:
    """Value that the agent manages: all investable balances. An exit lowers what is at risk, and no gift may hold it back."""
    total = case.total()
    if case.only_leaves():
        return Measured(f"{money(total, case.numeraire)}, an exit", True)
    return Measured(money(total, case.numeraire), total <= limit)


def _action_cost(case: Case, limit_bps: int) -> Measured:
    moved, cost = sum((run.value for run in case.actions()), Fraction(0)), case.cost()
    said = money(cost, case.numeraire)
    if case.is_exit():
        return Measured(f"{said} of gas: liquidity above its limit goes at any cost", True)
    if moved == 0:
        return Measured(said, cost <= 0)
    return Measured(f"{ratio(cost / moved)} ({said})", cost * BPS <= limit_bps * moved)


def _smallest_action(case: Case, limit: Fraction) -> Measured:
    smallest, name = min((run.value, run.action.name) for run in case.actions())
    said = f"{money(smallest, case.numeraire)} of {name}"
    if case.is_exit():
        return Measured(f"{said}: liquidity above its limit goes whatever its size", True)
    return Measured(said, smallest >= limit)


def _share(case: Case, value: Fraction, limit_bps: int) -> Measured:
    total = case.total()
    if total == 0:
        return Measured(f"{money(value, case.numeraire)} of nothing", value == 0)
    return Measured(f"{ratio(value / total)} ({money(value, case.numeraire)})", value * BPS <= limit_bps * total)
