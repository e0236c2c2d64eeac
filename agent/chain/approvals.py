"""Says which allowances a plan still needs, exactly, and encodes them; what is left over goes back to zero."""

from __future__ import annotations

from collections.abc import Mapping

from agent.chain.abi import abi_encode
from agent.chain.calls import APPROVE
from agent.errors import Refused
from agent.model import Plan, Snapshot
from agent.policy.approvals import spent


def needed(plan: Plan, snapshot: Snapshot, router: str) -> tuple[tuple[str, int], ...]:
    """Approvals of `router` to mine before `plan`, in order, as (token, base units); empty when allowances suffice."""
    return lacking(spent(plan.legs), snapshot, router)


def lacking(amounts: Mapping[str, int], snapshot: Snapshot, spender: str) -> tuple[tuple[str, int], ...]:
    """Approvals of `spender` until it may take these base units, in order, as (token, base units).

    Each is exactly what is taken. An allowance that is neither zero nor enough is first set to zero, since
    tokens like USDT refuse to change one non-zero allowance into another. Raises Refused when a token's allowance is
    not in the snapshot.
    """
    have = {a.token: a.raw for a in snapshot.allowances if a.spender == spender}
    approvals: list[tuple[str, int]] = []
    for token, raw in amounts.items():
        if token not in have:
            raise Refused(
                f"the allowance of {spender} for {token} is not in the snapshot of block {snapshot.head.number}",
                remedy="the token is quarantined or its spender is not watched; see `trimtab doctor`",
            )
        if have[token] >= raw:
            continue
        if have[token] > 0:
            approvals.append((token, 0))
        approvals.append((token, raw))
    return tuple(approvals)


def left_over(snapshot: Snapshot) -> tuple[tuple[str, str], ...]:
    """(token, spender) of every allowance above zero: nothing but an open plan needs one."""
    return tuple((a.token, a.spender) for a in snapshot.allowances if a.raw > 0)


def encode_approve(spender: str, raw: int) -> str:
    """0x-hex calldata of ERC-20 `approve(spender, raw)`; `raw` in base units."""
    return "0x" + (APPROVE + abi_encode(["address", "uint256"], [spender, raw])).hex()
