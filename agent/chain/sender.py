"""Talks to nodes about transactions: simulates, sends once, looks where a hash stands. A send is never repeated here."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

from agent.chain.calls import APPROVE
from agent.chain.receipts import parse_receipt
from agent.chain.reverts import revert_reason
from agent.chain.rpc import CallFailed, RpcFault, Transport
from agent.chain.wire import hex_data, octets, parse_head, quantity
from agent.errors import OperatorNeeded, Refused, Retryable
from agent.model import Head, SignedTx, UnsignedTx, Verdict
from agent.ports import Simulation, TxSeen

_REVERTED_CODE = 3


class NonceUsed(OperatorNeeded):
    """The chain has another transaction at this nonce: something else uses the wallet."""


class SendRefused(Refused):
    """The node did not take the transaction and says so. The verdict's guard is `send.<why>`."""


class _Said(Enum):
    """What a node's refusal of a transaction means."""

    KNOWN = "known"
    NONCE_LOW = "nonce_too_low"
    UNDERPRICED = "underpriced"
    NO_FUNDS = "no_funds"
    BAD_GAS = "gas"
    UNFIT = "unfit"


_PHRASES: tuple[tuple[_Said, tuple[str, ...]], ...] = (
    (_Said.KNOWN, ("already known", "alreadyknown", "known transaction", "already imported", "already in pool", "already exists")),
    (
        _Said.NONCE_LOW,
        ("nonce too low", "nonce is too low", "oldnonce", "old nonce", "invalid transaction nonce", "nonce has already been used"),
    ),
    (
        _Said.UNDERPRICED,
        (
            "underpriced",
            "fee too low",
            "less than block base fee",
            "below base fee",
            "lower than block's base fee",
            "gas price too low",
            "feetoolow",
        ),
    ),
    (
        _Said.NO_FUNDS,
        ("insufficient funds", "insufficient balance", "not enough funds", "does not have enough balance", "cannot afford"),
    ),
    (_Said.BAD_GAS, ("intrinsic gas", "gas limit", "gas required exceeds", "insufficient gas", "out of gas")),
    (_Said.UNFIT, ("invalid sender", "invalid signature", "invalid chain", "chain id", "not supported", "not allowed", "nonce too high")),
)
_REMEDIES = {
    _Said.UNDERPRICED: "raise limits.gas_price, or wait until gas is cheaper",
    _Said.NO_FUNDS: "send the wallet native coin for gas",
    _Said.BAD_GAS: "the plan needs more gas than the transaction allows; plan again",
    _Said.UNFIT: "the node rejects the transaction's form; check chain_id and the endpoint",
}


class NodeSender:
    """ports.Sender over one endpoint; with `submit` signed bytes go there alone (a private endpoint)."""

    def __init__(self, transport: Transport, submit: Transport | None = None) -> None:
        self._transport = transport
        self._submit = transport if submit is None else submit

    def simulate(self, tx: UnsignedTx, sender: str, height: int | None = None) -> Simulation:
        """What the exact transaction would do at the head, or after the block of that height, and its gas.

        Raises Retryable when the node cannot tell.
        With a `gas` of 0 the amount is left to the node, and whether the wallet could pay for it is not asked: a node
        would ask for the price of a whole block.
        """
        request, at = _request(tx, sender), _tag(height)
        chain_id, block, answer, gas = self._transport.batch(
            [
                ("eth_chainId", []),
                ("eth_getBlockByNumber", [at, False]),
                ("eth_call", [request, at]),
                ("eth_estimateGas", [request, at]),
            ]
        )
        head = parse_head(_result(block, "the head"), quantity(_result(chain_id, "the chain id"), "chain id"))
        if head.base_fee_wei is not None and _most_wei(tx) < head.base_fee_wei:
            return Simulation(False, f"its fee of {_most_wei(tx)} wei per gas is below the base fee of {head.base_fee_wei} wei", 0, head)
        for outcome in (answer, gas):
            if isinstance(outcome, RpcFault):
                return Simulation(False, _failure(outcome), 0, head, reverted=_by_contracts(outcome, tx))
        if tx.data.startswith(hex_data(APPROVE)) and _not_true(octets(answer, "the simulated call")):
            return Simulation(False, "the token answers false, not true: it refuses the approval", 0, head, reverted=True)
        return Simulation(True, "", quantity(gas, "the gas estimate"), head)

    def send(self, signed: SignedTx) -> None:
        """Hands the signed bytes to the node, once; a transaction that the node has already is success.

        Raises NonceUsed when another transaction has the nonce, SendRefused when the node surely did not take it, and
        Retryable when its fate is unknown: look for its hash.
        """
        try:
            self.offer(signed)
        except NonceUsed:
            if self.look(signed.hash).state == "unknown":
                raise

    def offer(self, signed: SignedTx) -> None:
        """As `send`, but NonceUsed may also mean that the transaction itself is mined: whoever offers has to look."""
        unknown = f"whether transaction {signed.hash} was taken is unknown"
        try:
            answer = self._submit.call("eth_sendRawTransaction", [hex_data(signed.raw)])
        except CallFailed as error:
            _refused(signed.hash, error.fault)
            return
        except Retryable as error:
            raise Retryable(f"{unknown}: {error.message}", "look for its hash before sending anything else") from None
        if not isinstance(answer, str) or answer.lower() != signed.hash:
            raise Retryable(f"{unknown}: the node answers another hash", "look for its hash before sending anything else")

    def look(self, tx_hash: str) -> TxSeen:
        """Whether the hash is unknown, pending or mined (with its receipt). Raises Retryable when the node cannot tell."""
        found, known = self._transport.batch([("eth_getTransactionReceipt", [tx_hash]), ("eth_getTransactionByHash", [tx_hash])])
        receipt, body = _maybe(found, "the receipt"), _maybe(known, "the transaction")
        if receipt is not None and receipt.get("blockHash") is not None:
            return TxSeen("mined", parse_receipt(receipt, tx_hash))
        if body is not None:
            return TxSeen("pending", None)
        return TxSeen("unknown", None)

    def nonces(self, owner: str) -> tuple[int, int]:
        """Next nonce of `owner` by (latest, pending)."""
        latest, pending = self._transport.batch(
            [("eth_getTransactionCount", [owner, "latest"]), ("eth_getTransactionCount", [owner, "pending"])]
        )
        return quantity(_result(latest, "the nonce"), "nonce"), quantity(_result(pending, "the nonce"), "nonce")

    def head(self, height: int | None = None) -> Head:
        """The newest block's header, or that of a height."""
        chain_id, block = self._transport.batch([("eth_chainId", []), ("eth_getBlockByNumber", [_tag(height), False])])
        return parse_head(_result(block, "the head"), quantity(_result(chain_id, "the chain id"), "chain id"))

    def block_hash(self, number: int) -> str | None:
        """Hash of the canonical block at that height; None when there is none."""
        (block,) = self._transport.batch([("eth_getBlockByNumber", [hex(number), False])])
        found = _maybe(block, "the block")
        return None if found is None else hex_data(octets(found.get("hash"), "block hash", 32))


def _refused(tx_hash: str, fault: RpcFault) -> None:
    """Returns when the node says that it has the transaction already; else raises what its refusal means."""
    said = _meaning(fault)
    if said is _Said.KNOWN:
        return
    if said is _Said.NONCE_LOW:
        raise NonceUsed(
            f"the nonce of transaction {tx_hash} is used by another transaction ({fault.message})",
            "something else sends from this wallet; find out what before going on",
        )
    if said is None:
        raise Retryable(f"whether transaction {tx_hash} was taken is unknown: {fault.message}", "look for its hash")
    verdict = Verdict(f"send.{said.value}", fault.message, "taken by the node", False)
    raise SendRefused(f"the node did not take transaction {tx_hash}: {fault.message}", (verdict,), _REMEDIES[said])


def _tag(height: int | None) -> str:
    return "latest" if height is None else hex(height)


def _request(tx: UnsignedTx, sender: str) -> dict[str, str]:
    """The transaction as the object of eth_call and eth_estimateGas."""
    request = {"from": sender, "to": tx.to, "data": tx.data, "value": hex(tx.value_wei)}
    if tx.gas == 0:
        return request
    fees = {"maxFeePerGas": tx.max_fee_wei, "maxPriorityFeePerGas": tx.max_priority_fee_wei, "gasPrice": tx.gas_price_wei}
    return {**request, "gas": hex(tx.gas), **{name: hex(value) for name, value in fees.items() if value is not None}}


def _most_wei(tx: UnsignedTx) -> int:
    """The most per gas that the transaction pays."""
    return (tx.gas_price_wei if tx.max_fee_wei is None else tx.max_fee_wei) or 0


def _result(answer: object, what: str) -> object:
    if isinstance(answer, RpcFault):
        raise Retryable(f"the endpoint cannot tell {what}: {answer.message}")
    return answer


def _maybe(answer: object, what: str) -> Mapping[str, object] | None:
    """An object, or None where the node says that it has none. An error never counts as none."""
    found = _result(answer, what)
    if found is None or isinstance(found, Mapping):
        return found
    raise Retryable(f"the endpoint's answer for {what} is not an object")


def _meaning(fault: RpcFault) -> _Said | None:
    text = fault.message.lower()
    return next((said for said, phrases in _PHRASES if any(phrase in text for phrase in phrases)), None)


def _failure(fault: RpcFault) -> str:
    """Words for a simulation that failed on its own account; Retryable when it is the node that failed."""
    if _reverts(fault):
        return revert_reason(fault)
    said = _meaning(fault)
    if said is None or said is _Said.KNOWN:
        raise Retryable(f"the endpoint cannot simulate: {fault.message}", "try again, or use another endpoint")
    remedy = _REMEDIES.get(said)
    return f"{fault.message}; {remedy}" if remedy else fault.message


def _reverts(fault: RpcFault) -> bool:
    return fault.code == _REVERTED_CODE or fault.data not in ("", "0x") or "revert" in fault.message.lower()


def _by_contracts(fault: RpcFault, tx: UnsignedTx) -> bool:
    """Whether contracts refused, or burned all the gas there was. "gas required exceeds" may also be the wallet that cannot pay, but
    where neither gas nor price was named.
    """
    burned = tx.gas == 0 and _meaning(fault) is _Said.BAD_GAS
    return _reverts(fault) or burned or "out of gas" in fault.message.lower()


def _not_true(returned: bytes) -> bool:
    """Whether an ERC-20 call returned anything but true; USDT-like tokens return nothing, which is success."""
    return len(returned) > 0 and int.from_bytes(returned, "big") != 1
