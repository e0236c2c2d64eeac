"""Tokens that must not be traded now: what they are, and what is wanted of the portfolio without them.

A token in quarantine is left exactly as it is. What the wallet holds of it counts neither in the total nor in weights, as a
reserve does, and the targets of the others grow in proportion: while those stand in proportion, nothing is traded for it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from agent.model import Finding, ScreenedToken, Snapshot, StepInput
from agent.units import largest_remainder

EVERYTHING = 2**256 - 1
"""A reserve that no balance exceeds."""


def quarantine(step: StepInput, found: Iterable[ScreenedToken]) -> StepInput:
    """The step with these tokens in quarantine too; what is accepted, or there already, changes nothing."""
    already = {one.token for one in step.quarantine}
    new = {one.token: one for one in found if not one.finding.accepted and one.token not in already}
    if not new:
        return step
    shut = already | set(new)
    assets = step.portfolio.assets
    targets = [Fraction(0) if asset.token.address in shut else Fraction(asset.target_bps) for asset in assets]
    shares = largest_remainder(targets) if sum(targets) > 0 else [0] * len(assets)
    left = tuple(
        replace(asset, target_bps=bps, reserve_raw=EVERYTHING if asset.token.address in shut else asset.reserve_raw)
        for asset, bps in zip(assets, shares, strict=True)
    )
    portfolio = replace(step.portfolio, assets=left)
    return replace(step, portfolio=portfolio, quarantine=(*step.quarantine, *new.values()))


def changed(
    snapshot: Snapshot, tokens: Sequence[str], pins: Mapping[str, str], backing: Mapping[str, tuple[str, str]]
) -> list[ScreenedToken]:
    """Which of `tokens` are other than pinned: `pins` are code hashes, `backing` (implementation, its code hash), by token.

    A token that is not pinned at all is none of them: a plan that touches it is refused as a whole.
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
            found.append(ScreenedToken(token, Finding.CODE_CHANGED))
        elif token in now or token in backing:
            detail = _other(now.get(token, []), backing.get(token), code)
            found += [ScreenedToken(token, Finding.IMPLEMENTATION_CHANGED, detail)] if detail else []
    return found


def _other(now: Sequence[str], pinned: tuple[str, str] | None, code: Mapping[str, str]) -> str:
    """How the implementation differs from what is pinned; empty when it does not."""
    if pinned is None:
        return f"{', '.join(now)} is not pinned"
    address, code_hash = pinned
    if list(now) != [address]:
        return f"{', '.join(now) or 'unknown'} instead of {address}"
    return "" if code.get(address) == code_hash else f"the code at {address} is another"


def named(step: StepInput, only: Collection[str] | None = None) -> str:
    """Every token in quarantine, or of those `only` some, with its reason; empty when there is none."""
    told = [one for one in step.quarantine if only is None or one.token in only]
    return "; ".join(f"{step.portfolio.token(one.token).label} is in quarantine: {one.why}" for one in told)
