"""Decides whether money may leave the wallet: to a confirmed payout address, the granted amount to the unit, nothing else (T4, T14).

An ERC-20 payout is one `transfer(address,uint256)` of a pinned token; native coin goes by its value, without any data.
"""

from __future__ import annotations

from agent.chain.judging import SigningRules, no
from agent.chain.words import NotUnderstood, Words
from agent.model import Payout, UnsignedTx
from agent.ports import Grant
from agent.units import NATIVE

TRANSFER = bytes.fromhex("a9059cbb")
"""transfer(address,uint256) of ERC-20."""


def judge(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    """Returns when the transfer of a token may be signed; raises Refused naming the rule that says no."""
    try:
        words = Words(data[4:])
        to, raw = words.address(), words.uint()
        words.end()
    except NotUnderstood as error:
        no("call", error.message, "the canonical encoding of a call of the table")
    payout = _granted(grant)
    if tx.to not in rules.tokens:
        no("contract", tx.to, "a pinned token")
    if tx.to != payout.token:
        no("contract", tx.to, f"the granted token {payout.token}")
    _to(to, payout, rules)
    _amount(raw, payout)


def judge_coin(tx: UnsignedTx, _data: bytes, grant: Grant, rules: SigningRules) -> None:
    """The same for native coin: no data, and the value is the amount."""
    payout = _granted(grant)
    if payout.token != NATIVE:
        no("contract", "native coin", f"the granted token {payout.token}")
    _to(tx.to, payout, rules)
    _amount(tx.value_wei, payout)


def encode(to: str, raw: int) -> str:
    """0x-hex calldata of `transfer(to, raw)`; `raw` in base units."""
    return "0x" + (TRANSFER + bytes(12) + bytes.fromhex(to[2:]) + raw.to_bytes(32, "big")).hex()


def _granted(grant: Grant) -> Payout:
    if grant.payout is None:
        no("payout", "a payment", "none: the grant names no payment")
    return grant.payout


def _to(to: str, payout: Payout, rules: SigningRules) -> None:
    if to != payout.to:
        no("recipient", to, f"the granted address {payout.to}")
    if to not in rules.payouts:
        no("recipient", to, "a payout address that its owner has confirmed")
    ours = (rules.wallet, *rules.tokens, *rules.routers, *rules.rebalancers, *rules.managers, *rules.v2_routers, *rules.pairs)
    if to in (*ours, *rules.oracles) or int(to, 16) == 0:
        no("recipient", to, "somebody who is paid: neither the wallet, nor a token or contract that it trades with")


def _amount(raw: int, payout: Payout) -> None:
    if raw != payout.raw or raw <= 0:
        no("payout_amount", raw, f"exactly {payout.raw}, and more than nothing")
    if raw > payout.most_raw:
        no("payout_per_day", raw, f"at most {payout.most_raw}, which limits.payout_per_day leaves")
