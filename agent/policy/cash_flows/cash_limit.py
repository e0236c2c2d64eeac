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
from agent.model.limits import ABOVE_CEILING_TEXT
from agent.policy import native_coin
from agent.policy.cash_flows import balance_changes
from agent.policy.drift import compute_drifts, portfolio_total
from agent.policy.orders import blocked_exits
from agent.policy.orders import conditional as conditional_orders
from agent.reference import reference_prices
from agent.units import NATIVE, Price, Token, ceil_int, cents_text, decimal_text


def reserve_unused_cash(
    step: StepInput, cash_memory: CashMemory | None, expected_balances: ExpectedBalances
) -> StepInput:
    """Return the step with the unused numeraire reserved, and its account in the history; unchanged
    without portfolio.use_cash.
    """
    portfolio = step.portfolio
    limit_raw = portfolio.use_cash_raw
    token = portfolio.numeraire.address
    if limit_raw is None or cash_memory is None:
        return step
    balance_raw = balance_changes.balances_of(step.snapshot).get(token)
    unrecorded_changes_raw = tuple(
        flow.delta_raw
        for flow in balance_changes.unrecorded_changes(step, expected_balances)
        if flow.token == token
    )
    reserve_raw = portfolio.asset(token).reserve_raw
    account = cash_memory.account
    if account is None:
        taken_raw = min(limit_raw, max(0, (balance_raw or 0) - reserve_raw))
        account = CashAccount(
            token,
            limit_raw,
            taken_raw,
            max(0, (balance_raw or 0) - reserve_raw - taken_raw),
            cash_memory.newest_transfer_id,
            cash_memory.newest_intent_seq,
            cash_memory.counted_tx_hashes,
        )
        # an opening holds the whole balance: a transfer that is recorded later would count twice
        is_account_known = (
            balance_raw is not None
            and not unrecorded_changes_raw
            and balance_changes.is_comparable(step.snapshot, expected_balances)
        )
    else:
        account = _with_new_limit(
            with_recorded_changes(account, cash_memory), limit_raw, balance_raw, reserve_raw
        )
        is_account_known = True
    cash_state = CashState(
        account, cash_memory.account == account, is_account_known, cash_memory.version
    )
    unused_raw = (
        with_transfers(account, unrecorded_changes_raw).unused_raw
        if cash_memory.account
        else account.unused_raw
    )
    if balance_raw is not None:
        unused_raw = min(unused_raw, max(0, balance_raw - reserve_raw))
    assets = tuple(
        replace(asset, reserve_raw=asset.reserve_raw + unused_raw)
        if asset.token.address == token
        else asset
        for asset in portfolio.assets
    )
    return replace(
        step,
        portfolio=replace(portfolio, assets=assets),
        history=replace(
            step.history,
            cash_flows=replace(
                step.history.cash_flows, cash=replace(cash_state, unused_raw=unused_raw)
            ),
        ),
    )


def with_recorded_changes(account: CashAccount, cash_memory: CashMemory) -> CashAccount:
    """Return the account with the changes of `cash_memory`, oldest first: transfers, then payouts,
    which only make room for later deposits.
    """
    updated_account = with_transfers(account, cash_memory.changes)
    return replace(
        updated_account,
        taken_raw=max(0, updated_account.taken_raw - sum(cash_memory.payouts_raw)),
        newest_transfer_id=cash_memory.newest_transfer_id,
        newest_intent_seq=cash_memory.newest_intent_seq,
        counted_tx_hashes=cash_memory.counted_tx_hashes,
    )


def with_transfers(account: CashAccount, changes_raw: Iterable[int]) -> CashAccount:
    """Return the account after transfers of the owner or of others, in signed base units.

    A deposit fills what the agent may still take and leaves the rest alone. A withdrawal comes from
    the unused part first.
    """
    taken_raw = account.taken_raw
    unused_raw = account.unused_raw
    for delta_raw in changes_raw:
        if delta_raw > 0:
            part_raw = min(delta_raw, max(0, account.limit_raw - taken_raw))
            taken_raw += part_raw
            unused_raw = unused_raw + delta_raw - part_raw
        else:
            part_raw = min(-delta_raw, unused_raw)
            taken_raw = max(0, taken_raw + delta_raw + part_raw)
            unused_raw -= part_raw
    return replace(account, taken_raw=taken_raw, unused_raw=unused_raw)


def _with_new_limit(
    account: CashAccount, limit_raw: int, balance_raw: int | None, reserve_raw: int
) -> CashAccount:
    """Return the account under another portfolio.use_cash: a higher one takes from the unused part,
    a lower one gives back cash that is not invested.
    """
    if limit_raw == account.limit_raw or balance_raw is None:
        return account
    if limit_raw > account.limit_raw:
        moved_raw = min(account.unused_raw, max(0, limit_raw - account.taken_raw))
    else:
        uninvested_raw = max(0, balance_raw - reserve_raw - account.unused_raw)
        moved_raw = -min(uninvested_raw, max(0, account.taken_raw - limit_raw))
    return replace(
        account,
        limit_raw=limit_raw,
        taken_raw=account.taken_raw + moved_raw,
        unused_raw=account.unused_raw - moved_raw,
    )


def unused_cash_text(portfolio: Portfolio, cash_flows: CashFlows) -> str:
    """Return the amount left alone and its reason; empty if there is none."""
    cash_state = cash_flows.cash
    numeraire = portfolio.numeraire
    if cash_state is None or not cash_state.unused_raw:
        return ""
    amount_text = decimal_text(cash_state.unused_raw, numeraire.decimals)
    return f"{amount_text} {numeraire.label} {ABOVE_USE_CASH}"


def usable_deposits(
    numeraire: Token, cash: CashState | None, deposits: Mapping[str, int]
) -> dict[str, int]:
    """Return the deposits, base units by token, without the numeraire that portfolio.use_cash
    leaves alone.
    """
    numeraire_address = numeraire.address
    if cash is None or numeraire_address not in deposits:
        return dict(deposits)
    room_raw = max(0, cash.account.limit_raw - cash.account.taken_raw)
    unused_raw = max(0, min(deposits[numeraire_address] - room_raw, cash.unused_raw))
    usable_raw = {
        token: raw - unused_raw * (token == numeraire_address) for token, raw in deposits.items()
    }
    return {token: raw for token, raw in usable_raw.items() if raw > 0}


def use_cash_remedy(portfolio: Portfolio, cash_flows: CashFlows) -> str:
    """Return the amount left alone and the setting that includes it; empty if there is none."""
    cash_state = cash_flows.cash
    numeraire = portfolio.numeraire
    if cash_state is None or not (unused_amount_text := unused_cash_text(portfolio, cash_flows)):
        return ""
    total_text = decimal_text(
        cash_state.account.limit_raw + cash_state.unused_raw, numeraire.decimals
    )
    return f"{unused_amount_text}; to use it: trimtab edit --set portfolio.use_cash={total_text}"


# --- Unexplained increases above portfolio.max_live_value are excluded, and trading continues with
# the rest.


ABOVE_MAX_LIVE_VALUE = (
    "unexplained, above portfolio.max_live_value; trimtab flows "
    "confirm NUMBER, then withdraw it or raise the limit"
)
MAX_LIVE_VALUE_REMEDY = (
    "withdraw value from the wallet, or raise portfolio.max_live_value: trimtab edit --set"
    " portfolio.max_live_value=AMOUNT"
)
ABOVE_USE_CASH = "left alone: above portfolio.use_cash"
NOT_IN_INVESTMENT = (
    "unexplained, and not part of this investment; trimtab invest or trimtab flows confirm NUMBER"
    " later"
)


def max_live_value_message(portfolio: Portfolio, limits: Limits, total: Fraction) -> str:
    """Return a message if the portfolio is worth more than portfolio.max_live_value; else empty."""
    numeraire = portfolio.numeraire
    max_value = limits.max_live_value
    if max_value is None or total <= max_value:
        return ""
    total_text, limit_text = (
        cents_text(shown_value, numeraire.decimals) for shown_value in (total, max_value)
    )
    return (
        f"{total_text} {numeraire.label} held, portfolio.max_live_value is {limit_text}"
        f" {numeraire.label}: {ABOVE_CEILING_TEXT}"
    )


def max_live_value_warnings(step: StepInput, drifts: Sequence[AssetDrift]) -> list[str]:
    """Return a warning with the remedy if rebalances are refused by portfolio.max_live_value."""
    ceiling_text = (
        max_live_value_message(step.portfolio, step.limits, portfolio_total(step, drifts))
        if drifts
        else ""
    )
    return [f"{ceiling_text}; {MAX_LIVE_VALUE_REMEDY}"] if ceiling_text else []


def exclude_unexplained_increases(step: StepInput) -> StepInput:
    """Return the step with unexplained increases reserved if the portfolio exceeds
    portfolio.max_live_value.

    Increases excluded once stay excluded, so that a portfolio near the limit does not buy with a
    gift in one cycle and sell in the next. The exclusions name them. They are not managed, and
    guards judge the rest. An amount that was included for an exit is excluded again. Without prices
    the step is unchanged.
    """
    if step.exclusions.reason:
        return step
    if step.exclusions.raw_by_token:
        return exclude_amounts(step, dict(step.exclusions.raw_by_token), ABOVE_MAX_LIVE_VALUE)
    max_value = step.limits.max_live_value
    increases_raw = unexplained_increases(step.portfolio, step.history.cash_flows)
    if max_value is None or not any(increases_raw.values()):
        return step
    prices = reference_prices(step).price_by_token
    try:
        drifts = compute_drifts(step, prices)
    except Refused:
        return step
    if portfolio_total(step, drifts) > max_value:
        return exclude_amounts(
            step,
            increases_after_sales(
                native_coin.held_balances(step), step.portfolio, increases_raw, prices
            ),
            ABOVE_MAX_LIVE_VALUE,
        )
    excluded_before_raw = _increases_of_assets(
        step.portfolio, step.history.cash_flows, step.history.cash_flows.excluded_increases_raw
    )
    return exclude_amounts(
        step,
        {
            token: min(raw, increases_raw.get(token, 0))
            for token, raw in excluded_before_raw.items()
        },
        ABOVE_MAX_LIVE_VALUE,
    )


def exclude_amounts(step: StepInput, amounts_raw: Mapping[str, int], why: str) -> StepInput:
    """Return the step with these base units by token reserved, at most the free ones; its
    exclusions have the amounts and `why`.
    """
    portfolio = step.portfolio
    balances_raw = native_coin.held_balances(step)
    excluded_raw = {}
    for asset in portfolio.assets:
        free_raw = balances_raw.get(asset.token.address, 0) - native_coin.reserved_raw(
            step.limits, asset
        )
        excluded_raw[asset.token.address] = max(
            0, min(free_raw, amounts_raw.get(asset.token.address, 0))
        )
    if not any(excluded_raw.values()):
        return step
    assets = tuple(
        replace(asset, reserve_raw=asset.reserve_raw + excluded_raw[asset.token.address])
        for asset in portfolio.assets
    )
    amounts_text = ", ".join(
        f"{decimal_text(raw, portfolio.token(token).decimals)} {portfolio.token(token).label}"
        for token, raw in excluded_raw.items()
        if raw
    )
    excluded_amounts_raw = tuple((token, raw) for token, raw in excluded_raw.items() if raw)
    return replace(
        step,
        portfolio=replace(portfolio, assets=assets),
        exclusions=replace(
            step.exclusions,
            reason=f"{amounts_text} excluded: {why}",
            raw_by_token=excluded_amounts_raw,
        ),
    )


def restore_excluded_amounts(step: StepInput) -> StepInput:
    """Return the step without the reserve of excluded amounts, for exits, payments and shutdown.
    Tokens that must not be sold stay reserved.
    """
    if not step.exclusions.reason:
        return step
    amounts_raw = dict(step.exclusions.raw_by_token)
    untradable_tokens = blocked_exits.excluded_tokens(step.targets, step.blocked_exits)
    restored_raw = {
        token: raw for token, raw in amounts_raw.items() if token not in untradable_tokens
    }
    assets = tuple(
        replace(
            asset, reserve_raw=max(0, asset.reserve_raw - restored_raw.get(asset.token.address, 0))
        )
        for asset in step.portfolio.assets
    )
    return replace(
        step,
        portfolio=replace(step.portfolio, assets=assets),
        exclusions=replace(step.exclusions, reason=""),
    )


def append_exclusions(exclusions: Exclusions, reason: str) -> str:
    """Append the excluded amounts to the reason."""
    if exclusions.reason:
        return f"{reason}; {exclusions.reason}"
    return reason


def unexplained_increases(portfolio: Portfolio, cash_flows: CashFlows) -> dict[str, int]:
    """Return the unexplained increase of each asset in base units, less the numeraire that
    portfolio.use_cash leaves alone already; native coin counts as its wrapped token if that is an
    asset.
    """
    return _increases_of_assets(portfolio, cash_flows, cash_flows.unexplained_increases_raw)


def _increases_of_assets(
    portfolio: Portfolio, cash_flows: CashFlows, recorded_increases_raw: tuple[tuple[str, int], ...]
) -> dict[str, int]:
    increases_raw = dict(recorded_increases_raw)
    if native_coin.has_native_asset(portfolio):
        wrapped_token = portfolio.wrapped_native
        increases_raw[wrapped_token] = increases_raw.get(wrapped_token, 0) + increases_raw.get(
            NATIVE, 0
        )
    return without_unused_cash(cash_flows, increases_raw)


def without_unused_cash(cash_flows: CashFlows, increases_raw: Mapping[str, int]) -> dict[str, int]:
    """Return increases without the numeraire that portfolio.use_cash leaves alone already."""
    cash = cash_flows.cash
    if cash is None or cash.account.token not in increases_raw:
        return dict(increases_raw)
    numeraire = cash.account.token
    remaining_raw = max(0, increases_raw[numeraire] - cash.unused_raw)
    return {**increases_raw, numeraire: remaining_raw}


def increases_after_sales(
    balances_raw: Mapping[str, int],
    portfolio: Portfolio,
    increases_raw: Mapping[str, int],
    prices: Mapping[str, Price],
) -> dict[str, int]:
    """Return the increases. The part that an exit has sold, so that the wallet no longer holds it,
    counts as numeraire at current prices.
    """
    numeraire = portfolio.numeraire.address
    sold_increases_raw = (
        (token, raw - balances_raw[token])
        for token, raw in increases_raw.items()
        if token in balances_raw and token in prices and token != numeraire
    )
    sold_value = sum(
        (raw * prices[token] for token, raw in sold_increases_raw if raw > 0), Fraction(0)
    )
    return {**increases_raw, numeraire: increases_raw.get(numeraire, 0) + ceil_int(sold_value)}


def excluded_amounts(step: StepInput) -> tuple[tuple[str, int, str], ...]:
    """Return (token, base units, why) of every amount outside the portfolio, in its order.

    Quarantined tokens and blocked exits are reported elsewhere.
    """
    balances_raw = native_coin.held_balances(step)
    untradable_tokens = blocked_exits.excluded_tokens(step.targets, step.blocked_exits)
    amounts_with_reason = []
    excluded_increases_raw = (
        {} if not step.exclusions.reason else dict(step.exclusions.raw_by_token)
    )
    for asset in step.effective_assets:
        token = asset.token.address
        if token in untradable_tokens:
            continue
        claims = [
            claim
            for claim in step.history.cash_flows.reserved_payments(step.snapshot.nonce_latest)
            if claim.payment.token == token
        ]
        uncounted_raw = balances_raw.get(token, 0)
        cash_state = step.history.cash_flows.cash
        unused_cash_raw = (
            cash_state.unused_raw
            if cash_state is not None and cash_state.account.token == token
            else 0
        )
        exit_order = conditional_orders.fired_exit_order(step.history.orders.states, token)
        claimed_raw = sum(claim.payment.raw for claim in claims)
        reserve_left_raw = (
            asset.reserve_raw - excluded_increases_raw.get(token, 0) - claimed_raw - unused_cash_raw
        )
        if exit_order is not None and asset.target_bps == 0:
            reserve_reason = "dust of an order, and the reserve"
        elif conditional_orders.is_entry_pending(step.history, token):
            reserve_reason = "dust that awaits its entry, and the reserve"
        else:
            reserve_reason = "configured reserve"
        reserved_parts = [(claim.payment.raw, f"withdrawal {claim.request_id}") for claim in claims]
        reserved_parts += [
            (excluded_increases_raw.get(token, 0), ABOVE_MAX_LIVE_VALUE),
            (unused_cash_raw, ABOVE_USE_CASH),
            (reserve_left_raw, reserve_reason),
            (
                native_coin.floor_wei(step.limits) if asset.includes_native else 0,
                "limits.native_floor, for gas",
            ),
        ]
        for raw, reason in reserved_parts:
            if (counted_raw := min(raw, uncounted_raw)) > 0:
                amounts_with_reason.append((token, counted_raw, reason))
                uncounted_raw -= counted_raw
    return tuple(amounts_with_reason)
