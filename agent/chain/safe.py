"""External signers, and a Safe as the wallet: its hash of a call, its nonce, and executed calls.

Names follow the contract: Safe.sol, versions 1.3.0 and 1.4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak

from agent.chain.endpoints import EndpointPool
from agent.chain.lens import abi_decode, abi_encode
from agent.chain.receipts import find_safe_execution, find_tx_by_nonce, revert_reason
from agent.chain.refusals import has_reverted, is_revert
from agent.chain.rpc import CallFailed, RpcFault, Transport, hex_data, parse_bytes
from agent.errors import (
    ConfigError,
    ErrorCode,
    OperatorNeeded,
    PassingFault,
    Retryable,
    TrimtabError,
)
from agent.model import Head, SignedTx, Snapshot, UnsignedTx
from agent.ports import (
    Grant,
    MinedTransaction,
    NextAct,
    Reader,
    ReaderLayer,
    Sender,
    Simulation,
    TransactionStatus,
)
from agent.signing.batches import (
    BATCH_CODE_HASH,
    BATCH_CONTRACT,
    BatchedCall,
    decode_batch,
    encode_batch,
    is_batch,
)
from agent.signing.calldata import WORD_BYTES
from agent.signing.rules import (
    HighestTipByNonce,
    SigningRules,
    require_signable,
    transaction_fields,
)
from agent.signing.safe_tx import SAFE_TX_FIELDS, safe_tx_fields, safe_tx_hash, typed_data
from agent.signing.terms import refuse
from agent.units import share_of

SAFE_VERSIONS = ("1.3.0", "1.4.1")
"""Supported versions. Their domain has a chain id, and a failed call reverts (GS013)."""
BATCH_VERSION = "1.4.1"
"""Version that BATCH_CONTRACT belongs to."""
GUARD_SLOT = 0x4A204F620C8C5CCDCA3FD54D003BADD85BA500436A431F0CBDA4F558C93C34C8
"""Storage slot of the guard, keccak256 of "guard_manager.guard.address" (GuardManager.sol)."""
MAX_MODULES = 10
"""Most modules that are read."""
_FIRST_MODULE = f"0x{1:040x}"
SIMULATE = "simulate(address,bytes)"
"""CompatibilityFallbackHandler.simulate makes a delegate call of the Safe and undoes it; it reverts
if that call does.
"""
_EMPTY_BYTES = "0x" + (WORD_BYTES.to_bytes(WORD_BYTES, "big") + bytes(WORD_BYTES)).hex()


class UndecodableAnswer(Retryable):
    """Data of another type than the Safe's function returns."""


@dataclass(frozen=True, slots=True)
class SafeContract:
    """The Safe at `address`, read through `transport`, by default at the newest agreed block."""

    transport: Transport
    address: str

    def require_supported(self) -> str:
        """Return the version of the Safe. Raises ConfigError unless it is supported, else Retryable
        or PassingFault if no endpoint can tell.
        """
        version = ""
        try:
            version = str(self._call_view("VERSION()", [], [], ["string"])[0])
        except CallFailed as failure:
            if not is_revert(failure.fault):
                raise
        except UndecodableAnswer:
            pass  # no contract, or another one
        if version not in SAFE_VERSIONS:
            raise ConfigError(
                f"wallet.safe: {self.address} is not a Safe of version {' or '.join(SAFE_VERSIONS)}",
                "correct wallet.address, or omit wallet.safe for a wallet with a key",
            )
        return version

    def unbatched_reason(self, version: str) -> str:
        """Return why this Safe of `version` makes no batches; "" if it does. Raises Retryable or
        PassingFault if no endpoint can tell.
        """
        if version != BATCH_VERSION:
            return f"the Safe has version {version}, not {BATCH_VERSION}"
        code_answer = self.transport.call("eth_getCode", [BATCH_CONTRACT, "latest"])
        if hex_data(keccak(parse_bytes(code_answer, "the code"))) != BATCH_CODE_HASH:
            return f"this chain has no MultiSendCallOnly at {BATCH_CONTRACT}"
        slot_arguments = [GUARD_SLOT, 1]
        (guard_word,) = self._call_view(
            "getStorageAt(uint256,uint256)", ["uint256", "uint256"], slot_arguments, ["bytes"]
        )
        if any(guard_word):
            return "the Safe's guard may refuse delegate calls"
        call_object = {"to": self.address, "data": self._simulation_data(encode_batch(()))}
        (answer,) = self.transport.batch([("eth_call", [call_object, "latest"])])
        if has_reverted(self.transport, answer, SIMULATE) or answer != _EMPTY_BYTES:
            return "the Safe has no fallback handler that simulates"
        return ""

    def simulation_tx(self, batch_tx: UnsignedTx) -> UnsignedTx:
        """Return a call that reverts if the batch does, with at least its gas."""
        return replace(batch_tx, to=self.address, data=self._simulation_data(batch_tx.data))

    def _simulation_data(self, batch_data: str) -> str:
        arguments = [BATCH_CONTRACT, parse_bytes(batch_data, "the batch")]
        return hex_data(keccak(text=SIMULATE)[:4] + abi_encode(["address", "bytes"], arguments))

    def nonce(self, block_ref: object = "latest") -> int:
        """Return the Safe's next nonce: the number of calls that it has executed."""
        return int(self._call_view("nonce()", [], [], ["uint256"], block_ref)[0])

    def owners(self) -> tuple[str, ...]:
        """Return the checksummed addresses of the owners."""
        owners = self._call_view("getOwners()", [], [], ["address[]"])[0]
        return tuple(to_checksum_address(owner) for owner in owners)

    def threshold(self) -> int:
        """Return the number of owners who must sign a call."""
        return int(self._call_view("getThreshold()", [], [], ["uint256"])[0])

    def count_text(self, signed_by: Collection[str]) -> tuple[str, bool]:
        """Return how many of the signatures that a call needs these addresses have given, such as "1 of
        2 signatures", and whether they are enough.
        """
        count = len({*signed_by} & {*self.owners()})
        threshold = self.threshold()
        return share_of(count, threshold, " signatures"), count >= threshold

    def signers_text(self) -> str:
        """Return how many of how many owners must sign, such as "a Safe of 2 of 3 owners"; "" if this
        is no Safe of a supported version, or cannot be read.
        """
        try:
            self.require_supported()
            return f"a Safe of {self.threshold()} of {len(self.owners())} owners"
        except TrimtabError:
            return ""

    def modules(self) -> tuple[str, ...]:
        """Return the checksummed addresses of the contracts that call in the Safe's name without a
        signature, at most MAX_MODULES.
        """
        modules, _ = self._call_view(
            "getModulesPaginated(address,uint256)",
            ["address", "uint256"],
            [_FIRST_MODULE, MAX_MODULES],
            ["address[]", "address"],
        )
        return tuple(to_checksum_address(module) for module in modules)

    def next_act(self, signed_by: Collection[str], proposal_id: str, note: str = "") -> NextAct:
        """Return what a call that these addresses have signed waits for. Its commands name
        `proposal_id`.
        """
        owners = self.owners()
        threshold = self.threshold()
        count = len({*signed_by} & {*owners})
        count_text = f" ({_signatures_text(count)} collected, {threshold} needed)" if count else ""
        execution_text = f"execute it with trimtab proposal execute {proposal_id} --send{note}"
        if count >= threshold:
            return NextAct(f"its execution{count_text}", f"have anyone {execution_text}")
        missing_count = threshold - count
        more_text = f"{missing_count} more" if count else str(missing_count)
        return NextAct(
            f"{_signatures_text(missing_count, more_text)}{count_text}",
            f"have {more_text} of {len(owners)} owners sign it with trimtab proposal sign {proposal_id}, and"
            f" anyone {execution_text}",
        )

    def execution_data(self, tx: UnsignedTx, signature_by_owner: Mapping[str, bytes]) -> str:
        """Return the calldata of execTransaction of `tx`, 0x-hex, with the signatures in the order
        of their owners' addresses, as the contract demands.
        """
        owners = sorted(signature_by_owner, key=lambda owner: int(owner, 16))
        signatures = b"".join(signature_by_owner[owner] for owner in owners)
        # the contract knows its nonce, and has the signatures in its place
        argument_types = [*(abi_type for abi_type, _ in SAFE_TX_FIELDS[:-1]), "bytes"]
        selector = keccak(text=f"execTransaction({','.join(argument_types)})")[:4]
        arguments = [*_field_values(tx)[:-1], signatures]
        return hex_data(selector + abi_encode(argument_types, arguments))

    def require_hash(self, tx: UnsignedTx) -> str:
        """Return the hash to sign. Raises PassingFault if the endpoints answer with another hash."""
        computed_hash = safe_tx_hash(self.address, tx)
        signature = f"getTransactionHash({','.join(abi_type for abi_type, _ in SAFE_TX_FIELDS)})"
        safe_hash = hex_data(
            self._call_view(
                signature,
                [abi_type for abi_type, _ in SAFE_TX_FIELDS],
                _field_values(tx),
                ["bytes32"],
            )[0]
        )
        if safe_hash != computed_hash:
            raise PassingFault(
                f"the Safe {self.address} returns another hash for this call, {safe_hash} instead of"
                f" {computed_hash}",
                "do not sign it; report this",
            )
        return computed_hash

    def _call_view(
        self,
        signature: str,
        argument_types: list[str],
        arguments: list[Any],
        answer_types: list[str],
        block_ref: object = "latest",
    ) -> tuple[Any, ...]:
        calldata = hex_data(keccak(text=signature)[:4] + abi_encode(argument_types, arguments))
        answer_bytes = parse_bytes(
            self.transport.call("eth_call", [{"to": self.address, "data": calldata}, block_ref]),
            signature,
        )
        try:
            return tuple(abi_decode(answer_types, answer_bytes))
        except Exception:  # eth-abi raises many error types
            raise UndecodableAnswer(
                f"{signature} of {self.address} returned data that cannot be decoded",
                "check wallet.address and the endpoint",
                code=ErrorCode.ANSWER,
            ) from None


def failure_in_batch(
    transport: Transport, safe: str, calls: Sequence[BatchedCall], height: int
) -> str:
    """Return which of these calls of the Safe reverts after the others, and why; "" if the endpoint
    does not say. MultiSendCallOnly drops the reason.
    """
    call_objects = [{"from": safe, "to": call.to, "data": call.data_hex} for call in calls]
    request = {"blockStateCalls": [{"calls": call_objects}]}
    (answer,) = transport.batch([("eth_simulateV1", [request, hex(height)])])
    block_answer = answer[0] if isinstance(answer, list) and answer else None
    call_answers = block_answer.get("calls") if isinstance(block_answer, Mapping) else None
    if not isinstance(call_answers, list):
        return ""
    for call, call_answer in zip(calls, call_answers, strict=False):
        if not isinstance(call_answer, Mapping) or call_answer.get("status") == "0x1":
            continue
        revert_data = hex_data(parse_bytes(call_answer.get("returnData"), "the revert data"))
        return f"the batch's call of {call.to}: {revert_reason(RpcFault(0, '', revert_data))}"
    return ""


def signing_json(safe: str, tx: UnsignedTx) -> dict[str, Any]:
    """Return the SafeTx with its hash, and its typed data."""
    fields_json = {
        field_name: str(field_value) if field_name in ("value", "nonce") else field_value
        for field_name, field_value in safe_tx_fields(tx).items()
    }
    # numbers as text, since wallets read JSON numbers with 53 bits only
    typed_data_json = {**typed_data(safe, tx), "message": fields_json}
    return {
        "kind": "safe",
        "safe": safe,
        "safe_tx": fields_json,
        "safe_tx_hash": safe_tx_hash(safe, tx),
        "typed_data": typed_data_json,
    }


def _signatures_text(count: int, count_text: str = "") -> str:
    return f"{count_text or count} signature{'' if count == 1 else 's'}"


def _field_values(tx: UnsignedTx) -> list[Any]:
    """Return the fields of the SafeTx as arguments of the contract, in its order."""
    tx_fields = safe_tx_fields(tx)
    return [
        parse_bytes(tx_fields[field_name], field_name)
        if abi_type == "bytes"
        else tx_fields[field_name]
        for abi_type, field_name in SAFE_TX_FIELDS
    ]


@dataclass(frozen=True, slots=True)
class SafeReader(ReaderLayer):
    """ports.Reader with the Safe's nonce at the snapshot's block, in place of the account's."""

    reader: Reader
    safe: SafeContract

    def snapshot(self) -> Snapshot:
        """See ports.Reader."""
        snapshot = self.reader.snapshot()
        nonce = self.safe.nonce({"blockHash": snapshot.head.hash, "requireCanonical": True})
        return replace(snapshot, nonce_latest=nonce, nonce_pending=nonce)


@dataclass(frozen=True, slots=True)
class SafeSender:
    """ports.Sender for a Safe: its nonce, calls simulated as the Safe, and gas that executors pay.
    Sends nothing. `unbatched_reason` is why the Safe makes no batches (empty: it does).
    """

    sender: Sender
    safe: SafeContract
    endpoint_pool: EndpointPool
    unbatched_reason: str

    def simulate(self, tx: UnsignedTx, sender: str) -> Simulation:
        """See ports.Sender. The Safe's funds for gas and the fee are not checked, because executors
        pay both. A batch is simulated by the Safe's fallback handler.
        """
        free_tx = replace(
            tx, gas=0, max_fee_wei=None, max_priority_fee_wei=None, gas_price_wei=None
        )
        if not is_batch(tx.to, tx.data):
            return self.sender.simulate(free_tx, sender)
        simulation = self.sender.simulate(self.safe.simulation_tx(free_tx), sender)
        if self.unbatched_reason:  # without a handler the simulation succeeds whatever is called
            reason = f"a batch cannot be simulated: {self.unbatched_reason}"
            return replace(simulation, ok=False, reason=reason)
        if not simulation.reverted:
            return simulation
        calls = decode_batch(tx.data)
        poll = self.endpoint_pool.ask(
            lambda endpoint: failure_in_batch(endpoint, sender, calls, simulation.head.number)
        )
        reasons = [reason for reason in poll.answers.values() if reason]
        return replace(simulation, reason=next(iter(reasons), simulation.reason))

    def send(self, signed: SignedTx) -> None:
        """Raise OperatorNeeded: a Safe sends nothing itself."""
        raise OperatorNeeded(
            "a Safe cannot send transactions by itself",
            "its owners sign the proposal, and any account executes it",
        )

    def status_of(self, tx_hash: str) -> TransactionStatus:
        """Return the status like ports.Sender. The receipt has neither gas cost nor data fee:
        executors pay them.
        """
        status = self.sender.status_of(tx_hash)
        if status.receipt is None:
            return status
        free_receipt = replace(status.receipt, effective_gas_price_wei=0, data_fee_wei=0)
        return replace(status, receipt=free_receipt)

    def nonces(self, owner: str) -> tuple[int, int]:
        """Return the Safe's nonce twice, since pending Safe calls are in no mempool."""
        nonce = self.safe.nonce()
        return nonce, nonce

    def head(self) -> Head:
        """See ports.Sender."""
        return self.sender.head()

    def block_hash(self, block_number: int) -> str | None:
        """See ports.Sender."""
        return self.sender.block_hash(block_number)

    def tagged_height(self, tag: str) -> int:
        """See ports.Sender."""
        return self.sender.tagged_height(tag)


WALLET_OWNER_ACT = NextAct("its signature", "have the transaction in its file signed and sent")
"""What a proposal waits for if the holder of a key signs it."""


@dataclass(frozen=True, slots=True)
class WalletOwnerSigner:
    """ports.ExternalSigner for the holder of the wallet's key, who signs and sends the proposed
    transaction. The holder may change fees and gas, but not nonce, recipient, value or data.
    """

    rules: SigningRules
    nonces: Callable[[], HighestTipByNonce]
    endpoint_pool: EndpointPool
    sender: Sender

    @property
    def address(self) -> str:
        """Checksummed address of the wallet."""
        return self.rules.wallet

    def require_signable(self, tx: UnsignedTx, grant: Grant) -> None:
        """See ports.ExternalSigner."""
        require_signable(tx, grant, self.rules, self.nonces())

    def signing_json(self, tx: UnsignedTx) -> Mapping[str, Any]:
        """Return the transaction in the format of wallets, and the hash to sign."""
        from eth_account._utils.legacy_transactions import (
            serializable_unsigned_transaction_from_dict,
        )

        fields_json = {
            field_name: hex(field_value) if isinstance(field_value, int) else field_value
            for field_name, field_value in transaction_fields(tx).items()
        }
        unsigned_tx = serializable_unsigned_transaction_from_dict(transaction_fields(tx))  # type: ignore[no-untyped-call,unused-ignore]  # untyped in 0.11
        return {
            "kind": "transaction",
            "from": self.address,
            "transaction": fields_json,
            "signing_hash": hex_data(bytes(unsigned_tx.hash())),
        }

    def next_act(self, signed_by: Collection[str], proposal_id: str) -> NextAct:
        """See ports.ExternalSigner."""
        return WALLET_OWNER_ACT

    def sufficient_signatures(self, signers: Collection[str]) -> str:
        """See ports.ExternalSigner. A wallet's owner gives no signature before it is sent."""
        return ""

    def mined_at_nonce(self, tx: UnsignedTx, since_block: int) -> MinedTransaction | None:
        """See ports.ExternalSigner."""
        head_number = self.sender.head().number
        nonce_tx = find_tx_by_nonce(
            self.endpoint_pool, self.address, tx.nonce, since_block, head_number
        )
        if nonce_tx is None:
            return None
        is_proposed_tx = (nonce_tx.to, nonce_tx.value_wei, nonce_tx.calldata) == (
            tx.to,
            tx.value_wei,
            tx.data.lower(),
        )
        return MinedTransaction(nonce_tx.tx_hash, nonce_tx.block_number, is_proposed_tx)


@dataclass(frozen=True, slots=True)
class SafeOwnersSigner:
    """ports.ExternalSigner for the owners of a Safe, who sign the hash of a call. Any account may
    then execute it.
    """

    rules: SigningRules
    nonces: Callable[[], HighestTipByNonce]
    endpoint_pool: EndpointPool
    sender: SafeSender
    safe: SafeContract

    @property
    def address(self) -> str:
        """Checksummed address of the Safe."""
        return self.rules.wallet

    def require_signable(self, tx: UnsignedTx, grant: Grant) -> None:
        """See ports.ExternalSigner. The Safe must also return the proposed hash."""
        if is_batch(tx.to, tx.data) and self.sender.unbatched_reason:
            refuse("contract", tx.to, f"no batch, since {self.sender.unbatched_reason}")
        require_signable(replace(tx, gas=max(tx.gas, 21_000)), grant, self.rules, self.nonces())
        self.safe.require_hash(tx)

    def signing_json(self, tx: UnsignedTx) -> Mapping[str, Any]:
        """See `signing_json`."""
        return signing_json(self.address, tx)

    def next_act(self, signed_by: Collection[str], proposal_id: str) -> NextAct:
        """See ports.ExternalSigner."""
        unbatched_text = ""
        if reason := self.sender.unbatched_reason:
            unbatched_text = f" (an approval is a proposal of its own, because {reason})"
        return self.safe.next_act(signed_by, proposal_id, unbatched_text)

    def sufficient_signatures(self, signers: Collection[str]) -> str:
        """See ports.ExternalSigner."""
        if not signers:
            return ""
        count_text, is_enough = self.safe.count_text(signers)
        return count_text if is_enough else ""

    def mined_at_nonce(self, tx: UnsignedTx, since_block: int) -> MinedTransaction | None:
        """Return the executed call (see ports.ExternalSigner), else the first that the Safe executed
        after `since_block`, whose hash is unknown.
        """
        head_block = self.sender.head().number
        proposed_hash = safe_tx_hash(self.address, tx)

        def is_used_at(transport: Transport, block_number: int) -> bool:
            return SafeContract(transport, self.address).nonce(hex(block_number)) > tx.nonce

        for wanted_hash, first_block in ((proposed_hash, since_block), (None, since_block + 1)):
            execution = find_safe_execution(
                self.endpoint_pool, self.address, wanted_hash, is_used_at, first_block, head_block
            )
            if execution is not None:
                # the second answer can have the proposal's event that the first still lacked
                is_proposal = execution.safe_tx_hash == proposed_hash
                return MinedTransaction(execution.tx_hash, execution.block_number, is_proposal)
        return None


def open_safe_sender(
    sender: Sender, transport: Transport, address: str, endpoint_pool: EndpointPool
) -> SafeSender:
    """Return the sender of the Safe at `address`. Raises ConfigError if it is no supported Safe, else
    Retryable or PassingFault if no endpoint can tell.
    """
    safe = SafeContract(transport, address)
    unbatched_reason = safe.unbatched_reason(safe.require_supported())
    return SafeSender(sender, safe, endpoint_pool, unbatched_reason)


def open_external_signer(
    rules: SigningRules,
    nonces: Callable[[], HighestTipByNonce],
    endpoint_pool: EndpointPool,
    sender: Sender,
    transport: Transport,
    *,
    is_safe: bool,
) -> tuple[WalletOwnerSigner | SafeOwnersSigner, Sender]:
    """Return the external signer of the wallet of `rules`, which allow batches if it makes them,
    and a sender with its nonce. Raises ConfigError if the wallet is configured as a Safe but is not
    one.
    """
    if not is_safe:
        return WalletOwnerSigner(rules, nonces, endpoint_pool, sender), sender
    safe_sender = open_safe_sender(sender, transport, rules.wallet, endpoint_pool)
    if not safe_sender.unbatched_reason:
        rules = replace(rules, batch_contract=BATCH_CONTRACT)
    signer = SafeOwnersSigner(rules, nonces, endpoint_pool, safe_sender, safe_sender.safe)
    return signer, safe_sender
