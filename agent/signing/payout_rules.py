"""The signer's rules for payouts: exactly the granted amount, to an address that the owner
confirmed.
"""

from __future__ import annotations

from agent.model import Payout, UnsignedTx
from agent.ports import Grant
from agent.signing.calldata import TRANSFER, TransferCall, UndecodableCalldata, decode
from agent.signing.terms import SigningRules, refuse
from agent.units import NATIVE


def judge_payout(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    """Raise Refused, with the failed rule, unless the transfer of a token may be signed."""
    try:
        call = decode(data)
    except UndecodableCalldata as error:
        refuse("call", error.message, "the canonical encoding of a call of the table")
    if not isinstance(call, TransferCall):
        refuse("call", "another call", "a transfer")
    payout = _granted_payout(grant)
    if tx.to not in rules.tokens:
        refuse("contract", tx.to, "a pinned token")
    if tx.to != payout.token:
        refuse("contract", tx.to, f"the granted token {payout.token}")
    _require_recipient(call.recipient, payout, rules)
    _require_amount(call.raw, payout)


def judge_native_payout(tx: UnsignedTx, _data: bytes, grant: Grant, rules: SigningRules) -> None:
    """Raise Refused, with the failed rule, unless the payout of native coin may be signed."""
    payout = _granted_payout(grant)
    if payout.token != NATIVE:
        refuse("contract", "native coin", f"the granted token {payout.token}")
    _require_recipient(tx.to, payout, rules)
    _require_amount(tx.value_wei, payout)


def encode_payout(to: str, raw: int) -> str:
    """Return 0x-hex calldata of `transfer(to, raw)`; `raw` in base units."""
    return "0x" + (TRANSFER + bytes(12) + bytes.fromhex(to[2:]) + raw.to_bytes(32, "big")).hex()


def _granted_payout(grant: Grant) -> Payout:
    if grant.payout is None:
        refuse("payout", "a payment", "none: the grant names no payment")
    return grant.payout


def _require_recipient(to: str, payout: Payout, rules: SigningRules) -> None:
    if to != payout.to:
        refuse("recipient", to, f"the granted address {payout.to}")
    if to not in rules.payout_addresses:
        refuse("recipient", to, "a payout address confirmed by the owner")
    if to == rules.wallet or to in rules.called_contracts or int(to, 16) == 0:
        refuse(
            "recipient",
            to,
            "a recipient: neither the wallet, nor a token or contract that it calls",
        )


def _require_amount(raw: int, payout: Payout) -> None:
    if raw != payout.raw or raw <= 0:
        refuse("payout_amount", raw, f"exactly {payout.raw}, above zero")
    if raw > payout.limit_left_raw:
        refuse(
            "payout_per_day",
            raw,
            f"at most {payout.limit_left_raw}, the remainder of limits.payout_per_day",
        )
