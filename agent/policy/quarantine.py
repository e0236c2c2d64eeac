"""Quarantine of single tokens that must not be traded, and faults that halt the whole step. Like a
reserve, the balance of a quarantined token counts neither in the total nor in weights. The targets
of the other assets grow in proportion, so the quarantine alone causes no trade.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.layers.questions import TOKENS
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

SILENT_S = 3_600
"""Chain time after which the other assets are traded without an asset whose balance is unreadable;
until then trading halts.
"""


def quarantine_tokens(step: StepInput, found: Iterable[ScreenedToken]) -> StepInput:
    """Return the step with these tokens also in quarantine; accepted and already quarantined tokens
    are ignored.
    """
    known = {holding.token for holding in step.snapshot.holdings}
    already = {screened.token for screened in step.targets.quarantine}
    new = {
        screened.token: screened
        for screened in found
        if not screened.finding.accepted and screened.token not in already
    }
    if not new:
        return step
    quarantined = already | set(new)
    assets = step.effective_assets
    targets = [
        Fraction(0 if asset.token.address in quarantined else asset.target_bps) for asset in assets
    ]
    shares = [0] * len(assets)
    if sum(targets) > 0:
        shares = largest_remainder(targets)
    kept, hubs = [], list(step.portfolio.hubs)
    for asset in step.portfolio.assets:
        if asset.token.address not in quarantined:
            kept.append(asset)
        elif asset.token.address in known:
            kept.append(
                replace(
                    asset,
                    reserve_raw=native_coin.full_reserve_raw(
                        native_coin.held_balances(step), step.limits, asset
                    ),
                )
            )
        else:
            hubs.append(asset.token)
    portfolio = replace(step.portfolio, assets=tuple(kept), hubs=tuple(hubs))
    left = {asset.token.address for asset in kept}
    return replace(
        step,
        portfolio=portfolio,
        targets=replace(
            step.targets,
            effective_bps=tuple(
                (asset.token.address, bps)
                for asset, bps in zip(assets, shares, strict=True)
                if asset.token.address in left
            ),
            quarantine=(*step.targets.quarantine, *new.values()),
        ),
    )


def unread_balances(step: StepInput) -> tuple[tuple[str, int], ...]:
    """Return (token, chain time of the first failed read) of assets with an unreadable balance."""
    known, now_s = dict(step.history.unread), step.snapshot.head.timestamp_s
    read = {holding.token for holding in step.snapshot.holdings}
    tokens = [asset.token.address for asset in step.portfolio.assets]
    tokens += [screened.token for screened in step.targets.quarantine]
    return tuple(
        (token, known.get(token, now_s)) for token in dict.fromkeys(tokens) if token not in read
    )


def silent_assets(step: StepInput) -> list[ScreenedToken]:
    """Return the assets whose balance has been unreadable for SILENT_S, so that the others need not
    wait any longer (T10). Excludes the numeraire, which prices everything, tokens in liquidity, and
    the wrapped native coin.
    """
    bound, now_s = _indispensable(step.portfolio), step.snapshot.head.timestamp_s
    waited = [
        (token, since_s)
        for token, since_s in unread_balances(step)
        if token not in bound and now_s - since_s >= SILENT_S
    ]
    return [
        ScreenedToken(token, TokenFinding.UNREADABLE, f"for {format_duration(now_s - since_s)}")
        for token, since_s in waited
    ]


def exclude_unpriced(step: StepInput) -> StepInput:
    """Return the step without the assets that have no reference price or no known balance, for
    exits only. Their value is unknown and counts as zero when a loss is compared with the
    portfolio.
    """
    portfolio = step.portfolio
    gaps = {
        gap.token: f"{gap.label} has no reference price ({gap.why})"
        for gap in reference_prices(step).unpriced
    }
    unread = {
        asset.token.address: fault.message
        for asset in portfolio.assets
        for fault in unknown_balances(step.snapshot, (asset,))
    }
    gaps |= unread
    gone = gaps.keys() - _indispensable(portfolio)
    left = [asset for asset in step.effective_assets if asset.token.address not in gone]
    if len(left) == len(portfolio.assets) or not any(asset.target_bps for asset in left):
        return step
    shares = largest_remainder([Fraction(asset.target_bps) for asset in left])
    tokens = [asset.token.address for asset in left]
    assets = [asset for asset in portfolio.assets if asset.token.address in tokens]
    hubs = [asset.token for asset in portfolio.assets if asset.token.address in gone]
    portfolio = replace(portfolio, assets=tuple(assets), hubs=(*portfolio.hubs, *hubs))
    already = {screened.token for screened in step.targets.quarantine}
    shut = [
        ScreenedToken(token.address, TokenFinding.UNREADABLE)
        for token in hubs
        if token.address in unread and token.address not in already
    ]
    why = "; ".join(gaps[token.address] for token in hubs)
    return replace(
        step,
        portfolio=portfolio,
        targets=replace(
            step.targets,
            effective_bps=tuple(zip(tokens, shares, strict=True)),
            quarantine=(*step.targets.quarantine, *shut),
        ),
        excluded=replace(step.excluded, exits_only=why),
    )


def _indispensable(portfolio: Portfolio) -> set[str]:
    """Return the tokens that are needed to value or pay anything."""
    return {portfolio.numeraire.address, portfolio.wrapped_native}.union(
        *(tokens(portfolio) for tokens in TOKENS)
    )


def quarantine_silent_assets(step: StepInput) -> StepInput:
    """Return the step after quarantining assets with balances unreadable for SILENT_S."""
    return quarantine_tokens(step, silent_assets(step))


def changed_tokens(
    snapshot: Snapshot,
    tokens: Sequence[str],
    pins: Mapping[str, str],
    backing: Mapping[str, tuple[str, str]],
) -> list[ScreenedToken]:
    """Return the tokens whose code differs from its pin: `pins` are code hashes, `backing`
    (implementation, its code hash), by token.

    Tokens without a pin are not included, because a plan that touches one is refused as a whole.
    """
    code = {entry.address: entry.hash for entry in snapshot.code_hashes}
    now: dict[str, list[str]] = {}
    for implementation in snapshot.implementations:
        now.setdefault(implementation.token, []).append(implementation.address)
    changed = []
    for token in tokens:
        if token not in pins:
            continue
        if token in code and code[token] != pins[token]:
            changed.append(ScreenedToken(token, TokenFinding.CODE_CHANGED))
        elif (token in now or token in backing) and (
            detail := _implementation_change(now.get(token, []), backing.get(token), code)
        ):
            changed.append(ScreenedToken(token, TokenFinding.IMPLEMENTATION_CHANGED, detail))
    return changed


def _implementation_change(
    now: Sequence[str], pinned: tuple[str, str] | None, code: Mapping[str, str]
) -> str:
    """Return the difference between the implementation and its pin; empty if there is none."""
    if pinned is None:
        return f"{', '.join(now)} is not pinned"
    address, code_hash = pinned
    if list(now) != [address]:
        return f"{', '.join(now) or 'unknown'} instead of {address}"
    if code.get(address) == code_hash:
        return ""
    return f"the code at {address} differs"


def format_quarantine(
    portfolio: Portfolio, quarantine: Sequence[ScreenedToken], only: Collection[str] | None = None
) -> str:
    """Format the tokens in quarantine, all of them or only those in `only`, with reasons; empty if
    there are none.
    """
    tokens = [token for token in quarantine if only is None or token.token in only]
    return "; ".join(
        f"{portfolio.token(screened_token.token).label} is in quarantine: {screened_token.why}"
        for screened_token in tokens
    )
