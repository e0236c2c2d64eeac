"""Quarantine: tokens that must not be traded now, and the targets of the other assets.

A quarantined token is not touched. Like a reserve, its balance counts neither in the total nor in
weights. The targets of the others grow in proportion, so that nothing is traded while those keep
their proportion.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.model import ScreenedToken, Snapshot, StepInput, TokenFinding
from agent.policy import native_coin
from agent.units import format_duration, largest_remainder

SILENT_S = 3_600
"""Chain time of an unreadable balance after which the other assets trade without it; until then
nothing trades."""


def quarantine_tokens(step: StepInput, found: Iterable[ScreenedToken]) -> StepInput:
    """Return the step with these tokens in quarantine too; accepted or already quarantined tokens
    change nothing.
    """
    known = {holding.token for holding in step.snapshot.holdings}
    already = {one.token for one in step.quarantine}
    new = {one.token: one for one in found if not one.finding.accepted and one.token not in already}
    if not new:
        return step
    shut = already | set(new)
    assets = step.portfolio.assets
    silent = {
        asset.token.address
        for asset in assets
        if asset.token.address in shut and asset.token.address not in known
    }
    targets = [
        Fraction(0) if asset.token.address in shut else Fraction(asset.target_bps)
        for asset in assets
    ]
    shares = largest_remainder(targets) if sum(targets) > 0 else [0] * len(assets)
    left = tuple(
        replace(
            asset,
            target_bps=bps,
            reserve_raw=(
                native_coin.full_reserve_raw(step, asset)
                if asset.token.address in shut
                else asset.reserve_raw
            ),
        )
        for asset, bps in zip(assets, shares, strict=True)
        if asset.token.address not in silent
    )
    hubs = (
        *step.portfolio.hubs,
        *(asset.token for asset in assets if asset.token.address in silent),
    )
    portfolio = replace(step.portfolio, assets=left, hubs=hubs)
    return replace(step, portfolio=portfolio, quarantine=(*step.quarantine, *new.values()))


def unread_balances(step: StepInput) -> tuple[tuple[str, int], ...]:
    """Return (token, chain time of the first failure) of assets with an unreadable balance, by the
    store's memory.
    """
    known, now_s = dict(step.history.unread), step.snapshot.head.timestamp_s
    read = {holding.token for holding in step.snapshot.holdings}
    wanted = [asset.token.address for asset in step.portfolio.assets] + [
        one.token for one in step.quarantine
    ]
    return tuple(
        (token, known.get(token, now_s)) for token in dict.fromkeys(wanted) if token not in read
    )


def silent_assets(step: StepInput) -> list[ScreenedToken]:
    """Return the assets whose balance has been unreadable so long that waiting would only block the
    others (T10).

    Never the numeraire, in which everything is measured and paid, nor a token in liquidity, nor the
    wrapped native coin.
    """
    portfolio, now_s = step.portfolio, step.snapshot.head.timestamp_s
    bound = {portfolio.numeraire.address, portfolio.wrapped_native}
    bound |= {token for held in portfolio.positions for token in (held.token0, held.token1)}
    bound |= {token for target in portfolio.lp_targets for token in (target.token0, target.token1)}
    waited = [
        (token, since_s)
        for token, since_s in unread_balances(step)
        if token not in bound and now_s - since_s >= SILENT_S
    ]
    return [
        ScreenedToken(token, TokenFinding.UNREADABLE, f"for {format_duration(now_s - since_s)}")
        for token, since_s in waited
    ]


def quarantine_silent_assets(step: StepInput) -> StepInput:
    """Return the step with the assets whose balance has stayed unread for too long in
    quarantine.
    """
    return quarantine_tokens(step, silent_assets(step))


def changed_tokens(
    snapshot: Snapshot,
    tokens: Sequence[str],
    pins: Mapping[str, str],
    backing: Mapping[str, tuple[str, str]],
) -> list[ScreenedToken]:
    """Return the tokens whose code differs from its pin: `pins` are code hashes, `backing`
    (implementation, its code hash), by token.

    A token without a pin is not among them: a plan that touches it is refused as a whole.
    """
    code = {entry.address: entry.hash for entry in snapshot.code_hashes}
    now: dict[str, list[str]] = {}
    for one in snapshot.implementations:
        now.setdefault(one.token, []).append(one.address)
    found = []
    for token in tokens:
        if token not in pins:
            continue
        if token in code and code[token] != pins[token]:
            found.append(ScreenedToken(token, TokenFinding.CODE_CHANGED))
        elif token in now or token in backing:
            detail = _other(now.get(token, []), backing.get(token), code)
            found += (
                [ScreenedToken(token, TokenFinding.IMPLEMENTATION_CHANGED, detail)]
                if detail
                else []
            )
    return found


def _other(now: Sequence[str], pinned: tuple[str, str] | None, code: Mapping[str, str]) -> str:
    """Return the difference between the implementation and its pin; empty if there is none."""
    if pinned is None:
        return f"{', '.join(now)} is not pinned"
    address, code_hash = pinned
    if list(now) != [address]:
        return f"{', '.join(now) or 'unknown'} instead of {address}"
    if code.get(address) == code_hash:
        return ""
    return f"the code at {address} is another"


def format_quarantine(step: StepInput, only: Collection[str] | None = None) -> str:
    """Format the tokens in quarantine, all or of `only`, with reasons; empty without any."""
    shown = [one for one in step.quarantine if only is None or one.token in only]
    return "; ".join(
        f"{step.portfolio.token(one.token).label} is in quarantine: {one.why}" for one in shown
    )
