"""Table of signable calls: selector, kind and rule. Every other transaction is refused (T4).

The signer decodes each transaction and compares it with the grant; it trusts no field. A new
feature adds a row, its rule and its mutation tests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NoReturn, cast

from eth_utils.address import is_checksum_address
from eth_utils.crypto import keccak

from agent.errors import ConfigError
from agent.model import NATIVE_VENUE, IntentKind, Leg, LegPlace, SignedTx, UnsignedTx
from agent.ports import Grant, SigningKey
from agent.ports.perpetuals import futures_grant
from agent.signing import calldata, deployment_rules, oracle_rules, payout_rules, swap_rules
from agent.signing import futures as futures_rules
from agent.signing import liquidity as liquidity_rules
from agent.signing.batches import MULTI_SEND, decode_batch
from agent.signing.calldata import (
    Approve,
    Call,
    Multicall,
    RebalanceCall,
    UndecodableCalldata,
    WithdrawWeth9,
)
from agent.signing.terms import (
    HighestTipByNonce,
    SigningRules,
    refuse,
    replacement_fee_wei,
    tip_range_wei,
)
from agent.units import NATIVE, UINT256_MAX

__all__ = [
    "SIGNING_TABLE",
    "HighestTipByNonce",
    "LocalSigner",
    "SigningRule",
    "SigningRules",
    "Vrs",
    "refuse_typed_data",
    "require_signable",
    "sign_with",
    "transaction_fields",
]

MIN_GAS = 21_000


def require_signable(
    tx: UnsignedTx, grant: Grant, rules: SigningRules, nonces: HighestTipByNonce
) -> None:
    """Raise Refused, with the rule that failed, its measurement and its limit, unless `tx` may be
    signed at one of `nonces`.
    """
    if tx.chain_id != rules.chain_id:
        refuse("chain_id", tx.chain_id, rules.chain_id)
    if tx.nonce not in nonces:
        refuse(
            "nonce",
            tx.nonce,
            ", ".join(map(str, sorted(nonces))) or "none: the journal knows no next nonce",
        )
    _require_fees(tx, grant, rules, nonces[tx.nonce])
    data = _call_data(tx)
    # Without data, only the grant distinguishes a cancel from a payout of native coin.
    is_native_payout = not data and grant.kind is IntentKind.PAYOUT
    if tx.value_wei != 0 and data[:4] not in PAYABLE_SELECTORS and not is_native_payout:
        refuse("value", f"{tx.value_wei} wei", "0 wei")
    signing_rule = NATIVE_PAYOUT_RULE if is_native_payout else SIGNING_TABLE.get(data[:4])
    if signing_rule is None:
        refuse("call", f"function 0x{data[:4].hex()}", "a function of the table")
    if signing_rule.kind is not grant.kind:
        refuse(
            "kind",
            f"a transaction of kind {signing_rule.kind.value}",
            f"kind {grant.kind.value}, as granted",
        )
    signing_rule.judge(tx, data, grant, rules)


def refuse_typed_data(typed_data: Mapping[str, object]) -> NoReturn:
    """Refuse all EIP-712 data: this signer signs none."""
    primary_type = typed_data.get("primaryType")
    type_text = "without a plain type name"
    if isinstance(primary_type, str) and primary_type.isidentifier() and len(primary_type) <= 40:
        type_text = primary_type
    refuse("typed_data", f"typed data {type_text}", "none: no typed data is signed")


def _require_fees(
    tx: UnsignedTx, grant: Grant, rules: SigningRules, highest_tip_wei: int | None
) -> None:
    """Require one kind of fee, within limits.gas_price and the granted gas cost.

    The tip is within its cap, or one bump above the tip signed at this nonce.
    """
    match (tx.max_fee_wei, tx.max_priority_fee_wei, tx.gas_price_wei):
        case (int() as max_fee_wei, int() as priority_fee_wei, None):
            if not 0 <= priority_fee_wei <= max_fee_wei:
                refuse(
                    "fees",
                    f"priority fee {priority_fee_wei} wei",
                    f"0 to the max fee of {max_fee_wei} wei",
                )
            _, max_tip_wei = tip_range_wei(rules.chain_id)
            if highest_tip_wei is not None:
                max_tip_wei = max(max_tip_wei, replacement_fee_wei(highest_tip_wei))
            if priority_fee_wei > max_tip_wei:
                refuse("tip", f"{priority_fee_wei} wei per gas", f"at most {max_tip_wei} wei")
            price_per_gas_wei = max_fee_wei
        case (None, None, int() as gas_price_wei):
            price_per_gas_wei = gas_price_wei
        case _:
            refuse("fees", "a mix of fee fields", "max fee and priority fee, or a gas price")
    if price_per_gas_wei <= 0:
        refuse("fees", f"{price_per_gas_wei} wei per gas", "a positive price")
    max_price_per_gas_wei = rules.max_fee_wei
    limit_name = "limits.gas_price"
    if rules.futures is not None and grant.is_emergency:
        max_price_per_gas_wei = rules.futures.emergency_fee_wei
        limit_name = "the emergency ceiling"
    if max_price_per_gas_wei is not None and price_per_gas_wei > max_price_per_gas_wei:
        refuse(
            "gas_price",
            f"{price_per_gas_wei} wei per gas",
            f"{limit_name} of {max_price_per_gas_wei} wei",
        )
    if tx.gas < MIN_GAS:
        refuse("gas", tx.gas, f"at least {MIN_GAS}")
    if tx.gas * price_per_gas_wei > grant.max_gas_wei:
        refuse("gas_cost", f"{tx.gas * price_per_gas_wei} wei", f"{grant.max_gas_wei} wei")


@lru_cache(maxsize=4_096)
def _has_checksum(address: str) -> bool:
    return bool(is_checksum_address(address))


def _call_data(tx: UnsignedTx) -> bytes:
    if not _has_checksum(tx.to):
        refuse("to", "an address that is not checksummed", "a checksummed address")
    try:
        return calldata.data_bytes(tx.data)
    except UndecodableCalldata as error:
        refuse("call", error.message, "0x-hex calldata")


def _decode_call(data: bytes) -> Call:
    try:
        return calldata.decode(data)
    except UndecodableCalldata as error:
        refuse("call", error.message, "the canonical encoding of a call of the table")


def _judge_cancel(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    """Require a transfer to ourselves without value or data, which only uses up the nonce."""
    if data:  # SIGNING_TABLE has no such row either
        refuse("call", f"{len(data)} bytes of data", "no data in a cancel")
    if tx.to != rules.wallet:
        refuse("cancel", f"a recipient {tx.to}", f"the wallet {rules.wallet}")


def _judge_approve(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    """Require the granted approval, exact to the base unit, of a pinned token and spender; a reset
    to zero needs no pinned spender. LP tokens, the position manager and the V2 router require a
    granted action, the futures vault a granted deposit.
    """
    call = _decode_call(data)
    if not isinstance(call, Approve) or grant.approval_terms is None:
        refuse("approval", "an approval", "none: the grant names no approval")
    token, spender, granted_raw = grant.approval_terms
    if tx.to not in rules.tokens and tx.to not in rules.v2_pairs:
        refuse("contract", tx.to, "a pinned token")
    if tx.to != token:
        refuse("contract", tx.to, f"the granted token {token}")
    if call.spender != spender:
        refuse("spender", call.spender, f"the granted spender {spender}")
    if grant.layer_action is not None:
        liquidity_rules.require_approval(token, call.spender, call.raw, grant.layer_action, rules)
    elif (layer_grant := futures_grant(grant)) is not None:
        futures_rules.require_approval(token, call.spender, call.raw, layer_grant, rules)
    elif call.raw != 0 and tx.to not in rules.tokens:
        refuse("contract", tx.to, "a pinned token")
    elif call.raw != 0 and call.spender not in (*rules.routers, *rules.rebalancers):
        refuse("spender", call.spender, "a pinned router or Rebalancer")
    if call.raw != granted_raw:
        refuse("approval_amount", call.raw, f"exactly {granted_raw}")
    if call.raw == UINT256_MAX:
        refuse("approval_amount", "an unlimited allowance", "an exact amount")


def _spent_raw(legs: tuple[Leg, ...], token: str) -> int:
    return sum(
        leg.amount_in_raw for leg in legs if leg.token_in == token and leg.source is LegPlace.WALLET
    )


def _judge_swap(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    call = _decode_call(data)
    if not isinstance(call, Multicall):
        refuse("call", "another call", "a multicall")
    swap_rules.judge_multicall(tx, call, grant, rules)


def _judge_rebalance(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    call = _decode_call(data)
    if not isinstance(call, RebalanceCall):
        refuse("call", "another call", "a rebalance")
    swap_rules.judge_rebalance(tx, call, grant, rules)


def _judge_unwrap(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    """Require exactly the unwrapping of the granted plan, which has no other leg."""
    call = _decode_call(data)
    if not isinstance(call, WithdrawWeth9):
        refuse("call", "another call", "a withdrawal of wrapped coin")
    if rules.wrapped_native is None or tx.to != rules.wrapped_native or tx.to not in rules.tokens:
        refuse("contract", tx.to, f"the wrapped native coin {rules.wrapped_native}, pinned")
    legs = () if grant.plan is None else grant.plan.legs
    leg_terms = [(leg.venue, leg.token_in, leg.token_out, leg.source, leg.sink) for leg in legs]
    if leg_terms != [(NATIVE_VENUE, tx.to, NATIVE, LegPlace.WALLET, LegPlace.WALLET)]:
        refuse("plan", f"{len(legs)} legs", "one that unwraps from and to the wallet")
    if call.raw != legs[0].amount_in_raw or call.raw <= 0:
        refuse("amount_in", call.raw, f"exactly {legs[0].amount_in_raw}, above zero")


def _judge_batch(tx: UnsignedTx, data: bytes, grant: Grant, rules: SigningRules) -> None:
    """Require exact approvals for the granted plan, then its trade, each as its own rule does."""
    if tx.to != rules.batch_contract:
        refuse("contract", tx.to, f"the pinned contract of batches {rules.batch_contract}")
    try:
        *approvals, trade = decode_batch(tx.data)
    except UndecodableCalldata as error:
        refuse("call", error.message, "the canonical encoding of a batch")
    approved_tokens = [approval.to for approval in approvals]
    if not approvals or len(set(approved_tokens)) != len(approvals):
        refuse(
            "batch", f"approvals of {approved_tokens}", "one for each of some tokens, then a trade"
        )
    legs = () if grant.plan is None else grant.plan.legs
    for approval in approvals:
        if approval.data[:4] != calldata.APPROVE:
            refuse("call", f"function 0x{approval.data[:4].hex()} before the trade", "an approval")
        spent_raw = _spent_raw(legs, approval.to)
        if spent_raw == 0:
            refuse("contract", approval.to, "a token that the plan spends")
        approval_grant = Grant(
            IntentKind.APPROVE,
            grant.now_s,
            grant.deadline_s,
            grant.max_gas_wei,
            approval_terms=(approval.to, trade.to, spent_raw),
        )
        approval_tx = replace(tx, to=approval.to, data=approval.data_hex)
        _judge_approve(approval_tx, approval.data, approval_grant, rules)
    judge_trade = _TRADE_JUDGES.get(trade.data[:4])
    if judge_trade is None:
        refuse("call", f"function 0x{trade.data[:4].hex()} after the approvals", "a trade")
    judge_trade(replace(tx, to=trade.to, data=trade.data_hex), trade.data, grant, rules)


_TRADE_JUDGES = {calldata.MULTICALL: _judge_swap, calldata.REBALANCE: _judge_rebalance}


@dataclass(frozen=True, slots=True)
class SigningRule:
    """Row of the table: a kind of intent, and its rule."""

    kind: IntentKind
    judge: Callable[[UnsignedTx, bytes, Grant, SigningRules], None]


SIGNING_TABLE: dict[bytes, SigningRule] = {
    b"": SigningRule(IntentKind.CANCEL, _judge_cancel),
    calldata.APPROVE: SigningRule(IntentKind.APPROVE, _judge_approve),
    calldata.MULTICALL: SigningRule(IntentKind.SWAP, _judge_swap),
    calldata.REBALANCE: SigningRule(IntentKind.SWAP, _judge_rebalance),
    MULTI_SEND: SigningRule(IntentKind.SWAP, _judge_batch),
    calldata.WITHDRAW: SigningRule(IntentKind.UNWRAP, _judge_unwrap),
    oracle_rules.INCREASE_OBSERVATIONS: SigningRule(IntentKind.ORACLE, oracle_rules.judge_oracle),
    calldata.TRANSFER: SigningRule(IntentKind.PAYOUT, payout_rules.judge_payout),
    deployment_rules.SALT[:4]: SigningRule(IntentKind.DEPLOY, deployment_rules.judge_deployment),
    **{
        selector: SigningRule(IntentKind.LIQUIDITY, liquidity_rules.judge)
        for selector in sorted(liquidity_rules.SELECTORS)
    },
    **{
        selector: SigningRule(IntentKind.FUTURES, futures_rules.judge)
        for selector in sorted(futures_rules.SELECTORS)
    },
}
NATIVE_PAYOUT_RULE = SigningRule(IntentKind.PAYOUT, payout_rules.judge_native_payout)
PAYABLE_SELECTORS = frozenset({calldata.MULTICALL, calldata.REBALANCE})
"""Calls whose rules judge the native coin sent; all others must send none."""


class LocalSigner:
    """Implements ports.Signer, the gate for every transaction of the wallet's key. A local key
    signs deterministically (RFC 6979).
    """

    def __init__(
        self, key: SigningKey, rules: SigningRules, nonces: Callable[[], HighestTipByNonce]
    ) -> None:
        """Set key and rules; `nonces` reads the journal before each signature. Raises ConfigError
        if the key belongs to another wallet.
        """
        if key.address != rules.wallet:
            raise ConfigError(
                f"wallet.address {rules.wallet} is not the address of the key, {key.address}",
                "correct the address, or use the key of that wallet",
            )
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
        """Return the signed bytes and their hash. Raises Refused with the rule that failed."""
        require_signable(tx, grant, self._rules, self._nonces())
        return self._key.sign_transaction(tx)

    def refuse_typed(self, typed_data: Mapping[str, object], grant: Grant) -> NoReturn:
        """Raise Refused: no typed data is signed."""
        refuse_typed_data(typed_data)


Vrs = tuple[int, int, int]
"""Recovery bit (0 or 1), r and s of a signature."""


def transaction_fields(tx: UnsignedTx) -> dict[str, Any]:
    """Return the fields that eth-account signs: type 2 (EIP-1559) with a max fee, else legacy with
    EIP-155.
    """
    tx_fields: dict[str, Any] = {
        "chainId": tx.chain_id,
        "nonce": tx.nonce,
        "to": tx.to,
        "value": tx.value_wei,
        "data": tx.data,
        "gas": tx.gas,
    }
    if tx.max_fee_wei is None:
        return {**tx_fields, "gasPrice": tx.gas_price_wei}
    return {
        **tx_fields,
        "type": 2,
        "maxFeePerGas": tx.max_fee_wei,
        "maxPriorityFeePerGas": tx.max_priority_fee_wei,
    }


@dataclass(frozen=True, slots=True)
class _Signature:
    vrs: Vrs


@dataclass(frozen=True, slots=True)
class _DelegatedKey:
    """Key for eth-account that delegates signing of the hash to `sign`."""

    sign: Callable[[bytes], Vrs]

    def sign_msg_hash(self, digest: bytes) -> _Signature:
        return _Signature(self.sign(bytes(digest)))


def sign_with(tx: UnsignedTx, sign: Callable[[bytes], Vrs]) -> SignedTx:
    """Return the transaction, signed by `sign`, which takes its 32-byte hash (keccak256 of the
    payload of EIP-1559 or EIP-155).
    """
    from eth_account._utils.signing import sign_transaction_dict

    delegated_key = cast(Any, _DelegatedKey(sign))
    raw_transaction = bytes(sign_transaction_dict(delegated_key, transaction_fields(tx))[3])  # type: ignore[no-untyped-call,unused-ignore]  # untyped in eth-account 0.11
    return SignedTx(raw_transaction, "0x" + bytes(keccak(raw_transaction)).hex())
