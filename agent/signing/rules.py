"""The table of what may be signed: selector, then decoder, then rule; everything else is refused by name (threat T4).

The transaction is decoded here and compared with the grant; no field of it is believed. Adding a feature means adding
a row, its rule and its mutation tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from eth_utils.address import is_checksum_address
from eth_utils.crypto import keccak

from agent.errors import ConfigError
from agent.model import Funding, IntentKind, Leg, SignedTx, UnsignedTx
from agent.ports import Grant, SigningKey
from agent.signing import base as oracle_rule
from agent.signing import base as payout_rule
from agent.signing import calldata as calls
from agent.signing import liquidity_calldata as liquidity_calls
from agent.signing import liquidity_rules as liquidity_rule
from agent.signing import swap_rules as multicall_rule
from agent.signing import swap_rules as rebalance_rule
from agent.signing.base import PRIORITY_CAP_WEI, Nonces, SigningRules, dearer_wei, no
from agent.signing.calldata import Approve, Call, Multicall, NotUnderstood, Rebalance, Withdraw
from agent.units import NATIVE, UINT256_MAX

__all__ = ["TABLE", "Nonces", "Row", "SigningRules", "check", "check_typed", "no"]

MIN_GAS = 21_000


def check(tx: UnsignedTx, grant: Grant, rules: SigningRules, nonces: Nonces) -> None:
    """Returns when `tx` may be signed, at one of `nonces`. Raises Refused naming the rule that says no, what it saw and allows."""
    if tx.chain_id != rules.chain_id:
        no("chain_id", tx.chain_id, rules.chain_id)
    if tx.nonce not in nonces:
        no("nonce", tx.nonce, ", ".join(map(str, sorted(nonces))) or "none: the journal knows no next nonce")
    _fees(tx, grant, rules, nonces[tx.nonce])
    data = _data(tx)
    pays_coin = not data and grant.kind is IntentKind.PAYOUT  # without data a cancel and a payment of native coin look alike
    if tx.value_wei != 0 and data[:4] not in BRING_NATIVE and not pays_coin:
        no("value", f"{tx.value_wei} wei", "0 wei")
    row = COIN_PAYOUT if pays_coin else TABLE.get(data[:4])
    if row is None:
        no("call", f"function 0x{data[:4].hex()}", "a function of the table")
    if row.kind is not grant.kind:
        no("kind", f"a transaction of kind {row.kind.value}", f"kind {grant.kind.value}, as granted")
    row.rule(tx, data, grant, rules)


def check_typed(typed_data: Mapping[str, object]) -> NoReturn:
    """Refuses EIP-712 data: the table of typed data is empty."""
    primary = typed_data.get("primaryType")
    shown = primary if isinstance(primary, str) and primary.isidentifier() and len(primary) <= 40 else "without a plain type name"
    no("typed_data", f"typed data {shown}", "none: no typed data is signed")


def _fees(tx: UnsignedTx, grant: Grant, rules: SigningRules, tipped_wei: int | None) -> None:
    """One form of fee; a price within limits.gas_price; a tip within its cap, or one bump above what was signed at this nonce; at
    most the granted gas money even if all gas is used.
    """
    match (tx.max_fee_wei, tx.max_priority_fee_wei, tx.gas_price_wei):
        case (int() as max_fee, int() as priority, None):
            if not 0 <= priority <= max_fee:
                no("fees", f"priority fee {priority} wei", f"0 to the max fee of {max_fee} wei")
            most_wei = PRIORITY_CAP_WEI if tipped_wei is None else max(PRIORITY_CAP_WEI, dearer_wei(tipped_wei))
            if priority > most_wei:
                no("tip", f"{priority} wei per gas", f"at most {most_wei} wei")
            price = max_fee
        case (None, None, int() as gas_price):
            price = gas_price
        case _:
            no("fees", "a mix of fee fields", "max fee and priority fee, or a gas price")
    if price <= 0:
        no("fees", f"{price} wei per gas", "a positive price")
    if rules.max_fee_wei is not None and price > rules.max_fee_wei:
        no("gas_price", f"{price} wei per gas", f"limits.gas_price of {rules.max_fee_wei} wei")
    if tx.gas < MIN_GAS:
        no("gas", tx.gas, f"at least {MIN_GAS}")
    if tx.gas * price > grant.max_gas_wei:
        no("gas_cost", f"{tx.gas * price} wei", f"{grant.max_gas_wei} wei")


def _data(tx: UnsignedTx) -> bytes:
    if not is_checksum_address(tx.to):
        no("to", "an address that is not checksummed", "a checksummed address")
    try:
        return calls.data_bytes(tx.data)
    except NotUnderstood as error:
        no("call", error.message, "0x-hex calldata")


def _decoded(data: bytes) -> Call:
    try:
        return calls.decode(data)
    except NotUnderstood as error:
        no("call", error.message, "the canonical encoding of a call of the table")


def _cancel(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    """A cancel takes a nonce and does nothing else: to ourselves, no value, no data."""
    if data:
        no("call", f"{len(data)} bytes of data", "no data in a cancel")
    if tx.to != rules.wallet:
        no("cancel", f"a recipient {tx.to}", f"the wallet {rules.wallet}")


def _approve(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    """An approval is the granted one to the unit, for a pinned token and spender; setting to zero needs no pinned spender.

    LP tokens of a pair, the position manager and the V2 router come in only through the action of a grant.
    """
    call = _decoded(data)
    if not isinstance(call, Approve) or grant.approve is None:
        no("approval", "an approval", "none: the grant names no approval")
    token, spender, raw = grant.approve
    if tx.to not in rules.tokens and tx.to not in rules.pairs:
        no("contract", tx.to, "a pinned token")
    if tx.to != token:
        no("contract", tx.to, f"the granted token {token}")
    if call.spender != spender:
        no("spender", call.spender, f"the granted spender {spender}")
    if grant.action is not None:
        liquidity_rule.require_approval(token, call.spender, call.raw, grant.action, rules)
    elif call.raw != 0 and tx.to not in rules.tokens:
        no("contract", tx.to, "a pinned token")
    elif call.raw != 0 and call.spender not in (*rules.routers, *rules.rebalancers):
        no("spender", call.spender, "a pinned router or Rebalancer")
    if call.raw != raw:
        no("approval_amount", call.raw, f"exactly {raw}")
    if call.raw == UINT256_MAX:
        no("approval_amount", "an unlimited allowance", "an exact amount")
    if grant.plan is not None and call.raw not in (0, _spent(grant.plan.legs, token)):
        no("approval_amount", call.raw, f"0, or the {_spent(grant.plan.legs, token)} that the plan spends")


def _spent(legs: tuple[Leg, ...], token: str) -> int:
    return sum(leg.amount_in_raw for leg in legs if leg.token_in == token and leg.source is Funding.WALLET)


def _swap(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    call = _decoded(data)
    if not isinstance(call, Multicall):
        no("call", "another call", "a multicall")
    multicall_rule.judge_multicall(tx, call, grant, rules)


def _rebalance(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    call = _decoded(data)
    if not isinstance(call, Rebalance):
        no("call", "another call", "a rebalance")
    rebalance_rule.judge_rebalance(tx, call, grant, rules)


def _withdraw(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    """Unwrapping by the wallet itself: exactly what the granted plan unwraps, and nothing else in the plan."""
    call = _decoded(data)
    if not isinstance(call, Withdraw):
        no("call", "another call", "a withdrawal of wrapped coin")
    if rules.wrapped_native is None or tx.to != rules.wrapped_native or tx.to not in rules.tokens:
        no("contract", tx.to, f"the wrapped native coin {rules.wrapped_native}, pinned")
    legs = () if grant.plan is None else grant.plan.legs
    ends = [(leg.venue, leg.token_in, leg.token_out, leg.source, leg.sink) for leg in legs]
    if ends != [("wrapped_native", tx.to, NATIVE, Funding.WALLET, Funding.WALLET)]:
        no("plan", f"{len(legs)} legs", "one that unwraps from and to the wallet")
    if call.raw != legs[0].amount_in_raw or call.raw <= 0:
        no("amount_in", call.raw, f"exactly {legs[0].amount_in_raw}, and more than nothing")


@dataclass(frozen=True, slots=True)
class Row:
    """One thing that may be signed: the kind of intent it serves, and its rule."""

    kind: IntentKind
    rule: Callable[[UnsignedTx, bytes, Grant, SigningRules], None]


TABLE: dict[bytes, Row] = {
    b"": Row(IntentKind.CANCEL, _cancel),
    calls.APPROVE: Row(IntentKind.APPROVE, _approve),
    calls.MULTICALL: Row(IntentKind.SWAP, _swap),
    calls.REBALANCE: Row(IntentKind.SWAP, _rebalance),
    calls.WITHDRAW: Row(IntentKind.UNWRAP, _withdraw),
    oracle_rule.INCREASE: Row(IntentKind.ORACLE, oracle_rule.judge_oracle),
    payout_rule.TRANSFER: Row(IntentKind.PAYOUT, payout_rule.judge_payout),
    **{selector: Row(IntentKind.LIQUIDITY, liquidity_rule.judge) for selector in sorted(liquidity_calls.SELECTORS)},
}
COIN_PAYOUT = Row(IntentKind.PAYOUT, payout_rule.judge_coin)
BRING_NATIVE = frozenset({calls.MULTICALL, calls.REBALANCE})
"""Calls whose own rule says how much native coin they bring; all others bring none."""


# --- Signs what the table of rules allows, with a key in this process or elsewhere, and nothing else.


class LocalSigner:
    """ports.Signer: the one gate before a key. With a key in memory the same transaction gives the same bytes (RFC 6979)."""

    def __init__(self, key: SigningKey, rules: SigningRules, nonces: Callable[[], Nonces]) -> None:
        """`nonces` asks the journal, at each signature. Raises ConfigError when the key is of another wallet."""
        if key.address != rules.wallet:
            raise ConfigError(f"wallet.address {rules.wallet} is not the address of the key, {key.address}", "correct one of the two")
        self._key = key
        self._rules = rules
        self._nonces = nonces

    def __repr__(self) -> str:
        return f"LocalSigner({self.address})"

    @property
    def address(self) -> str:
        """Checksummed address of the key."""
        return self._key.address

    def sign(self, tx: UnsignedTx, grant: Grant) -> SignedTx:
        """Signed bytes and their hash. Raises Refused naming the rule that says no."""
        check(tx, grant, self._rules, self._nonces())
        return self._key.sign_transaction(tx)

    def sign_typed(self, typed_data: Mapping[str, object], grant: Grant) -> NoReturn:
        """Always raises Refused: typed data passes the same gate, whose table for it is empty."""
        check_typed(typed_data)


# --- An unsigned transaction as eth-account takes it, what of it is hashed, and its bytes once somebody has signed the hash.


Vrs = tuple[int, int, int]
"""Recovery bit (0 or 1), r and s of a signature."""


def fields_of(tx: UnsignedTx) -> dict[str, Any]:
    """The fields that eth-account signs; type 2 (EIP-1559) when there is a max fee, else legacy with EIP-155."""
    fields: dict[str, Any] = {
        "chainId": tx.chain_id,
        "nonce": tx.nonce,
        "to": tx.to,
        "value": tx.value_wei,
        "data": tx.data,
        "gas": tx.gas,
    }
    if tx.max_fee_wei is None:
        return {**fields, "gasPrice": tx.gas_price_wei}
    return {**fields, "type": 2, "maxFeePerGas": tx.max_fee_wei, "maxPriorityFeePerGas": tx.max_priority_fee_wei}


@dataclass(frozen=True, slots=True)
class _Signature:
    vrs: Vrs


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """Stands in for eth-account's key: the hash is signed by whoever `sign` reaches."""

    sign: Callable[[bytes], Vrs]

    def sign_msg_hash(self, digest: bytes) -> _Signature:
        return _Signature(self.sign(bytes(digest)))


def signed_by(tx: UnsignedTx, sign: Callable[[bytes], Vrs]) -> SignedTx:
    """The transaction with the signature that `sign` gives for its 32-byte hash (keccak256 of EIP-1559's or EIP-155's payload)."""
    from eth_account._utils.signing import sign_transaction_dict

    elsewhere = cast(Any, _Elsewhere(sign))
    raw = bytes(sign_transaction_dict(elsewhere, fields_of(tx))[3])  # type: ignore[no-untyped-call,unused-ignore]  # untyped in eth-account 0.11
    return SignedTx(raw, "0x" + bytes(keccak(raw)).hex())
