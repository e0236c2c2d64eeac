"""The signer's rule for oracles: exactly the granted increase of a pinned pool's observations."""

from __future__ import annotations

from agent.model import UnsignedTx
from agent.ports import Grant
from agent.signing.calldata import CalldataReader, UndecodableCalldata
from agent.signing.terms import SigningRules, refuse

INCREASE_OBSERVATIONS = bytes.fromhex("32148f67")
"""increaseObservationCardinalityNext(uint16) of a V3 pool; the caller, any account, pays for the
slots."""
OBSERVATION_COUNT_BITS = 16


def judge_oracle(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    """Raise Refused, with the failed rule, unless this increase of a pool's number of observations
    may be signed.
    """
    try:
        words = CalldataReader(data[4:])
        observation_count = words.uint(OBSERVATION_COUNT_BITS)
        words.require_end()
    except UndecodableCalldata as error:
        refuse("call", error.message, "the canonical encoding of a call of the table")
    if grant.oracle_growth is None:
        refuse("oracle", f"{observation_count} observations", "none: the grant names no pool")
    pool, granted_count = grant.oracle_growth
    if tx.to not in rules.oracle_pools:
        refuse("contract", tx.to, "a pinned V3 pool")
    if tx.to != pool:
        refuse("contract", tx.to, f"the granted pool {pool}")
    if observation_count != granted_count:
        refuse("observations", observation_count, f"exactly {granted_count}")


def encode_observations(observation_count: int) -> str:
    """Return 0x-hex calldata that increases a pool's number of observations."""
    return "0x" + (INCREASE_OBSERVATIONS + observation_count.to_bytes(32, "big")).hex()
