"""Amounts of the wallet that the agent leaves alone: numeraire above portfolio.use_cash, and
unexplained increases above portfolio.max_live_value. They are reserved, so they count in no total,
weight or plan. Trades never change the numeraire left alone: the agent pays from its own part,
and is paid into it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.errors import Refused
from agent.model import (
    PORTFOLIO,
    AssetDrift,
    CashAccount,
    CashFlows,
    CashMemory,
    CashState,
    Exclusions,
    ExpectedBalances,
    Limits,
    Portfolio,
    StepInput,
)
from agent.policy import native_coin
from agent.policy.cash_flows import balance_changes
from agent.policy.drift import compute_drifts, portfolio_total
from agent.policy.orders import blocked_exits
from agent.policy.orders import conditional as conditional_orders
from agent.reference import reference_prices
from agent.units import NATIVE, Price, Token, ceil_int, decimal_text, value_text


def reserve_unused_cash(
    step: StepInput, memory: CashMemory | None, balances: ExpectedBalances
) -> StepInput:
    """Return the step with the unused numeraire reserved, and its account in the history; unchanged
    without portfolio.use_cash.
    """
    portfolio = step.portfolio
    limit, token = portfolio.use_cash_raw, portfolio.numeraire.address
    if limit is None or memory is None:
        return step
    balance = balance_changes.balances_of(step.snapshot).get(token)
    fresh = tuple(
        flow.delta_raw
        for flow in balance_changes.unexplained(step, balances)
        if flow.token == token
    )
    reserve = next(asset.reserve_raw for asset in portfolio.assets if asset.token.address == token)
    account = memory.account
    if account is None or account.token != token:
        taken = min(limit, max(0, (balance or 0) - reserve))
        account = CashAccount(
            token,
            limit,
            taken,
            max(0, (balance or 0) - reserve - taken),
            memory.transfer,
            memory.intent,
            memory.external,
        )
        # an opening holds the whole balance: a transfer that is recorded later would count twice
        is_known = (
            balance is not None
            and not fresh
            and balance_changes.is_comparable(step.snapshot, balances)
        )
    else:
        account = _with_limit(updated(account, memory), limit, balance, reserve)
        is_known = True
    state = CashState(account, memory.account == account, is_known, memory.turn)
    unused = with_transfers(account, fresh).unused_raw if memory.account else account.unused_raw
    if balance is not None:
        unused = min(unused, max(0, balance - reserve))
    assets = tuple(
        replace(asset, reserve_raw=asset.reserve_raw + unused)
        if asset.token.address == token
        else asset
        for asset in portfolio.assets
    )
    return replace(
        step,
        portfolio=replace(portfolio, assets=assets),
        history=replace(
            step.history,
            cash_flows=replace(step.history.cash_flows, cash=replace(state, unused_raw=unused)),
        ),
    )


def updated(account: CashAccount, memory: CashMemory) -> CashAccount:
    """Return the account with the changes of `memory`, oldest first: transfers, then payouts, which
    only make room for later deposits.
    """
    cash_account = with_transfers(account, memory.changes)
    return replace(
        cash_account,
        taken_raw=max(0, cash_account.taken_raw - sum(memory.paid)),
        transfer=memory.transfer,
        intent=memory.intent,
        external=memory.external,
    )


def with_transfers(account: CashAccount, changes: Iterable[int]) -> CashAccount:
    """Return the account after transfers of the owner or of others, in signed base units.

    A deposit fills what the agent may still take and leaves the rest alone. A withdrawal comes from
    the unused part first.
    """
    taken, unused = account.taken_raw, account.unused_raw
    for delta in changes:
        if delta > 0:
            part = min(delta, max(0, account.limit_raw - taken))
            taken, unused = taken + part, unused + delta - part
        else:
            part = min(-delta, unused)
            taken, unused = max(0, taken + delta + part), unused - part
    return replace(account, taken_raw=taken, unused_raw=unused)


def _with_limit(account: CashAccount, limit: int, held: int | None, reserve: int) -> CashAccount:
    """Return the account under another portfolio.use_cash: a higher one takes from the unused part,
    a lower one gives back cash that is not invested.
    """
    if limit == account.limit_raw or held is None:
        return account
    if limit > account.limit_raw:
        part = min(account.unused_raw, max(0, limit - account.taken_raw))
    else:
        free = max(0, held - reserve - account.unused_raw)
        part = -min(free, max(0, account.taken_raw - limit))
    return replace(
        account,
        limit_raw=limit,
        taken_raw=account.taken_raw + part,
        unused_raw=account.unused_raw - part,
    )


def unused_text(portfolio: Portfolio, cash_flows: CashFlows) -> str:
    """Return the amount left alone and its reason; empty if there is none."""
    state, numeraire = cash_flows.cash, portfolio.numeraire
    if state is None or not state.unused_raw:
        return ""
    amount = decimal_text(state.unused_raw, numeraire.decimals)
    return f"{amount} {numeraire.label} {ABOVE_USE_CASH}"


def usable_part(
    numeraire: Token, cash: CashState | None, came: Mapping[str, int]
) -> dict[str, int]:
    """Return the deposits, base units by token, without the numeraire that portfolio.use_cash leaves
    alone.
    """
    home, state = numeraire.address, cash
    if state is None or home not in came:
        return dict(came)
    room = max(0, state.account.limit_raw - state.account.taken_raw)
    unused = max(0, min(came[home] - room, state.unused_raw))
    usable = {token: raw - unused * (token == home) for token, raw in came.items()}
    return {token: raw for token, raw in usable.items() if raw > 0}


def limit_remedy(portfolio: Portfolio, cash_flows: CashFlows) -> str:
    """Return the amount left alone and the setting that includes it; empty if there is none."""
    state, numeraire = cash_flows.cash, portfolio.numeraire
    if state is None or not (text := unused_text(portfolio, cash_flows)):
        return ""
    whole = decimal_text(state.account.limit_raw + state.unused_raw, numeraire.decimals)
    return f"{text}; to use it: trimtab edit --set portfolio.use_cash={whole}"


# --- Unexplained increases above portfolio.max_live_value are excluded, and trading continues with
# the rest.


ABOVE_MAX_LIVE_VALUE = (
    "unexplained, above portfolio.max_live_value; trimtab flows "
    "confirm, then withdraw it or raise the limit"
)
CEILING_REMEDY = "withdraw value from the wallet, or raise portfolio.max_live_value"
ABOVE_USE_CASH = "left alone: above portfolio.use_cash"
NOT_REQUESTED = (
    "unexplained, and not part of this investment; trimtab invest or trimtab flows confirm later"
)


def above_ceiling(portfolio: Portfolio, limits: Limits, total: Fraction) -> str:
    """Return a message if the portfolio is worth more than portfolio.max_live_value; else empty."""
    numeraire, most = portfolio.numeraire, limits.max_live_value
    if most is None or total <= most:
        return ""
    value, ceiling = (value_text(value_of, numeraire.decimals, 2) for value_of in (total, most))
    return (
        f"{value} {numeraire.label} held, portfolio.max_live_value is {ceiling}"
        f" {numeraire.label}: every rebalance is refused"
    )


def above_ceiling_warnings(step: StepInput, drifts: Sequence[AssetDrift]) -> list[str]:
    """Return a warning with the remedy if rebalances are refused by portfolio.max_live_value."""
    above = (
        above_ceiling(step.portfolio, step.limits, portfolio_total(step, drifts)) if drifts else ""
    )
    return [f"{above}; {CEILING_REMEDY}"] if above else []


def exclude_unexplained_rises(step: StepInput) -> StepInput:
    """Return the step with unexplained increases reserved if the portfolio exceeds
    portfolio.max_live_value.

    Increases excluded once stay excluded, so that a portfolio near the limit does not buy with a
    gift in one cycle and sell in the next. `aside` names them. They are not managed, and guards
    judge the rest. An amount that was included for an exit is excluded again. Without prices the
    step is unchanged.
    """
    if step.excluded.reason:
        return step
    if step.excluded.raw:
        return exclude_amounts(step, dict(step.excluded.raw), ABOVE_MAX_LIVE_VALUE)
    limit, rises = (
        step.limits.max_live_value,
        unexplained_rises(step.portfolio, step.history.cash_flows),
    )
    if limit is None or not any(rises.values()):
        return step
    prices = reference_prices(step).by_token
    try:
        standing = compute_drifts(step, prices)
    except Refused:
        return step
    if portfolio_total(step, standing) > limit:
        return exclude_amounts(
            step,
            rises_after_sales(native_coin.held_balances(step), step.portfolio, rises, prices),
            ABOVE_MAX_LIVE_VALUE,
        )
    before = _assets_of(step.portfolio, step.history.cash_flows, step.history.cash_flows.left_rises)
    return exclude_amounts(
        step,
        {token: min(raw, rises.get(token, 0)) for token, raw in before.items()},
        ABOVE_MAX_LIVE_VALUE,
    )


def exclude_amounts(step: StepInput, raws: Mapping[str, int], why: str) -> StepInput:
    """Return the step with these base units by token reserved, at most the free ones; `aside` gives
    the amounts and `why`.
    """
    portfolio, balances = step.portfolio, native_coin.held_balances(step)
    left = {}
    for asset in portfolio.assets:
        free = balances.get(asset.token.address, 0) - native_coin.reserved_raw(step.limits, asset)
        left[asset.token.address] = max(0, min(free, raws.get(asset.token.address, 0)))
    if not any(left.values()):
        return step
    assets = tuple(
        replace(asset, reserve_raw=asset.reserve_raw + left[asset.token.address])
        for asset in portfolio.assets
    )
    message = ", ".join(
        f"{decimal_text(raw, portfolio.token(token).decimals)} {portfolio.token(token).label}"
        for token, raw in left.items()
        if raw
    )
    kept = tuple((token, raw) for token, raw in left.items() if raw)
    return replace(
        step,
        portfolio=replace(portfolio, assets=assets),
        excluded=replace(step.excluded, reason=f"{message} excluded: {why}", raw=kept),
    )


def restore_excluded(step: StepInput) -> StepInput:
    """Return the step without the reserve of excluded amounts, for exits, payments and shutdown.
    Tokens that must not be sold stay reserved.
    """
    if not step.excluded.reason:
        return step
    raws, shut = (
        dict(step.excluded.raw),
        blocked_exits.excluded_tokens(step.targets, step.blocked_exits),
    )
    freed = {token: raw for token, raw in raws.items() if token not in shut}
    assets = tuple(
        replace(asset, reserve_raw=max(0, asset.reserve_raw - freed.get(asset.token.address, 0)))
        for asset in step.portfolio.assets
    )
    return replace(
        step,
        portfolio=replace(step.portfolio, assets=assets),
        excluded=replace(step.excluded, reason=""),
    )


def append_excluded(excluded: Exclusions, reason: str) -> str:
    """Append the excluded amounts to the reason."""
    if excluded.reason:
        return f"{reason}; {excluded.reason}"
    return reason


def unexplained_rises(portfolio: Portfolio, cash_flows: CashFlows) -> dict[str, int]:
    """Return the unexplained increase of each asset in base units; native coin counts as its
    wrapped token if that is an asset.
    """
    return _assets_of(portfolio, cash_flows, cash_flows.rises)


def _assets_of(
    portfolio: Portfolio, cash_flows: CashFlows, found: tuple[tuple[str, int], ...]
) -> dict[str, int]:
    rises = dict(found)
    if native_coin.has_native_asset(portfolio):
        wrapped = portfolio.wrapped_native
        rises[wrapped] = rises.get(wrapped, 0) + rises.get(NATIVE, 0)
    if (cash := cash_flows.cash) is not None and (home := cash.account.token) in rises:
        rises[home] = max(0, rises[home] - cash.unused_raw)  # left alone already
    return rises


def rises_after_sales(
    balances: Mapping[str, int],
    portfolio: Portfolio,
    rises: Mapping[str, int],
    prices: Mapping[str, Price],
) -> dict[str, int]:
    """Return the increases. The part that an exit has sold, so that the wallet no longer holds it,
    counts as numeraire at current prices.
    """
    held, home = balances, portfolio.numeraire.address
    gone = (
        (token, raw - held[token])
        for token, raw in rises.items()
        if token in held and token in prices and token != home
    )
    sold = sum((raw * prices[token] for token, raw in gone if raw > 0), Fraction(0))
    return {**rises, home: rises.get(home, 0) + ceil_int(sold)}


def excluded_amounts(step: StepInput) -> tuple[tuple[str, int, str], ...]:
    """Return (token, base units, why) of every amount outside the portfolio, in its order.

    Quarantined tokens and blocked exits are reported elsewhere.
    """
    balances, shut, amounts = (
        native_coin.held_balances(step),
        blocked_exits.excluded_tokens(step.targets, step.blocked_exits),
        [],
    )
    rises = {} if not step.excluded.reason else dict(step.excluded.raw)
    for asset in step.effective_assets:
        token = asset.token.address
        if token in shut:
            continue
        claimed = [
            claim for claim in step.history.cash_flows.claims if claim.payment.token == token
        ]
        free = balances.get(token, 0)
        cash = step.history.cash_flows.cash
        unused = cash.unused_raw if cash is not None and cash.account.token == token else 0
        out = conditional_orders.fired_exit_order(
            step.history.orders.states, token
        ) or conditional_orders.fired_exit_order(step.history.orders.states, PORTFOLIO)
        paid = sum(claim.payment.raw for claim in claimed)
        rest = asset.reserve_raw - rises.get(token, 0) - paid - unused
        if out is not None and asset.target_bps == 0:
            why = "dust of an order, and the reserve"
        else:
            why = "configured reserve"
        reasons = [(claim.payment.raw, f"withdrawal {claim.request}") for claim in claimed]
        reasons += [
            (rises.get(token, 0), ABOVE_MAX_LIVE_VALUE),
            (unused, ABOVE_USE_CASH),
            (rest, why),
            (
                native_coin.floor_wei(step.limits) if asset.native else 0,
                "limits.native_floor, for gas",
            ),
        ]
        for raw, reason in reasons:
            if (kept := min(raw, free)) > 0:
                amounts.append((token, kept, reason))
                free -= kept
    return tuple(amounts)
