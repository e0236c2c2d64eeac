"""Quarantine of single tokens that must not be traded, and faults that halt the whole step. Like a
reserve, the balance of a quarantined token counts neither in the total nor in weights. The targets
of the other assets grow in proportion, so the quarantine alone causes no trade.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.layers.questions import VALUED_TOKENS
from agent.model import (
    Portfolio,
    ScreenedToken,
    Snapshot,
    StepInput,
    TokenFinding,
)
from agent.policy import native_coin
from agent.policy.step_faults import unknown_balances
from agent.reference import (
    reference_prices,
)
from agent.units import format_duration, largest_remainder

UNREADABLE_WAIT_S = 3_600
"""Chain time after which the other assets are traded without an asset whose balance is unreadable;
until then trading halts.
"""


def quarantine_tokens(step: StepInput, screened_tokens: Iterable[ScreenedToken]) -> StepInput:
    """Return the step with these tokens also in quarantine; accepted and already quarantined tokens
    are ignored.
    """
    read_tokens = {holding.token for holding in step.snapshot.holdings}
    quarantined_before = {screened.token for screened in step.targets.quarantine}
    new_by_token = {
        screened.token: screened
        for screened in screened_tokens
        if not screened.finding.is_tradable and screened.token not in quarantined_before
    }
    if not new_by_token:
        return step
    quarantined_tokens = quarantined_before | set(new_by_token)
    assets = step.effective_assets
    targets = [
        Fraction(0 if asset.token.address in quarantined_tokens else asset.target_bps)
        for asset in assets
    ]
    target_bps_left = [0] * len(assets)
    if sum(targets) > 0:
        target_bps_left = largest_remainder(targets)
    assets_left, hubs = [], list(step.portfolio.hubs)
    for asset in step.portfolio.assets:
        if asset.token.address not in quarantined_tokens:
            assets_left.append(asset)
        elif asset.token.address in read_tokens:
            assets_left.append(
                replace(
                    asset,
                    reserve_raw=native_coin.full_reserve_raw(
                        native_coin.held_balances(step), step.limits, asset
                    ),
                )
            )
        else:
            hubs.append(asset.token)
    portfolio = replace(step.portfolio, assets=tuple(assets_left), hubs=tuple(hubs))
    tokens_left = {asset.token.address for asset in assets_left}
    return replace(
        step,
        portfolio=portfolio,
        targets=replace(
            step.targets,
            effective_bps=tuple(
                (asset.token.address, bps)
                for asset, bps in zip(assets, target_bps_left, strict=True)
                if asset.token.address in tokens_left
            ),
            quarantine=(*step.targets.quarantine, *new_by_token.values()),
        ),
    )


def unreadable_balances(step: StepInput) -> tuple[tuple[str, int], ...]:
    """Return (token, chain time of the first failed read) of assets with an unreadable balance."""
    since_by_token, now_s = dict(step.history.unread), step.snapshot.head.timestamp_s
    read_tokens = {holding.token for holding in step.snapshot.holdings}
    tokens = [asset.token.address for asset in step.portfolio.assets]
    tokens += [screened.token for screened in step.targets.quarantine]
    return tuple(
        (token, since_by_token.get(token, now_s))
        for token in dict.fromkeys(tokens)
        if token not in read_tokens
    )


def unreadable_assets(step: StepInput) -> list[ScreenedToken]:
    """Return the assets whose balance has been unreadable for UNREADABLE_WAIT_S, so that the others need not
    wait any longer (T10). Excludes the numeraire, which prices everything, tokens in liquidity, and
    the wrapped native coin.
    """
    indispensable_tokens, now_s = (
        _indispensable_tokens(step.portfolio),
        step.snapshot.head.timestamp_s,
    )
    unreadable_tokens = [
        (token, since_s)
        for token, since_s in unreadable_balances(step)
        if token not in indispensable_tokens and now_s - since_s >= UNREADABLE_WAIT_S
    ]
    return [
        ScreenedToken(token, TokenFinding.UNREADABLE, f"for {format_duration(now_s - since_s)}")
        for token, since_s in unreadable_tokens
    ]


def exclude_unpriced(step: StepInput) -> StepInput:
    """Return the step without the assets that have no reference price or no known balance, for
    exits only. Their value is unknown and counts as zero when a loss is compared with the
    portfolio.
    """
    portfolio = step.portfolio
    reasons = {
        unpriced.token: f"{unpriced.label} has no reference price ({unpriced.why})"
        for unpriced in reference_prices(step).unpriced
    }
    unread_reasons = {
        asset.token.address: fault.message
        for asset in portfolio.assets
        for fault in unknown_balances(step.snapshot, (asset,))
    }
    reasons |= unread_reasons
    excluded_tokens = reasons.keys() - _indispensable_tokens(portfolio)
    assets_left = [
        asset for asset in step.effective_assets if asset.token.address not in excluded_tokens
    ]
    if len(assets_left) == len(portfolio.assets) or not any(
        asset.target_bps for asset in assets_left
    ):
        return step
    shares_bps = largest_remainder([Fraction(asset.target_bps) for asset in assets_left])
    tokens = [asset.token.address for asset in assets_left]
    assets = [asset for asset in portfolio.assets if asset.token.address in tokens]
    hubs = [asset.token for asset in portfolio.assets if asset.token.address in excluded_tokens]
    portfolio = replace(portfolio, assets=tuple(assets), hubs=(*portfolio.hubs, *hubs))
    quarantined_before = {screened.token for screened in step.targets.quarantine}
    quarantined = [
        ScreenedToken(token.address, TokenFinding.UNREADABLE)
        for token in hubs
        if token.address in unread_reasons and token.address not in quarantined_before
    ]
    excluded_reason = "; ".join(reasons[token.address] for token in hubs)
    return replace(
        step,
        portfolio=portfolio,
        targets=replace(
            step.targets,
            effective_bps=tuple(zip(tokens, shares_bps, strict=True)),
            quarantine=(*step.targets.quarantine, *quarantined),
        ),
        excluded=replace(step.excluded, exits_only=excluded_reason),
    )


def _indispensable_tokens(portfolio: Portfolio) -> set[str]:
    """Return the tokens that are needed to value or pay anything."""
    return {portfolio.numeraire.address, portfolio.wrapped_native}.union(
        *(tokens(portfolio) for tokens in VALUED_TOKENS)
    )


def quarantine_unreadable_assets(step: StepInput) -> StepInput:
    """Return the step after quarantining assets with balances unreadable for UNREADABLE_WAIT_S."""
    return quarantine_tokens(step, unreadable_assets(step))


def changed_tokens(
    snapshot: Snapshot,
    tokens: Sequence[str],
    pins: Mapping[str, str],
    pinned_implementations: Mapping[str, tuple[str, str]],
) -> list[ScreenedToken]:
    """Return the tokens whose code differs from its pin: `pins` are code hashes,
    `pinned_implementations` (implementation, its code hash), by token.

    Tokens without a pin are not included, because a plan that touches one is refused as a whole.
    """
    code_hash_of = {code.address: code.hash for code in snapshot.code_hashes}
    implementations: dict[str, list[str]] = {}
    for implementation in snapshot.implementations:
        implementations.setdefault(implementation.token, []).append(implementation.address)
    changed = []
    for token in tokens:
        if token not in pins:
            continue
        if token in code_hash_of and code_hash_of[token] != pins[token]:
            changed.append(ScreenedToken(token, TokenFinding.CODE_CHANGED))
        elif (token in implementations or token in pinned_implementations) and (
            detail := _implementation_change(
                implementations.get(token, []), pinned_implementations.get(token), code_hash_of
            )
        ):
            changed.append(ScreenedToken(token, TokenFinding.IMPLEMENTATION_CHANGED, detail))
    return changed


def _implementation_change(
    implementations: Sequence[str],
    pinned_implementation: tuple[str, str] | None,
    code_hash_of: Mapping[str, str],
) -> str:
    """Return the difference between the implementation and its pin; empty if there is none."""
    if pinned_implementation is None:
        return f"{', '.join(implementations)} is not pinned"
    address, code_hash = pinned_implementation
    if list(implementations) != [address]:
        return f"{', '.join(implementations) or 'unknown'} instead of {address}"
    if code_hash_of.get(address) == code_hash:
        return ""
    return f"the code at {address} differs"


def format_quarantine(
    portfolio: Portfolio, quarantine: Sequence[ScreenedToken], only: Collection[str] | None = None
) -> str:
    """Format the tokens in quarantine, all of them or only those in `only`, with reasons; empty if
    there are none.
    """
    screened_tokens = [token for token in quarantine if only is None or token.token in only]
    return "; ".join(
        f"{portfolio.token(screened.token).label} is in quarantine: {screened.why}"
        for screened in screened_tokens
    )
