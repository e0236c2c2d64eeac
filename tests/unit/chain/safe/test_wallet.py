"""A Safe as the wallet: its hash by the contract's own formula, its nonce, gas that others pay, and what counts as the same call."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import rlp
from eth_abi import encode as abi_encode
from eth_utils.crypto import keccak

from agent.artifacts import npm_artifact
from agent.chain.endpoints import EndpointPool
from agent.chain.receipts import EXECUTION_FAILURE_TOPIC, EXECUTION_SUCCESS_TOPIC
from agent.chain.rpc import CallFailed, RpcFault
from agent.chain.safe import (
    SafeContract,
    SafeOwnersSigner,
    SafeReader,
    SafeSender,
    WalletOwnerSigner,
    failure_in_batch,
    open_external_signer,
)
from agent.chain.sender import NodeSender
from agent.errors import OperatorNeeded, PassingFault, Refused
from agent.localchain.safe import BATCH_ARTIFACT
from agent.model import Head, UnsignedTx
from agent.ports import MinedTransaction, TransactionStatus
from agent.signing.batches import BATCH_CONTRACT, BatchedCall
from agent.signing.safe_tx import CALL_OPERATION, safe_tx_hash
from tests.support.builders import step_input
from tests.support.fakes.transport import HEAD_JSON, ScriptedTransport
from tests.support.signables import SIGNABLES
from tests.support.signing import APPROVE, APPROVE_GRANT, NONCE, NONCES, ROUTER, RULES, STRANGER, USDT, WALLET, tx
from tests.support.text import raises_code, raises_field
from tests.support.transactions import receipt

SAFE_TX_TYPEHASH = "bb8310d486368db6bd6f849402fdd73ad53d316b5a4b2644ad6efe0f941286d8"
DOMAIN_SEPARATOR_TYPEHASH = "47e79534a245952e8b16893a336b85a3d9ea9fa8c573f3d803afb92a79469218"
"""Constants of Safe.sol."""
NO_ONE = "0x" + "00" * 20
CALL_TX = tx(ROUTER, "0x1234", value_wei=5)
BATCH = SIGNABLES["batch"].tx
HEAD = 1_000
MINED_AT = 137
HASH = "0x" + "ab" * 32


def hash_by_the_contract(safe: str, call: Any, operation: int = CALL_OPERATION) -> str:
    """Safe.encodeTransactionData, word by word."""
    words = abi_encode(
        ["bytes32", "address", "uint256", "bytes32", "uint8", "uint256", "uint256", "uint256", "address", "address", "uint256"],
        [
            bytes.fromhex(SAFE_TX_TYPEHASH),
            call.to,
            call.value_wei,
            keccak(hexstr=call.data),
            operation,
            0,
            0,
            0,
            NO_ONE,
            NO_ONE,
            call.nonce,
        ],
    )
    domain = abi_encode(["bytes32", "uint256", "address"], [bytes.fromhex(DOMAIN_SEPARATOR_TYPEHASH), call.chain_id, safe])
    return "0x" + keccak(b"\x19\x01" + keccak(domain) + keccak(words)).hex()


def text_answer(text: str) -> str:
    return "0x" + abi_encode(["string"], [text]).hex()


def number_answer(number: int) -> str:
    return f"0x{number:064x}"


def contract(answer: object) -> SafeContract:
    return SafeContract(ScriptedTransport(eth_call=answer), WALLET)


# The hash


@pytest.mark.parametrize(
    "changes", [{}, {"value_wei": 0}, {"nonce": 0}, {"nonce": 2**64 - 1}, {"data": "0x"}, {"to": STRANGER}, {"chain_id": 1}]
)
def test_hash__is_that_of_the_contract_s_formula(changes: dict[str, Any]) -> None:
    call = replace(CALL_TX, **changes)
    assert safe_tx_hash(WALLET, call) == hash_by_the_contract(WALLET, call)


@pytest.mark.parametrize("changes", [{"gas": 1}, {"max_fee_wei": 1}, {"max_priority_fee_wei": 0}])
def test_hash__gas_and_fees_of_the_proposal_are_no_part_of_it(changes: dict[str, Any]) -> None:
    assert safe_tx_hash(WALLET, replace(CALL_TX, **changes)) == safe_tx_hash(WALLET, CALL_TX)


@pytest.mark.parametrize(
    ("call", "operation"),
    [
        (CALL_TX, 0),
        (BATCH, 1),
        (replace(BATCH, to=ROUTER), 0),
        (replace(BATCH, data="0x"), 0),
        (replace(BATCH, data=CALL_TX.data), 0),
    ],
    ids=["call", "batch", "multiSend elsewhere", "no data", "another function"],
)
def test_hash__is_that_of_a_delegate_call_for_a_batch_alone(call: UnsignedTx, operation: int) -> None:
    assert safe_tx_hash(WALLET, call) == hash_by_the_contract(WALLET, call, operation=operation)
    assert safe_tx_hash(WALLET, call) != hash_by_the_contract(WALLET, call, operation=1 - operation)


def test_hash__that_the_contract_confirms_is_signed() -> None:
    assert contract(safe_tx_hash(WALLET, CALL_TX)).require_hash(CALL_TX) == safe_tx_hash(WALLET, CALL_TX)


def test_hash__another_one_of_the_contract_is_refused() -> None:
    other = safe_tx_hash(WALLET, replace(CALL_TX, nonce=NONCE + 1))
    with pytest.raises(PassingFault, match="returns another hash") as error:
        contract(other).require_hash(CALL_TX)
    assert error.value.remedy == "do not sign it; report this"


def test_hash__contract_is_asked_with_every_field() -> None:
    node = ScriptedTransport(eth_call=safe_tx_hash(WALLET, CALL_TX))
    SafeContract(node, WALLET).require_hash(CALL_TX)
    ((_, (request, block)),) = node.calls
    types = ["address", "uint256", "bytes", "uint8", "uint256", "uint256", "uint256", "address", "address", "uint256"]
    selector = keccak(text=f"getTransactionHash({','.join(types)})")[:4]
    values = [ROUTER, 5, bytes.fromhex("1234"), 0, 0, 0, 0, NO_ONE, NO_ONE, NONCE]
    assert (request["to"], request["data"], block) == (WALLET, "0x" + (selector + abi_encode(types, values)).hex(), "latest")


# Version and nonce


@pytest.mark.parametrize("version", ["1.3.0", "1.4.1"])
def test_version__that_is_supported_is_taken(version: str) -> None:
    contract(text_answer(version)).require_supported()


@pytest.mark.parametrize("version", ["1.2.0", "1.4.0", "1.5.0", "1.3.0+L2", ""])
def test_version__another_one_is_refused(version: str) -> None:
    with raises_field("wallet.safe"):
        contract(text_answer(version)).require_supported()


def test_nonce__of_a_snapshot_is_the_safe_s_at_its_block() -> None:
    node = ScriptedTransport(eth_call=number_answer(41))
    of_wallet: Any = SimpleNamespace(snapshot=lambda: replace(step_input().snapshot, nonce_latest=3, nonce_pending=4))
    snapshot = SafeReader(of_wallet, SafeContract(node, WALLET)).snapshot()
    assert (snapshot.nonce_latest, snapshot.nonce_pending) == (41, 41)
    assert [params[1] for _, params in node.calls] == [{"blockHash": snapshot.head.hash, "requireCanonical": True}]


# Sender


def sender(node: ScriptedTransport) -> SafeSender:
    return SafeSender(NodeSender(node), SafeContract(node, WALLET), EndpointPool([node], 1), "")


def test_sender__has_nonce_of_the_safe_and_sends_nothing() -> None:
    safe_sender = sender(ScriptedTransport(eth_call=number_answer(41)))
    assert safe_sender.nonces(WALLET) == (41, 41), "none is pending"
    assert safe_sender.head() == Head(31_337, 16, HEAD_JSON["hash"], 100, 7)
    assert safe_sender.block_hash(16) == HEAD_JSON["hash"]
    with pytest.raises(OperatorNeeded, match="cannot send"):
        safe_sender.send(None)  # type: ignore[arg-type]  # nothing is looked at


def test_sender__simulation_leaves_the_gas_to_the_node() -> None:
    node = ScriptedTransport(eth_call=number_answer(41), eth_estimateGas=hex(60_000))
    simulation = sender(node).simulate(CALL_TX, WALLET)
    assert (simulation.ok, simulation.gas) == (True, 60_000)
    (request,) = (params[0] for method, params in node.calls if method == "eth_estimateGas")
    assert "gas" not in request
    assert (request["from"], request["to"], request["value"]) == (WALLET, ROUTER, hex(5))


def status(read: TransactionStatus) -> TransactionStatus:
    """Return the status of a hash whose wallet has this one."""
    of_node: Any = SimpleNamespace(status_of=lambda tx_hash: read)
    return SafeSender(of_node, contract(None), EndpointPool([ScriptedTransport()], 1), "").status_of(HASH)


@pytest.mark.parametrize(
    "fees",
    [
        {"max_fee_wei": 1, "max_priority_fee_wei": 1},
        {"max_fee_wei": None, "max_priority_fee_wei": None, "gas_price_wei": 1},
        {"max_fee_wei": 0},
    ],
    ids=["below the base fee", "a gas price below it", "none"],
)
def test_simulate__base_fee_above_the_call_s_is_the_executor_s_affair(fees: dict[str, int | None]) -> None:
    node = ScriptedTransport(
        eth_call="0x",
        eth_estimateGas="0x5208",
        eth_chainId=hex(CALL_TX.chain_id),
        eth_getBlockByNumber=HEAD_JSON | {"baseFeePerGas": hex(10**12)},
    )
    assert sender(node).simulate(replace(CALL_TX, **fees), WALLET).ok


def test_sender__receipt_has_no_cost_because_executors_pay_it() -> None:
    paid = replace(receipt(HASH, 7, "0x07"), data_fee_wei=9)
    assert paid.gas_cost_wei > 9
    free = status(TransactionStatus("mined", paid)).receipt
    assert free is not None
    assert free.gas_cost_wei == 0
    assert replace(free, effective_gas_price_wei=paid.effective_gas_price_wei, data_fee_wei=9) == paid


@pytest.mark.parametrize("state", ["unknown", "pending"])
def test_sender__status_without_a_receipt_stays(state: str) -> None:
    assert status(TransactionStatus(state, None)) == TransactionStatus(state, None)


# What somebody else has sent


def chain_with(**fields: Any) -> ScriptedTransport:
    """A node on which the wallet's nonce was used in block 137."""
    mined = {"from": WALLET.lower(), "nonce": hex(NONCE), "hash": HASH, "to": ROUTER.lower(), "value": "0x5", "input": "0x1234"} | fields

    def block(params: list[Any]) -> dict[str, Any]:
        if params[1] is False:
            return HEAD_JSON | {"number": hex(HEAD)}
        return {"transactions": [mined] if int(params[0], 16) == MINED_AT else []}

    return ScriptedTransport(
        eth_getTransactionCount=lambda params: hex(NONCE + 1 if int(params[1], 16) >= MINED_AT else NONCE),
        eth_getBlockByNumber=block,
    )


def owner(node: ScriptedTransport) -> WalletOwnerSigner:
    return WalletOwnerSigner(RULES, lambda: NONCES, EndpointPool([node], 1), NodeSender(node))


@pytest.mark.parametrize(
    ("fields", "data", "matches"),
    [
        ({}, CALL_TX.data, True),
        ({"gas": "0x1", "maxFeePerGas": "0x1"}, CALL_TX.data, True),
        ({"to": STRANGER.lower()}, CALL_TX.data, False),
        ({"value": "0x6"}, CALL_TX.data, False),
        ({"input": "0x1235"}, CALL_TX.data, False),
        ({"input": "0x"}, CALL_TX.data, False),
        ({"input": "0xabcd"}, "0xABCD", True),
    ],
    ids=["the call", "other gas and fees", "another recipient", "another value", "other calldata", "no calldata", "other case"],
)
def test_owner__nonce_s_transaction_matches_by_its_call(fields: dict[str, Any], data: str, matches: bool) -> None:
    call = replace(CALL_TX, data=data)
    assert owner(chain_with(**fields)).mined_at_nonce(call, 0) == MinedTransaction(HASH, MINED_AT, matches)


def test_owner__nonce_that_is_not_used_is_no_transaction() -> None:
    assert owner(chain_with()).mined_at_nonce(replace(CALL_TX, nonce=NONCE + 1), 0) is None


def owners(node: ScriptedTransport) -> SafeOwnersSigner:
    return SafeOwnersSigner(RULES, lambda: NONCES, EndpointPool([node], 1), NodeSender(node), SafeContract(node, WALLET))


def executed(digest: str, topic: str = EXECUTION_SUCCESS_TOPIC) -> ScriptedTransport:
    """A node on which the Safe executed the call of this hash in block 137."""
    log = {
        "address": WALLET.lower(),
        "topics": [topic, digest],
        "data": "0x" + "00" * 32,
        "transactionHash": HASH,
        "blockNumber": hex(MINED_AT),
    }

    def nonce(params: list[Any]) -> str:
        return f"0x{NONCE + (int(params[1], 16) >= MINED_AT):064x}"

    return ScriptedTransport(eth_getLogs=[log], eth_call=nonce, eth_getBlockByNumber=HEAD_JSON | {"number": hex(HEAD)})


OUR_CALL = safe_tx_hash(WALLET, CALL_TX)
OTHER_CALL = safe_tx_hash(WALLET, replace(CALL_TX, value_wei=6))


@pytest.mark.parametrize(
    ("digest", "topic", "since", "mined"),
    [
        (OUR_CALL, EXECUTION_SUCCESS_TOPIC, 0, MinedTransaction(HASH, MINED_AT, True)),
        *(
            (OTHER_CALL, topic, since, MinedTransaction(HASH, MINED_AT, False))
            for topic in (EXECUTION_SUCCESS_TOPIC, EXECUTION_FAILURE_TOPIC)
            for since in (0, MINED_AT - 1)
        ),
        (OTHER_CALL, EXECUTION_SUCCESS_TOPIC, MINED_AT, None),
    ],
    ids=["ours", "other", "other since", "other fails", "other fails since", "before the proposal"],
)
def test_owners__execution_is_the_proposal_by_its_hash(digest: str, topic: str, since: int, mined: MinedTransaction | None) -> None:
    """The block before the proposal is the one at whose end the nonce was still free; an index of events that lags shows no more."""
    assert owners(executed(digest, topic)).mined_at_nonce(CALL_TX, since) == mined


@pytest.mark.parametrize("topic", [EXECUTION_SUCCESS_TOPIC, EXECUTION_FAILURE_TOPIC], ids=["success", "failure"])
def test_owners__event_of_the_second_search_is_the_proposal_s(topic: str) -> None:
    """The index of events catches up between the two searches; a failure is no success, and ours all the same."""
    node = executed(safe_tx_hash(WALLET, CALL_TX), topic)
    events = node.answers["eth_getLogs"]

    def events_of_any_call(params: list[Any]) -> object:
        return events if EXECUTION_FAILURE_TOPIC in params[0]["topics"][0] else []

    node.answers["eth_getLogs"] = events_of_any_call
    assert owners(node).mined_at_nonce(CALL_TX, 0) == MinedTransaction(HASH, MINED_AT, True)


def test_owners__hidden_events_show_nothing() -> None:
    node = executed(OTHER_CALL)
    node.answers["eth_getLogs"] = []
    assert owners(node).mined_at_nonce(CALL_TX, 0) is None


@pytest.mark.parametrize("age", [199_999, 200_001, 1_040_000], ids=["two days", "more", "a weekend of quarter seconds"])
@pytest.mark.parametrize(("digest", "is_proposal"), [(OUR_CALL, True), (OTHER_CALL, False)], ids=["ours", "other"])
def test_owners__old_execution_is_told_from_later_ones(age: int, digest: str, is_proposal: bool) -> None:
    """The Safe has executed a call of a later nonce since."""
    node = executed(digest)
    head = MINED_AT + age
    node.answers["eth_getBlockByNumber"] = HEAD_JSON | {"number": hex(head)}
    (log,) = node.answers["eth_getLogs"]
    later = log | {"topics": [EXECUTION_SUCCESS_TOPIC, "0x" + "cd" * 32], "transactionHash": "0x" + "ef" * 32, "blockNumber": hex(head - 9)}

    def events(params: list[Any]) -> object:
        first, last = (int(params[0][key], 16) for key in ("fromBlock", "toBlock"))
        return [event for event in (log, later) if first <= int(event["blockNumber"], 16) <= last]

    node.answers["eth_getLogs"] = events
    assert owners(node).mined_at_nonce(CALL_TX, MINED_AT - 5) == MinedTransaction(HASH, MINED_AT, is_proposal)


# What owners may be asked to sign


@pytest.mark.parametrize("gas", [0, 20_999, 21_000, 600_000])
def test_owners__may_sign_whatever_gas_is_proposed(gas: int) -> None:
    call = replace(APPROVE, gas=gas)
    owners(ScriptedTransport(eth_call=safe_tx_hash(WALLET, call))).require_signable(call, APPROVE_GRANT)


STRANGE = replace(APPROVE, to=STRANGER)
LATER = replace(APPROVE, nonce=NONCE + 1)


@pytest.mark.parametrize(
    ("call", "hashed_call", "error", "words"),
    [
        pytest.param(STRANGE, STRANGE, Refused, "rule 'contract': .* allows a pinned token", id="breaks a rule"),
        pytest.param(LATER, LATER, Refused, "rule 'nonce': got 8, allows 7", id="another nonce"),
        pytest.param(APPROVE, CALL_TX, OperatorNeeded, "another hash", id="hash that the contract denies"),
    ],
)
def test_owners__call_that_is_not_to_be_signed_is_refused(
    call: UnsignedTx, hashed_call: UnsignedTx, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        owners(ScriptedTransport(eth_call=safe_tx_hash(WALLET, hashed_call))).require_signable(call, APPROVE_GRANT)


def test_owner__transaction_that_breaks_a_rule_is_refused() -> None:
    owner(ScriptedTransport()).require_signable(APPROVE, APPROVE_GRANT)
    with raises_code(Refused, "signer.contract"):
        owner(ScriptedTransport()).require_signable(STRANGE, APPROVE_GRANT)


def test_owner__sees_the_hash_that_its_wallet_signs() -> None:
    """The hash of an EIP-1559 transaction: keccak of 0x02 and its fields in RLP."""
    fields = [APPROVE.chain_id, NONCE, APPROVE.max_priority_fee_wei, APPROVE.max_fee_wei, APPROVE.gas, bytes.fromhex(USDT[2:]), 0]
    payload = rlp.encode([*fields, bytes.fromhex(APPROVE.data[2:]), []])
    assert owner(ScriptedTransport()).signing_json(APPROVE)["signing_hash"] == "0x" + keccak(b"\x02" + payload).hex()


def test_owner__sees_every_field_as_a_wallet_reads_it() -> None:
    document = owner(ScriptedTransport()).signing_json(replace(APPROVE, value_wei=5))
    assert (document["from"], document["kind"]) == (WALLET, "transaction")
    assert {name: document["transaction"][name] for name in ("to", "value", "nonce", "data")} == {
        "to": USDT,
        "value": "0x5",
        "nonce": hex(NONCE),
        "data": APPROVE.data,
    }


def test_owners__see_the_call_with_value_and_nonce_as_text() -> None:
    document = owners(ScriptedTransport()).signing_json(CALL_TX)
    assert (document["kind"], document["safe"], document["safe_tx_hash"]) == ("safe", WALLET, hash_by_the_contract(WALLET, CALL_TX))
    assert document["safe_tx"] == {
        "to": ROUTER,
        "value": "5",
        "data": "0x1234",
        "operation": 0,
        "safeTxGas": 0,
        "baseGas": 0,
        "gasPrice": 0,
        "gasToken": NO_ONE,
        "refundReceiver": NO_ONE,
        "nonce": str(NONCE),
    }


def signer_of(node: ScriptedTransport, *, is_safe: bool) -> tuple[object, object]:
    return open_external_signer(RULES, lambda: NONCES, EndpointPool([node], 1), NodeSender(node), node, is_safe=is_safe)


def test_foreign_signer__wallet_with_a_key_is_read_as_it_is() -> None:
    signer, plain_sender = signer_of(ScriptedTransport(), is_safe=False)
    assert isinstance(signer, WalletOwnerSigner)
    assert isinstance(plain_sender, NodeSender)


def test_foreign_signer__safe_is_read_as_a_safe() -> None:
    signer, safe_sender = signer_of(safe_node(), is_safe=True)
    assert isinstance(signer, SafeOwnersSigner)
    assert isinstance(safe_sender, SafeSender)
    assert (signer.rules.batch_contract, safe_sender.unbatched_reason) == (BATCH_CONTRACT, "")


BATCH_CODE = npm_artifact(BATCH_ARTIFACT).runtime_code


def safe_node(
    version: str = "1.4.1", guard: int = 0, simulated: object = "0x" + f"{32:064x}{0:064x}", code: str = BATCH_CODE
) -> ScriptedTransport:
    """A node with a Safe, by the selectors of VERSION, getStorageAt and simulate."""
    answers = {
        "0xffa1ad74": text_answer(version),
        "0x5624b25b": "0x" + abi_encode(["bytes"], [guard.to_bytes(32, "big")]).hex(),
        "0xbd61951d": simulated,
    }
    return ScriptedTransport(eth_call=lambda params: answers[params[0]["data"][:10]], eth_getCode=code)


@pytest.mark.parametrize(
    ("node", "reason"),
    [
        (safe_node("1.3.0"), "version 1.3.0"),
        (safe_node(code="0x"), "no MultiSendCallOnly"),
        (safe_node(code=BATCH_CODE[:-2] + "34"), "no MultiSendCallOnly"),
        (safe_node(guard=1), "guard"),
        (safe_node(simulated="0x"), "no fallback handler"),
        (safe_node(simulated=RpcFault(3, "execution reverted")), "no fallback handler"),
    ],
    ids=["version", "no contract", "another contract", "guard", "no handler", "another handler"],
)
def test_safe__that_cannot_make_batches__signs_none_and_says_why(node: ScriptedTransport, reason: str) -> None:
    signer, safe_sender = signer_of(node, is_safe=True)
    assert isinstance(signer, SafeOwnersSigner)
    assert isinstance(safe_sender, SafeSender)
    assert signer.rules.batch_contract is None
    assert reason in safe_sender.unbatched_reason
    node.answers |= {"eth_call": "0x", "eth_estimateGas": "0x5208"}
    simulation = safe_sender.simulate(BATCH, WALLET)
    assert (simulation.ok, reason in simulation.reason) == (False, True)
    node.answers["eth_call"] = safe_tx_hash(WALLET, BATCH)
    with pytest.raises(Refused) as refusal:
        signer.require_signable(BATCH, SIGNABLES["batch"].grant)
    assert refusal.value.guards == ("signer.contract",)


@pytest.mark.parametrize(
    "fault", [RpcFault(-32005, "limit exceeded"), RpcFault(-32000, "header not found"), RpcFault(-32603, "internal error")], ids=str
)
def test_fallback_handler__that_cannot_be_asked__is_not_taken_for_none(fault: RpcFault) -> None:
    with pytest.raises(CallFailed, match=rf"refused simulate\(address,bytes\): {fault.message}"):
        signer_of(safe_node(simulated=fault), is_safe=True)


REVERTED = {"status": "0x0", "returnData": "0x08c379a0" + abi_encode(["string"], ["Too little received"]).hex()}
SUCCEEDED = {"status": "0x1", "returnData": "0x"}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([{"calls": [SUCCEEDED, REVERTED]}], (ROUTER, "Too little received")),
        ([{"calls": [REVERTED, SUCCEEDED]}], (USDT, "Too little received")),
        ([{"calls": [SUCCEEDED, {"status": "0x0", "returnData": "0x"}]}], (ROUTER, "without a reason")),
        ([{"calls": [SUCCEEDED, SUCCEEDED]}], ()),
        (RpcFault(-32601, "no such method"), ()),
        ([], ()),
        ([{}], ()),
        (["0x"], ()),
        ([{"calls": 7}], ()),
        ({"calls": []}, ()),
        (None, ()),
    ],
)
def test_reverting_batch__names_its_failing_call_if_a_node_does(answer: object, words: tuple[str, ...]) -> None:
    calls = [BatchedCall(USDT, b""), BatchedCall(ROUTER, b"")]
    reason = failure_in_batch(ScriptedTransport(eth_simulateV1=answer), WALLET, calls, HEAD)
    assert bool(reason) == bool(words)
    assert all(word in reason for word in words)


def test_foreign_signer__wallet_that_is_no_safe_is_refused() -> None:
    with raises_field("wallet.safe"):
        signer_of(ScriptedTransport(eth_call="0x"), is_safe=True)
