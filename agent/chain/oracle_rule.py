"""Decides whether a pool may be told to remember more prices: the granted pool, the granted number, nothing else."""

from __future__ import annotations

from agent.chain.judging import SigningRules, no
from agent.chain.words import NotUnderstood, Words
from agent.model import UnsignedTx
from agent.ports import Grant

INCREASE = bytes.fromhex("32148f67")
"""increaseObservationCardinalityNext(uint16) of a V3 pool: anybody may call it, and pays for the slots."""
SLOT_BITS = 16


def judge(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    """Returns when the call may be signed; raises Refused naming the rule that says no."""
    try:
        words = Words(data[4:])
        slots = words.uint(SLOT_BITS)
        words.end()
    except NotUnderstood as error:
        no("call", error.message, "the canonical encoding of a call of the table")
    if grant.oracle is None:
        no("oracle", f"{slots} observations", "none: the grant names no pool")
    pool, granted = grant.oracle
    if tx.to not in rules.oracles:
        no("contract", tx.to, "a pinned V3 pool")
    if tx.to != pool:
        no("contract", tx.to, f"the granted pool {pool}")
    if slots != granted:
        no("observations", slots, f"exactly {granted}")


def encode(slots: int) -> str:
    """0x-hex calldata that lets a pool keep so many observations."""
    return "0x" + (INCREASE + slots.to_bytes(32, "big")).hex()
