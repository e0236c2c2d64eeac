"""Quarantine of single tokens that must not be traded, and faults that halt the whole step. Like a
reserve, the balance of a quarantined token counts neither in the total nor in weights. The targets
of the other assets grow in proportion, so the quarantine alone causes no trade.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.amm.pools import holds_token
from agent.layers import questions
from agent.model import (
    PORTFOLIO_SUBJECT,
    Portfolio,
    ScreenedToken,
    Snapshot,
    StepInput,
    TokenFinding,
    UnreadableItem,
)
from agent.policy import native_coin
from agent.policy.orders import blocked_exits
from agent.policy.step_faults import balance_faults
from agent.reference import (
    reference_prices,
)
from agent.units import format_time, largest_remainder, rough_duration

UNREADABLE_WAIT_S = 3_600
"""Chain time after which the other assets are traded without an asset whose balance is unreadable;
until then trading halts.
"""
FIRST_APPROVAL_WAIT_S = 600
LONGEST_APPROVAL_WAIT_S = 43_200
"""First and longest quarantine of a token that ignored its approvals, in chain seconds; it doubles
with each attempt, which costs gas. The longest is below the day within which attempts count as
consecutive.
"""


def quarantine_pools(step: StepInput, screened_tokens: Iterable[ScreenedToken]) -> StepInput:
    """Return the step with the pools that failed the screen also in quarantine: every pool that
    keeps the token in a failed contract. Its tokens stay tradable elsewhere.
    """
    unreadable_addresses = {item.address for item in step.snapshot.unreadable_items}
    new_item_by_address: dict[str, UnreadableItem] = {}
    for screened_token in screened_tokens:
        why_by_contract = {failed.pool: failed.why for failed in screened_token.failed_pools}
        for pool in step.snapshot.pools:
            why = why_by_contract.get(pool.contract)
            if (
                why is None
                or not holds_token(pool, screened_token.token)
                or pool.address in unreadable_addresses
            ):
                continue
            label = step.portfolio.token(screened_token.token).label
            new_item = UnreadableItem("pool", pool.address, f"{label}: {why}")
            new_item_by_address.setdefault(pool.address, new_item)
    if not new_item_by_address:
        return step
    unreadable_items = (*step.snapshot.unreadable_items, *new_item_by_address.values())
    return replace(step, snapshot=replace(step.snapshot, unreadable_items=unreadable_items))


def quarantine_tokens(step: StepInput, screened_tokens: Iterable[ScreenedToken]) -> StepInput:
    """Return the step with these tokens also in quarantine; accepted and already quarantined tokens
    are ignored.
    """
    tokens_with_balance = {holding.token for holding in step.snapshot.holdings}
    quarantined_tokens_before = {
        screened_token.token for screened_token in step.targets.quarantined_tokens
    }
    new_quarantine_by_token = {
        screened_token.token: screened_token
        for screened_token in screened_tokens
        if not screened_token.finding.is_tradable
        and screened_token.token not in quarantined_tokens_before
    }
    if not new_quarantine_by_token:
        return step
    quarantined_tokens = quarantined_tokens_before | set(new_quarantine_by_token)
    assets = step.effective_assets
    tradable_targets_bps = [
        Fraction(0 if asset.token.address in quarantined_tokens else asset.target_bps)
        for asset in assets
    ]
    scaled_targets_bps = [0] * len(assets)
    if sum(tradable_targets_bps) > 0:
        scaled_targets_bps = largest_remainder(tradable_targets_bps)
    remaining_assets = []
    hubs = list(step.portfolio.hubs)
    for asset in step.portfolio.assets:
        if asset.token.address not in quarantined_tokens:
            remaining_assets.append(asset)
        elif asset.token.address in tokens_with_balance:
            remaining_assets.append(
                replace(
                    asset,
                    reserve_raw=native_coin.full_reserve_raw(
                        native_coin.held_balances(step), step.limits, asset
                    ),
                )
            )
        else:
            hubs.append(asset.token)
    portfolio = replace(step.portfolio, assets=tuple(remaining_assets), hubs=tuple(hubs))
    remaining_tokens = {asset.token.address for asset in remaining_assets}
    return replace(
        step,
        portfolio=portfolio,
        targets=replace(
            step.targets,
            effective_bps=tuple(
                (asset.token.address, bps)
                for asset, bps in zip(assets, scaled_targets_bps, strict=True)
                if asset.token.address in remaining_tokens
            ),
            quarantined_tokens=(
                *step.targets.quarantined_tokens,
                *new_quarantine_by_token.values(),
            ),
        ),
    )


def unreadable_since_s(step: StepInput) -> tuple[tuple[str, int], ...]:
    """Return (token, chain time of the first failed read) of assets with an unreadable balance."""
    first_failure_s_by_token = dict(step.history.unread_since_s_by_token)
    now_s = step.snapshot.head.timestamp_s
    tokens_with_balance = {holding.token for holding in step.snapshot.holdings}
    tokens = [asset.token.address for asset in step.portfolio.assets]
    tokens += [screened_token.token for screened_token in step.targets.quarantined_tokens]
    return tuple(
        (token, first_failure_s_by_token.get(token, now_s))
        for token in dict.fromkeys(tokens)
        if token not in tokens_with_balance
    )


def unreadable_assets(step: StepInput) -> list[ScreenedToken]:
    """Return the assets whose balance has been unreadable for UNREADABLE_WAIT_S, so that the others
    need not wait any longer (T10). Excludes the numeraire, which prices everything, tokens in
    liquidity, and the wrapped native coin.
    """
    indispensable_tokens = _indispensable_tokens(step.portfolio)
    now_s = step.snapshot.head.timestamp_s
    unreadable_tokens = [
        (token, since_s)
        for token, since_s in unreadable_since_s(step)
        if token not in indispensable_tokens and now_s - since_s >= UNREADABLE_WAIT_S
    ]
    return [
        ScreenedToken(token, TokenFinding.UNREADABLE, f"for {rough_duration(now_s - since_s)}")
        for token, since_s in unreadable_tokens
    ]


def exclude_unpriced_assets(step: StepInput) -> StepInput:
    """Return the step without the assets that have no reference price or no known balance, for
    exits only. Their value is unknown and counts as zero when a loss is compared with the
    portfolio.
    """
    portfolio = step.portfolio
    reason_by_token = {
        unpriced_token.token: f"{unpriced_token.label} has no reference price ({unpriced_token.why})"
        for unpriced_token in reference_prices(step).unpriced
    }
    unread_reason_by_token = {
        asset.token.address: fault.message
        for asset in portfolio.assets
        for fault in balance_faults(step.snapshot, (asset,))
    }
    reason_by_token |= unread_reason_by_token
    excluded_tokens = reason_by_token.keys() - _indispensable_tokens(portfolio)
    remaining_assets = [
        asset for asset in step.effective_assets if asset.token.address not in excluded_tokens
    ]
    if len(remaining_assets) == len(portfolio.assets) or not any(
        asset.target_bps for asset in remaining_assets
    ):
        return step
    scaled_targets_bps = largest_remainder(
        [Fraction(asset.target_bps) for asset in remaining_assets]
    )
    remaining_tokens = [asset.token.address for asset in remaining_assets]
    remaining_portfolio_assets = [
        asset for asset in portfolio.assets if asset.token.address in remaining_tokens
    ]
    excluded_asset_tokens = [
        asset.token for asset in portfolio.assets if asset.token.address in excluded_tokens
    ]
    portfolio = replace(
        portfolio,
        assets=tuple(remaining_portfolio_assets),
        hubs=(*portfolio.hubs, *excluded_asset_tokens),
    )
    quarantined_tokens_before = {
        screened_token.token for screened_token in step.targets.quarantined_tokens
    }
    unreadable_tokens = [
        ScreenedToken(token.address, TokenFinding.UNREADABLE)
        for token in excluded_asset_tokens
        if token.address in unread_reason_by_token
        and token.address not in quarantined_tokens_before
    ]
    excluded_reason = "; ".join(reason_by_token[token.address] for token in excluded_asset_tokens)
    return replace(
        step,
        portfolio=portfolio,
        targets=replace(
            step.targets,
            effective_bps=tuple(zip(remaining_tokens, scaled_targets_bps, strict=True)),
            quarantined_tokens=(*step.targets.quarantined_tokens, *unreadable_tokens),
        ),
        exclusions=replace(step.exclusions, exits_only_reason=excluded_reason),
    )


def _indispensable_tokens(portfolio: Portfolio) -> set[str]:
    """Return the tokens that are needed to value or pay anything."""
    return {portfolio.numeraire.address, portfolio.wrapped_native}.union(
        *(layer.valued_tokens(portfolio) for layer in questions.LAYERS)
    )


def quarantine_unreadable_assets(step: StepInput) -> StepInput:
    """Return the step after quarantining assets with balances unreadable for UNREADABLE_WAIT_S."""
    return quarantine_tokens(step, unreadable_assets(step))


def ignored_approval(step: StepInput, token: str) -> ScreenedToken | None:
    """Return the token with its finding if it ignored its approvals and is not tried again yet."""
    now_s = step.snapshot.head.timestamp_s
    for refusal in step.history.failures.ignored_approvals:
        doublings = min(refusal.refusal_count - 1, 16)
        retry_at_s = refusal.at_s + min(FIRST_APPROVAL_WAIT_S << doublings, LONGEST_APPROVAL_WAIT_S)
        if refusal.token == token and refusal.at_s <= now_s < retry_at_s:
            times_text = blocked_exits.times_text(refusal)
            detail = f"{refusal.why}; {times_text}, it is tried again at {format_time(retry_at_s)}"
            return ScreenedToken(token, TokenFinding.APPROVAL_IGNORED, detail)
    return None


def quarantine_ignored_approvals(step: StepInput) -> StepInput:
    """Return the step after quarantining tokens that ignored their approvals. A triggered exit goes
    on: its refusals have a shorter wait of their own.
    """
    exit_tokens = blocked_exits.fired_exit_tokens(step.history)
    if PORTFOLIO_SUBJECT in exit_tokens:
        return step
    return quarantine_tokens(
        step,
        [
            screened_token
            for refusal in step.history.failures.ignored_approvals
            if refusal.token not in exit_tokens
            and (screened_token := ignored_approval(step, refusal.token)) is not None
        ],
    )


def tokens_with_changed_code(
    snapshot: Snapshot,
    tokens: Sequence[str],
    pinned_code_hashes: Mapping[str, str],
    pinned_implementations: Mapping[str, tuple[str, str]],
) -> list[ScreenedToken]:
    """Return the tokens whose code differs from its pin, or whose implementation was not read.
    `pinned_code_hashes` are code hashes, `pinned_implementations` (implementation, its code hash),
    by token.

    Tokens without a pin are not included, because a plan that touches one is refused as a whole.
    """
    code_hash_by_address = {code.address: code.hash for code in snapshot.code_hashes}
    implementations_by_token: dict[str, list[str]] = {}
    for implementation in snapshot.implementations:
        implementations_by_token.setdefault(implementation.proxy, []).append(implementation.address)
    screened_tokens = []
    for token in tokens:
        if token not in pinned_code_hashes:
            continue
        if (
            token in code_hash_by_address
            and code_hash_by_address[token] != pinned_code_hashes[token]
        ):
            screened_tokens.append(ScreenedToken(token, TokenFinding.CODE_CHANGED))
        elif (token in implementations_by_token or token in pinned_implementations) and (
            screened_token := _screened_proxy(
                token,
                implementations_by_token.get(token, []),
                pinned_implementations.get(token),
                code_hash_by_address,
            )
        ):
            screened_tokens.append(screened_token)
    return screened_tokens


def _screened_proxy(
    token: str,
    implementations: Sequence[str],
    pinned_implementation: tuple[str, str] | None,
    code_hash_by_address: Mapping[str, str],
) -> ScreenedToken | None:
    """Return a proxy whose implementation differs from its pin, or was not read; else None."""
    changed = TokenFinding.IMPLEMENTATION_CHANGED
    if pinned_implementation is None:
        return ScreenedToken(token, changed, f"{', '.join(implementations)} is not pinned")
    pinned_address, pinned_code_hash = pinned_implementation
    if implementations and not any(int(address, 16) for address in implementations):
        return ScreenedToken(token, TokenFinding.CODE_UNREAD)
    if list(implementations) != [pinned_address]:
        change_text = f"{', '.join(implementations) or 'unknown'} instead of {pinned_address}"
        return ScreenedToken(token, changed, change_text)
    if pinned_address not in code_hash_by_address:
        return ScreenedToken(token, TokenFinding.CODE_UNREAD, pinned_address)
    if code_hash_by_address[pinned_address] == pinned_code_hash:
        return None
    return ScreenedToken(token, changed, f"the code at {pinned_address} differs")


def format_quarantine(
    portfolio: Portfolio,
    quarantine: Sequence[ScreenedToken],
    shown_tokens: Collection[str] | None = None,
) -> str:
    """Format the tokens in quarantine, all of them or those in `shown_tokens`, with reasons; empty
    if there are none.
    """
    screened_tokens = [
        quarantined_token
        for quarantined_token in quarantine
        if shown_tokens is None or quarantined_token.token in shown_tokens
    ]
    return "; ".join(
        f"{portfolio.token(screened_token.token).label} is in quarantine: {screened_token.why}"
        for screened_token in screened_tokens
    )
