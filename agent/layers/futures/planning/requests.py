"""Proposals for the owner's futures requests: margin moves, delegates, reductions, hedges."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.layers.futures.planning import hedges
from agent.layers.futures.planning.orders import reducing_plan
from agent.layers.futures.planning.plans import futures_plan, hedges_after_first_order
from agent.layers.futures.policy.needs import closing_sizes, deleverage_sizes, stale_market_reasons
from agent.layers.futures.requests import CloseHedge, Deleverage, MarginAccountRequest, OpenHedge
from agent.layers.futures.state import (
    FuturesProgress,
    collateral_token,
    futures_policy,
    futures_progress,
    futures_state,
    margin_account,
)
from agent.margin import account as margin
from agent.margin.state import multiple_text
from agent.model import (
    UNREAD_ACCOUNT,
    AccountAction,
    AdjustFutures,
    DelegateChange,
    FuturesPlan,
    FuturesPolicy,
    FuturesReading,
    Halt,
    Hold,
    MarginAccount,
    MarginDeposit,
    MarginWithdrawal,
    Portfolio,
    Snapshot,
    StepInput,
)
from agent.planning.proposals import Proposal, Proposer
from agent.policy import native_coin
from agent.policy.decide import decide, reported_result
from agent.units import BPS, decimal_text


def hedge_proposer(request: OpenHedge | CloseHedge) -> Proposer:
    """Return the proposer that shorts part of a token's excess over its target, or closes its
    hedge, and then holds. A halt blocks an order that reduces no position.
    """

    def propose(step: StepInput) -> Proposal:
        decision_result = decide(step)
        is_halted = isinstance(decision_result.decision, Halt)
        if is_halted and isinstance(request, OpenHedge):
            return Proposal(decision_result, None)
        label = step.portfolio.token(request.token).label
        policy = futures_policy(step)
        if isinstance(request, OpenHedge):
            if futures_progress(step).has_opened_hedge:
                return Proposal(reported_result(step, Hold(f"{label} is hedged")), None)
            plan = hedges.owner_hedge_plan(step, decision_result, request.token, request.ratio_bps)
        elif policy is None or all(hedge.token != request.token for hedge in policy.hedges):
            return Proposal(reported_result(step, Hold(f"{label} has no open hedge")), None)
        else:
            plan = hedges.owner_closing_plan(step, decision_result, request.token)
            if is_halted and not plan.layer(FuturesPlan).is_reducing:
                return Proposal(decision_result, None)
        return Proposal(reported_result(step, plan.decision), plan)

    return propose


def margin_proposer(request: MarginAccountRequest) -> Proposer:
    """Return the proposer of one requested margin move or delegate change."""
    action = request.action

    def propose(step: StepInput) -> Proposal:
        is_revocation = isinstance(action, DelegateChange) and not action.is_allowed
        if is_revocation and (policy := futures_policy(step)) is not None and policy.vault:
            # with a stolen key the account can be made unreadable
            account = margin_account(step.snapshot) or UNREAD_ACCOUNT
        else:
            account = require_account(step.snapshot, futures_policy(step))
        if not account.is_on_chain:
            raise Refused(
                "margin and keys of an off-chain venue are managed at the venue itself",
                remedy="use the venue's website",
            )
        reason = _request_reason(step.portfolio, futures_policy(step), action)
        is_deposit = isinstance(action, MarginDeposit)
        plan = FuturesPlan(reason=reason, account_actions=(action,), is_reducing=is_deposit)
        return owner_proposal(step, AdjustFutures(reason, is_deposit, by_owner=True), plan, account)

    return propose


def deleverage_proposer(request: Deleverage) -> Proposer:
    """Return the proposer of the owner's reduction: one order per plan, each market once per cycle.
    It holds once no order is left, and says what remains of the reduction.
    """
    leverage_bps = request.leverage_bps
    symbol = request.symbol

    def propose(step: StepInput) -> Proposal:
        policy = futures_policy(step)
        if policy is None:
            raise Refused("nothing is reduced: the config has no [futures]")
        account = require_account(step.snapshot, policy)
        progress = futures_progress(step)
        nothing_text = (
            "nothing more is reduced" if progress.reduced_markets else "nothing is reduced"
        )
        if progress.hold_reason:
            raise Refused(f"{nothing_text}: {progress.hold_reason}", remedy="see trimtab doctor")
        size_by_market = _remaining_sizes(progress, policy, account, leverage_bps, symbol)
        reason_by_stale_market = stale_market_reasons(step.snapshot, policy)
        if size_by_market and reason_by_stale_market.keys() >= size_by_market.keys():
            stale_text = ", ".join(
                reason
                for market_id, reason in reason_by_stale_market.items()
                if market_id in size_by_market
            )
            raise Refused(f"{nothing_text}: {stale_text}", remedy="see trimtab margin")
        reason = _reduction_text(leverage_bps, symbol)
        plan = reducing_plan(
            account,
            policy,
            size_by_market,
            trigger="",
            reason=reason,
            is_emergency=False,
            skip_reason_by_market=reason_by_stale_market,
        )
        if not plan.orders:
            state_text = "; ".join(plan.refusal_texts) or _end_text(
                policy, account, leverage_bps, symbol
            )
            return Proposal(reported_result(step, Hold(f"{reason}: {state_text}")), None)
        decision = AdjustFutures(reason, is_reducing=True, by_owner=True)
        return owner_proposal(step, decision, plan, account)

    return propose


def _remaining_sizes(
    progress: FuturesProgress,
    policy: FuturesPolicy,
    account: MarginAccount,
    leverage_bps: int | None,
    symbol: str,
) -> dict[str, int]:
    """Return the sizes of the remaining orders of this cycle, by market. Raises Refused for an
    unknown market.
    """
    market_ids = [market.market for market in account.markets if symbol in ("", market.symbol)]
    if not market_ids and progress.reduced_markets:
        return {}  # a market without a row in the config, closed in this cycle
    if not market_ids:
        symbols_text = ", ".join(perp_market.symbol for perp_market in account.markets)
        raise Refused(f"{symbol!r} is not a futures market", remedy=f"choose from {symbols_text}")
    remaining_market_ids = [
        market_id for market_id in market_ids if market_id not in progress.reduced_markets
    ]
    if leverage_bps is None:
        return {
            closed_market_id: size_raw
            for market_id in remaining_market_ids
            for closed_market_id, size_raw in closing_sizes(account, market_id).items()
        }
    max_leverage = Fraction(leverage_bps, BPS)
    return deleverage_sizes(account, max_leverage, remaining_market_ids, policy.limits.slippage_bps)


def _end_text(
    policy: FuturesPolicy, account: MarginAccount, leverage_bps: int | None, symbol: str
) -> str:
    """Return what a cycle that sends no further order leaves of the reduction."""
    leverage_text = f"leverage is {multiple_text(margin.leverage(account))}"
    is_listed = symbol in ("", *(market.symbol for market in account.markets))
    unreduced_sizes = (
        _remaining_sizes(FuturesProgress(), policy, account, leverage_bps, symbol)
        if is_listed
        else {}  # its position is closed, and the config has no row of it
    )
    if not unreduced_sizes:
        return f"{leverage_text}, nothing is left to reduce"
    size_texts = []
    for market_id, size_raw in unreduced_sizes.items():
        market = account.market(market_id)
        size_texts.append(f"{decimal_text(abs(size_raw), market.size_decimals)} {market.symbol}")
    return (
        f"{leverage_text}, each market was ordered once and {', '.join(size_texts)} is left to"
        " reduce; run it again"
    )


def _reduction_text(leverage_bps: int | None, symbol: str) -> str:
    subject = symbol or "all positions"
    if leverage_bps is None:
        return f"the owner closes {subject}"
    return f"the owner reduces {subject} to a leverage of {leverage_bps / BPS:g}x"


def require_account(snapshot: Snapshot, policy: FuturesPolicy | None) -> MarginAccount:
    """Return the margin account. Raises Refused if it is unknown or futures are not configured."""
    account = margin_account(snapshot)
    if policy is None or account is None:
        why = snapshot.layer(FuturesReading).unknown_reason or "the config has no [futures]"
        raise Refused(f"the margin account is unknown: {why}", remedy="see trimtab margin")
    return account


def owner_proposal(
    step: StepInput, decision: AdjustFutures, layer_plan: FuturesPlan, account: MarginAccount
) -> Proposal:
    """Return the proposal of an owner's futures plan. Raises Refused if gas money has to be
    refilled first.
    """
    decision_result = reported_result(step, decision)
    if account.is_on_chain and (top_up := native_coin.top_up(step, decision)):
        raise Refused(
            f"too little native coin for gas: {top_up.reason}",
            remedy="send native coin to the wallet, or run trimtab rebalance --send first",
        )
    layer_plan = replace(
        layer_plan,
        hedges=hedges_after_first_order(
            step.snapshot,
            futures_policy(step),
            futures_state(step),
            layer_plan.orders,
            closes_hedges=True,
        ),
    )
    return Proposal(
        decision_result, futures_plan(step, decision, layer_plan, account, decision_result.drifts)
    )


def _request_reason(
    portfolio: Portfolio, policy: FuturesPolicy | None, action: AccountAction
) -> str:
    match action:
        case MarginDeposit(amount_raw) | MarginWithdrawal(amount_raw):
            token = portfolio.token(collateral_token(policy))
            verb = "deposits" if isinstance(action, MarginDeposit) else "withdraws"
            return f"the owner {verb} {decimal_text(amount_raw, token.decimals)} {token.label} of margin"
        case DelegateChange(delegate, is_allowed):
            verb = "allows" if is_allowed else "no longer allows"
            return f"the owner {verb} {delegate} to trade for the account"
