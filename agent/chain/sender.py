"""Senders of transactions: simulate, send once, get the status by hash. Nothing here resends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from agent.chain.endpoints import Endpoint, EndpointPool, EndpointResting, operators_of
from agent.chain.fees.data_fees import fee_calls, node_quote
from agent.chain.fees.minimum_tip import named_minimum_wei, wants_higher_tip
from agent.chain.quorum import (
    ask_at_one_block,
    confirmed_value,
    highest_confirmed_number,
    is_decided,
    lowest_sufficient_number,
    number_by_operator,
    operators_by_value,
    quorum_size,
)
from agent.chain.receipts import (
    find_conflicting_hash,
    find_mined_hash,
    parse_receipt,
    revert_reason,
)
from agent.chain.refusals import GAS_REFUSALS, REMEDIES, RefusalKind, is_revert, refusal_kind
from agent.chain.rpc import (
    CallFailed,
    RpcFault,
    Transport,
    hex_data,
    parse_bytes,
    parse_head,
    parse_quantity,
)
from agent.errors import ErrorCode, OperatorNeeded, PassingFault, Refused, Retryable
from agent.model import DataFeeKind, Head, Receipt, SignedTx, UnsignedTx, Verdict
from agent.ports import Simulation, TransactionStatus
from agent.signing.calldata import APPROVE


class NonceUsed(OperatorNeeded):
    """Raised if the chain has another transaction at this nonce: the wallet is used by another
    sender.
    """


class SendRefused(Refused):
    """Raised if the node refused the transaction. The verdict's guard is `send.` and the kind of
    the refusal.
    """


class TipRefused(SendRefused):
    """Raised if the node demands a higher tip. `min_tip_wei` is the least one that it takes, in wei
    per unit of gas; None if it names none.
    """

    def __init__(
        self, message: str, verdicts: Sequence[Verdict] = (), min_tip_wei: int | None = None
    ) -> None:
        super().__init__(
            message, verdicts, "set execution.min_tip to what the node demands, or use another node"
        )
        self.min_tip_wei = min_tip_wei


class OutcomeUnknown(Retryable):
    """Raised if a node may have taken the transaction. `tip_refusal` is the refusal of another node
    that demands a higher tip; None if none does.
    """

    def __init__(self, message: str, remedy: str, tip_refusal: TipRefused | None = None) -> None:
        super().__init__(message, remedy, code=ErrorCode.UNKNOWN_IF_SENT)
        self.tip_refusal = tip_refusal


class NodeSender:
    """Sender over one endpoint. With `private_transport`, a private endpoint, signed bytes are sent
    only there. `data_fee` is the kind of data fee that receipts of the chain report.
    """

    def __init__(
        self,
        transport: Transport,
        private_transport: Transport | None = None,
        data_fee: DataFeeKind = DataFeeKind.PLAIN,
    ) -> None:
        self._transport = transport
        self._data_fee_kind = data_fee
        self._private_transport = transport if private_transport is None else private_transport

    def simulate(self, tx: UnsignedTx, sender: str, height: int | None = None) -> Simulation:
        """Simulate the exact transaction at the head, or after the block of `height`.

        With a `gas` of 0 the node chooses the amount. It does not check the wallet's funds then,
        because that check would require the price of a whole block. A fee is checked if there is
        one. Raises Retryable if the node cannot simulate.
        """
        call_object = _call_object(tx, sender)
        block_tag = _block_tag(height)
        chain_id_answer, block_answer, call_answer, gas_answer, *fee_answers = (
            self._transport.batch(
                [
                    ("eth_chainId", []),
                    ("eth_getBlockByNumber", [block_tag, False]),
                    ("eth_call", [call_object, block_tag]),
                    ("eth_estimateGas", [call_object, block_tag]),
                    *fee_calls(self._data_fee_kind, block_tag),
                ]
            )
        )
        head = parse_head(
            _require_answer(block_answer, "the head"),
            parse_quantity(_require_answer(chain_id_answer, "the chain id"), "chain id"),
        )
        has_fee = tx.max_fee_wei is not None or tx.gas_price_wei is not None
        if has_fee and tx.max_gas_price_wei < (head.base_fee_wei or 0):
            return Simulation(
                False,
                f"its fee of {tx.max_gas_price_wei} wei per gas is below the base fee of"
                f" {head.base_fee_wei} wei",
                0,
                head,
            )
        for simulated_answer in (call_answer, gas_answer):
            if isinstance(simulated_answer, RpcFault):
                return Simulation(
                    False,
                    _failure_reason(simulated_answer),
                    0,
                    head,
                    reverted=_is_contract_failure(simulated_answer, tx),
                )
        if tx.data.startswith(hex_data(APPROVE)) and _is_not_true(
            parse_bytes(call_answer, "the simulated call")
        ):
            refusal_reason = "the token returned false, refusing the approval"
            return Simulation(False, refusal_reason, 0, head, reverted=True)
        gas_units = parse_quantity(gas_answer, "the gas estimate")
        try:
            data_fee_quote = node_quote(self._transport.name, self._data_fee_kind, fee_answers)
        except Retryable as error:  # no reason to keep a revocation or a cancel from being sent
            return Simulation(True, "", gas_units, head, data_fee_unknown_reason=error.message)
        data_fee_wei = (
            0
            if data_fee_quote is None
            else data_fee_quote.max_fee_beyond_gas_wei(
                max(tx.gas, gas_units), len(tx.data) // 2 - 1
            )
        )
        return Simulation(True, "", gas_units, head, data_fee_wei=data_fee_wei)

    def send(self, signed: SignedTx) -> None:
        """Send the signed bytes to the node once. An already known transaction counts as success.

        Raises NonceUsed if another transaction has the nonce, SendRefused if the node rejected it,
        and Retryable if the outcome is unknown: check the status of its hash.
        """
        try:
            self.offer(signed)
        except NonceUsed:
            if self.status_of(signed.hash).state == "unknown":
                raise

    def offer(self, signed: SignedTx) -> None:
        """Send the signed bytes once, as `send` does, but also raise NonceUsed if the transaction
        itself is mined. The caller must check its hash. Raises EndpointResting if nothing was sent.
        """
        unknown_text = _unknown_outcome_text(signed.hash)
        try:
            hash_answer = self._private_transport.call(
                "eth_sendRawTransaction", [hex_data(signed.signed_bytes)]
            )
        except CallFailed as error:
            _raise_refusal(signed.hash, error.fault)
            return
        except EndpointResting:
            raise
        except Retryable as error:
            raise Retryable(
                f"{unknown_text}: {error.message}",
                "check its hash before sending anything else",
                code=ErrorCode.UNKNOWN_IF_SENT,
            ) from None
        if not isinstance(hash_answer, str) or hash_answer.lower() != signed.hash:
            raise Retryable(
                f"{unknown_text}: the node returned another hash",
                "check its hash before sending anything else",
                code=ErrorCode.UNKNOWN_IF_SENT,
            )

    def status_of(self, tx_hash: str) -> TransactionStatus:
        """Return the status of the hash: unknown, pending, or mined with its receipt. Raises
        Retryable if the node cannot answer.
        """
        receipt_answer, tx_answer = self._transport.batch(
            [("eth_getTransactionReceipt", [tx_hash]), ("eth_getTransactionByHash", [tx_hash])]
        )
        receipt_json = _object_or_none(receipt_answer, "the receipt")
        tx_json = _object_or_none(tx_answer, "the transaction")
        if receipt_json is not None and receipt_json.get("blockHash") is not None:
            receipt = parse_receipt(receipt_json, tx_hash, self._data_fee_kind)
            block_time_s = self._block_time_s(receipt)
            return TransactionStatus("mined", replace(receipt, block_time_s=block_time_s))
        if tx_json is not None:
            return TransactionStatus("pending", None)
        return TransactionStatus("unknown", None)

    def _block_time_s(self, receipt: Receipt) -> int:
        """Return the time of a receipt's block, Unix seconds. Raises Retryable if the node has
        another block at that height, or none.
        """
        (block,) = self._transport.batch(
            [("eth_getBlockByNumber", [hex(receipt.block_number), False])]
        )
        header = parse_head(_require_answer(block, "the block of the receipt"), 0)
        if header.hash != receipt.block_hash:
            raise Retryable(
                f"the endpoint's receipt of {receipt.tx_hash} is of another block than its block"
                f" {receipt.block_number}",
                "try again",
                code=ErrorCode.ANSWER,
            )
        return header.timestamp_s

    def nonces(self, owner: str) -> tuple[int, int]:
        """Return the next nonces of `owner`, in the latest block and with pending transactions."""
        latest_answer, pending_answer = self._transport.batch(
            [
                ("eth_getTransactionCount", [owner, "latest"]),
                ("eth_getTransactionCount", [owner, "pending"]),
            ]
        )
        nonce_latest = parse_quantity(_require_answer(latest_answer, "the nonce"), "nonce")
        return nonce_latest, parse_quantity(_require_answer(pending_answer, "the nonce"), "nonce")

    def head(self, height: int | str | None = None) -> Head:
        """Return the header of the newest block, or of the block at a height or with a tag."""
        chain_id, block = self._transport.batch(
            [("eth_chainId", []), ("eth_getBlockByNumber", [_block_tag(height), False])]
        )
        return parse_head(
            _require_answer(block, "the head"),
            parse_quantity(_require_answer(chain_id, "the chain id"), "chain id"),
        )

    def block_hash(self, block_number: int) -> str | None:
        """Return the hash of the canonical block at that height; None if there is none."""
        (block,) = self._transport.batch([("eth_getBlockByNumber", [hex(block_number), False])])
        header = _object_or_none(block, "the block")
        if header is None:
            return None
        return hex_data(parse_bytes(header.get("hash"), "block hash", 32))

    def mined_tx_hash(self, owner: str, nonce: int) -> str | None:
        """See ports.ConflictingTransactionFinder; the endpoint decides alone."""
        return find_mined_hash(EndpointPool([self._transport], 1), owner, nonce, self.head().number)

    def conflicting_tx_hash(self, owner: str, nonce: int) -> str | None:
        """See ports.ConflictingTransactionFinder."""
        endpoint_pool = EndpointPool([self._transport], 1)
        return find_conflicting_hash(endpoint_pool, owner, nonce, self.head().number)


def _unknown_outcome_text(tx_hash: str) -> str:
    return f"outcome of sending transaction {tx_hash} is unknown"


def _raise_refusal(tx_hash: str, fault: RpcFault) -> None:
    """Raise the node's refusal as an error, unless the node already has the transaction."""
    kind = refusal_kind(fault)
    min_tip_wei: int | None = None
    wants_tip = kind in (None, RefusalKind.UNDERPRICED) and wants_higher_tip(fault.message)
    if wants_tip:
        min_tip_wei = named_minimum_wei(fault.message)
        if min_tip_wei is not None:  # a refusal, in words that may be new
            kind = RefusalKind.UNDERPRICED
    if kind is RefusalKind.KNOWN:
        return
    if kind is RefusalKind.NONCE_LOW:
        raise NonceUsed(
            f"the nonce of transaction {tx_hash} is used by another transaction ({fault.message})",
            "another program sends from this wallet; find it before continuing",
            code=ErrorCode.NONCE_USED,
        )
    if kind is None:
        raise Retryable(
            f"{_unknown_outcome_text(tx_hash)}: {fault.message}",
            "check its hash",
            code=ErrorCode.UNKNOWN_IF_SENT,
        )
    verdict = Verdict(f"send.{kind.value}", fault.message, "accepted by the node", False)
    message = f"the node refused transaction {tx_hash}: {fault.message}"
    if wants_tip:
        raise TipRefused(message, (verdict,), min_tip_wei)
    raise SendRefused(message, (verdict,), REMEDIES[kind])


def _block_tag(height_or_tag: int | str | None) -> str:
    if isinstance(height_or_tag, int):
        return hex(height_or_tag)
    return height_or_tag or "latest"


def _call_object(tx: UnsignedTx, sender: str) -> dict[str, str]:
    """Return the transaction as the object of eth_call and eth_estimateGas."""
    call_object = {"from": sender, "to": tx.to, "data": tx.data, "value": hex(tx.value_wei)}
    if tx.gas == 0:
        return call_object
    fee_fields_wei = {
        "maxFeePerGas": tx.max_fee_wei,
        "maxPriorityFeePerGas": tx.max_priority_fee_wei,
        "gasPrice": tx.gas_price_wei,
    }
    return {
        **call_object,
        "gas": hex(tx.gas),
        **{
            fee_field: hex(fee_wei)
            for fee_field, fee_wei in fee_fields_wei.items()
            if fee_wei is not None
        },
    }


def _require_answer(answer: object, subject: str) -> object:
    if isinstance(answer, RpcFault):
        raise Retryable(
            f"the endpoint cannot report {subject}: {answer.message}", code=ErrorCode.ANSWER
        )
    return answer


def _object_or_none(answer: object, subject: str) -> Mapping[str, object] | None:
    """Return the answered object, None for null. Raises Retryable for an error or another type."""
    answered_object = _require_answer(answer, subject)
    if answered_object is None or isinstance(answered_object, Mapping):
        return answered_object
    raise Retryable(f"the endpoint's answer for {subject} is not an object", code=ErrorCode.ANSWER)


def _failure_reason(fault: RpcFault) -> str:
    """Return why a simulation failed. Raises Retryable if the node itself failed."""
    if is_revert(fault):
        return revert_reason(fault)
    kind = refusal_kind(fault)
    if kind is None or kind is RefusalKind.KNOWN:
        raise Retryable(
            f"the endpoint cannot simulate: {fault.message}",
            "try again, or use another endpoint",
            code=ErrorCode.SIMULATION,
        )
    remedy = REMEDIES.get(kind)
    return f"{fault.message}; {remedy}" if remedy else fault.message


def _is_contract_failure(fault: RpcFault, tx: UnsignedTx) -> bool:
    """Return whether contracts reverted or burned all the gas.

    "gas required exceeds" can also mean that the wallet cannot pay, but only if the request
    includes gas or a price.
    """
    is_gas_burned = tx.gas == 0 and refusal_kind(fault) in GAS_REFUSALS
    return is_revert(fault) or is_gas_burned


def _is_not_true(return_data: bytes) -> bool:
    """Return whether an ERC-20 call returned data other than true. No data is success (USDT)."""
    return len(return_data) > 0 and int.from_bytes(return_data, "big") != 1


T = TypeVar("T")
Refusal = NonceUsed | SendRefused


class QuorumSender:
    """Implements ports.Sender over an endpoint pool. With one endpoint, its answer counts.

    "Enough" operators are a majority of those that answer, and at least the config's minimum.
    Receipts, headers and block hashes must be equal from enough operators. A used nonce or a height
    must have been reached by enough. Gas and pending nonces are the lowest values that enough call
    sufficient. A simulation runs at one block and is decided by majority. With three or more
    operators, a single dishonest one can neither stop the agent nor make it send. A wrong
    simulation can only cost gas, since the transaction carries its minimums and its deadline.
    """

    def __init__(
        self,
        endpoint_pool: EndpointPool,
        chain_id: int,
        private_endpoint: Endpoint | None = None,
        public_fallback: bool = False,
    ) -> None:
        """Set the endpoints. With `private_endpoint`, signed bytes are sent only there; with
        `public_fallback`, also to the pool if `private_endpoint` fails.
        """
        self._endpoint_pool = endpoint_pool
        self._chain_id = chain_id
        self._private_endpoint = private_endpoint
        self._uses_public_fallback = public_fallback

    def simulate(self, tx: UnsignedTx, sender: str) -> Simulation:
        """See ports.Sender. Simulates at the newest block that enough operators have. Gas comes
        from operators whose simulation succeeds.
        """
        poll = ask_at_one_block(
            self._endpoint_pool,
            lambda node, height: self._simulate_at(node, tx, sender, height),
            lambda simulation: simulation.head,
        )
        return replace(
            self._agreed_simulation(poll.endpoints_and_answers),
            height_disagreement=poll.height_disagreement_text,
        )

    def _simulate_at(
        self, node: Transport, tx: UnsignedTx, sender: str, height: int | None
    ) -> Simulation:
        node_sender = NodeSender(node, data_fee=self._endpoint_pool.data_fee_kind)
        simulation = node_sender.simulate(tx, sender, height)
        self._require_chain(simulation.head)
        return simulation

    def _agreed_simulation(self, simulations: Sequence[tuple[Endpoint, Simulation]]) -> Simulation:
        quorum = quorum_size(
            len({endpoint.operator for endpoint, _ in simulations}),
            self._endpoint_pool.min_operators,
        )
        operators_by_ok = operators_by_value(
            (endpoint.operator, simulation.ok) for endpoint, simulation in simulations
        )
        succeeding_operators = operators_by_ok.get(True, set())
        failing_operators = operators_by_ok.get(False, set())
        self._blame(
            simulations,
            lambda simulation: (
                (len(succeeding_operators) >= quorum and not simulation.ok)
                or (len(failing_operators) >= quorum and simulation.ok)
            ),
            "the simulation",
        )
        if len(succeeding_operators) >= quorum:
            successes = [
                (endpoint, simulation)
                for endpoint, simulation in simulations
                if endpoint.operator in succeeding_operators
            ]
            gas_by_operator = number_by_operator(
                ((endpoint, simulation.gas) for endpoint, simulation in successes), max
            )
            data_fee_by_operator = number_by_operator(
                (
                    (endpoint, simulation.data_fee_wei)
                    for endpoint, simulation in successes
                    if not simulation.data_fee_unknown_reason
                ),
                max,
            )
            gas_units = lowest_sufficient_number(gas_by_operator, quorum)
            simulated_head = simulations[0][1].head
            if len(data_fee_by_operator) < quorum:
                unknown_reasons = [
                    simulation.data_fee_unknown_reason
                    for _, simulation in successes
                    if simulation.data_fee_unknown_reason
                ]
                return Simulation(
                    True, "", gas_units, simulated_head, data_fee_unknown_reason=unknown_reasons[-1]
                )
            data_fee_wei = lowest_sufficient_number(data_fee_by_operator, quorum)
            return Simulation(True, "", gas_units, simulated_head, data_fee_wei=data_fee_wei)
        failed_simulations = [
            (endpoint, simulation) for endpoint, simulation in simulations if not simulation.ok
        ]
        if len(failing_operators) >= quorum:
            reverting_operators = operators_by_value(
                (endpoint.operator, simulation.reverted)
                for endpoint, simulation in failed_simulations
            ).get(True, set())
            return replace(failed_simulations[0][1], reverted=len(reverting_operators) >= quorum)
        failures_text = "; ".join(
            f"{endpoint.operator}: {simulation.reason}"
            for endpoint, simulation in failed_simulations
        )
        succeeding_text = ", ".join(sorted(succeeding_operators)) or "none"
        return Simulation(
            False,
            f"endpoints disagree ({failures_text}; it succeeds for {succeeding_text})",
            0,
            simulations[0][1].head,
        )

    def send(self, signed: SignedTx) -> None:
        """See ports.Sender. Sends to all public endpoints at once, or only to the private one.

        All copies have one nonce, so this is a single send, and an endpoint that withholds the
        bytes has no effect. One acceptance suffices. Without one, an unknown outcome at any
        endpoint makes the result unknown, and a refusal requires that all refuse; a used nonce is
        verified first. Raises EndpointResting if no endpoint was offered the bytes.
        """
        is_accepted, refusals, failures = self._offer_all(signed)
        if is_accepted:
            return
        unknown_outcomes = [
            failure for failure in failures if not isinstance(failure, EndpointResting)
        ]
        if (
            failures
            and not refusals
            and all(isinstance(failure, OperatorNeeded) for failure in failures)
        ):
            raise failures[0]
        if failures and not refusals and not unknown_outcomes:
            resting_text = "; ".join(failure.message for failure in failures)
            raise EndpointResting(
                f"transaction {signed.hash} was not sent: {resting_text}",
                "try again after the pause, or add an endpoint",
                code=ErrorCode.RATE_LIMIT,
            )
        # One acceptance suffices, so the least demanding node counts.
        tip_refusal = min(
            (refusal for refusal in refusals if isinstance(refusal, TipRefused)),
            key=lambda refusal: (refusal.min_tip_wei is None, refusal.min_tip_wei or 0),
            default=None,
        )
        if unknown_outcomes or not refusals:
            unknown_text = _unknown_outcome_text(signed.hash)
            failures_text = "; ".join(
                error.message.removeprefix(f"{unknown_text}: ") for error in (*failures, *refusals)
            )
            raise OutcomeUnknown(
                f"{unknown_text}: {failures_text}",
                "check its hash before sending anything else",
                tip_refusal,
            )
        if tip_refusal is not None:
            raise tip_refusal
        send_refused = next(
            (refusal for refusal in refusals if isinstance(refusal, SendRefused)), None
        )
        if send_refused is not None:
            raise send_refused
        if self.status_of(signed.hash).state == "unknown":
            raise refusals[0]

    def status_of(self, tx_hash: str) -> TransactionStatus:
        """See ports.Sender. Mined if enough operators return the same receipt, unknown only if no
        operator knows the hash.
        """
        answers = self._poll(
            lambda node: node.status_of(tx_hash),
            lambda answers: self._agreed_status(answers).state != "unknown",
        )
        agreed_status = self._agreed_status(answers)
        if agreed_status.receipt is not None:
            mined_statuses = [
                (endpoint, status)
                for endpoint, status in answers.items()
                if status.receipt is not None
            ]
            self._blame(mined_statuses, lambda status: status != agreed_status, "a receipt")
        return agreed_status

    def nonces(self, owner: str) -> tuple[int, int]:
        """See ports.Sender. A used nonce confirms all below it; a pending nonce in a single mempool
        is outvoted.
        """
        answers = self._poll(lambda node: node.nonces(owner), lambda _: True)
        latest_by_operator = number_by_operator(
            ((endpoint, latest_nonce) for endpoint, (latest_nonce, _) in answers.items()), min
        )
        pending_by_operator = number_by_operator(
            (
                (endpoint, pending_nonce if pending_nonce > latest_nonce else 0)
                for endpoint, (latest_nonce, pending_nonce) in answers.items()
            ),
            max,
        )
        quorum = quorum_size(len(latest_by_operator), self._endpoint_pool.min_operators)
        confirmed_nonce = highest_confirmed_number(latest_by_operator, quorum)
        self._blame(
            answers.items(),
            # an honest endpoint may be a block ahead, which uses one nonce more
            lambda nonce_pair: nonce_pair[0] > confirmed_nonce + 1,
            "the wallet's nonce",
            is_outvoted=sum(nonce <= confirmed_nonce for nonce in latest_by_operator.values())
            >= quorum,
        )
        return confirmed_nonce, max(
            confirmed_nonce, lowest_sufficient_number(pending_by_operator, quorum)
        )

    def head(self) -> Head:
        """See ports.Sender. Returns the newest header that enough operators agree on."""
        return ask_at_one_block(
            self._endpoint_pool,
            lambda node, height_or_tag: self._require_chain(NodeSender(node).head(height_or_tag)),
            lambda head: head,
        ).endpoints_and_answers[0][1]

    def block_hash(self, block_number: int) -> str | None:
        """See ports.Sender."""

        def vote(answers: Mapping[Endpoint, str | None]) -> str | None:
            votes = [(endpoint.operator, answer) for endpoint, answer in answers.items()]
            return confirmed_value(
                votes, self._endpoint_pool.min_operators, f"block {block_number}"
            )

        answers = self._poll(
            lambda node: node.block_hash(block_number), lambda answers: is_decided(vote, answers)
        )
        agreed_hash = vote(answers)
        self._blame(
            answers.items(),
            lambda answer: answer is not None and answer != agreed_hash,
            f"block {block_number}",
        )
        return agreed_hash

    def tagged_height(self, tag: str) -> int:
        """See ports.Sender. A height that enough operators have reached."""
        answers = self._poll(
            lambda node: self._require_chain(node.head(tag)).number, lambda _: True
        )
        height_by_operator = number_by_operator(answers.items(), min)
        quorum = quorum_size(len(height_by_operator), self._endpoint_pool.min_operators)
        return highest_confirmed_number(height_by_operator, quorum)

    def mined_tx_hash(self, owner: str, nonce: int) -> str | None:
        """See ports.ConflictingTransactionFinder."""
        return find_mined_hash(self._endpoint_pool, owner, nonce, self.head().number)

    def conflicting_tx_hash(self, owner: str, nonce: int) -> str | None:
        """See ports.ConflictingTransactionFinder."""
        return find_conflicting_hash(self._endpoint_pool, owner, nonce, self.head().number)

    def _poll(
        self,
        question: Callable[[NodeSender], T],
        is_settled: Callable[[Mapping[Endpoint, T]], bool],
    ) -> dict[Endpoint, T]:
        """Return answers of at least a quorum of operators. Once `is_settled` is true, the rest are
        ignored.
        """
        quorum = quorum_size(
            len(operators_of(self._endpoint_pool.endpoints)), self._endpoint_pool.min_operators
        )
        poll = self._endpoint_pool.ask(
            lambda endpoint: question(
                NodeSender(endpoint, data_fee=self._endpoint_pool.data_fee_kind)
            ),
            is_enough=lambda answers: len(operators_of(answers)) >= quorum and is_settled(answers),
        )
        self._endpoint_pool.require_quorum(poll)
        return poll.answers

    def _agreed_status(self, answers: Mapping[Endpoint, TransactionStatus]) -> TransactionStatus:
        """Combine the operators' statuses of one hash. A receipt from too few operators counts as
        pending.
        """
        quorum = quorum_size(len(operators_of(answers)), self._endpoint_pool.min_operators)
        for status, operators in operators_by_value(
            (endpoint.operator, status) for endpoint, status in answers.items()
        ).items():
            if status.receipt is not None and len(operators) >= quorum:
                return status
        is_known = any(status.state != "unknown" for status in answers.values())
        return TransactionStatus("pending" if is_known else "unknown", None)

    def _offer_all(
        self, signed: SignedTx
    ) -> tuple[bool, list[Refusal], list[Retryable | OperatorNeeded]]:
        """Offer the bytes to each target. Return True if one accepted, the refusals, and the
        failures with unknown outcome.
        """
        refusals: list[Refusal] = []
        failures: list[Retryable | OperatorNeeded] = []
        target_pools = (
            [EndpointPool([self._private_endpoint], 1)]
            if self._private_endpoint is not None
            else []
        )
        if self._private_endpoint is None or self._uses_public_fallback:
            target_pools.append(self._endpoint_pool)
        for target_pool in target_pools:
            poll = target_pool.ask(
                lambda endpoint: _offer(endpoint, signed),
                is_enough=lambda answers: None in answers.values(),
            )
            if None in poll.answers.values():
                return True, refusals, failures
            refusals += [refusal for refusal in poll.answers.values() if refusal is not None]
            failures += [
                failure
                for failure in poll.failures.values()
                if isinstance(failure, Retryable | OperatorNeeded)
            ]
        return False, refusals, failures

    def _blame(
        self,
        answers: Iterable[tuple[Endpoint, T]],
        is_wrong: Callable[[T], bool],
        subject: str,
        *,
        is_outvoted: bool = True,
    ) -> None:
        for endpoint, answer in answers:
            if is_wrong(answer):
                self._endpoint_pool.blame(
                    endpoint, f"differs in {subject}", is_outvoted=is_outvoted
                )

    def _require_chain(self, head: Head) -> Head:
        if head.chain_id != self._chain_id:
            raise PassingFault(
                f"an endpoint is on chain {head.chain_id}, chain.chain_id is {self._chain_id}",
                "fix the endpoint's url",
                code=ErrorCode.CHAIN,
            )
        return head


def _offer(endpoint: Endpoint, signed: SignedTx) -> Refusal | None:
    """Return None if the endpoint accepted the transaction, else its refusal. Raises if the outcome
    is unknown.
    """
    try:
        NodeSender(endpoint).offer(signed)
    except (NonceUsed, SendRefused) as refusal:
        return refusal
    return None
