"""Transactions on nodes: simulation, a single send, status by hash, revert reasons. Nothing here
resends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import TypeVar

from eth_utils.address import to_checksum_address

from agent.chain.endpoints import Endpoint, EndpointPool, EndpointResting, operators_of
from agent.chain.lens import abi_decode
from agent.chain.quorum import (
    NoQuorum,
    ask_at_one_block,
    confirmed_value,
    highest_confirmed,
    lowest_sufficient,
    operators_by_value,
    quorum_size,
)
from agent.chain.receipts import RECENT_BLOCKS, find_tx_by_nonce, parse_receipt
from agent.chain.rpc import (
    CallFailed,
    RpcFault,
    Transport,
    hex_data,
    parse_bytes,
    parse_head,
    parse_quantity,
    scrub,
)
from agent.errors import OperatorNeeded, Refused, Retryable, TrimtabError
from agent.model import Head, SignedTx, UnsignedTx, Verdict
from agent.ports import Simulation, TransactionStatus
from agent.signing.calldata import APPROVE, selector

# --- Revert reasons: Error(string), Panic(uint256), custom errors, Uniswap's terse codes.


_ERROR = selector("Error(string)")
_PANIC = selector("Panic(uint256)")
_MAX_TEXT = 120
_PREFIXES = (
    "execution reverted: ",
    "execution reverted",
    "VM Exception while processing transaction: revert ",
    "revert: ",
    "reverted: ",
)

_TOO_LITTLE = "a pool would pay less than the plan's minimum: the market moved since the snapshot"
_UNPAID = (
    "a token could not be taken from the wallet: balance or allowance is too small, or the token"
    " forbids it"
)

REVERT_MESSAGES = {
    "Too little received": _TOO_LITTLE,
    "UniswapV2Router: INSUFFICIENT_OUTPUT_AMOUNT": _TOO_LITTLE,
    "Too much requested": (
        "a pool would ask for more than the plan's maximum: the market moved since the snapshot"
    ),
    "Transaction too old": "the deadline has passed",
    "UniswapV2Router: EXPIRED": "the deadline has passed",
    "STF": _UNPAID,
    "TransferHelper: TRANSFER_FROM_FAILED": _UNPAID,
    "TransferHelper::transferFrom: transferFrom failed": _UNPAID,
    "ST": "a token could not be sent on by the router",
    "TF": "a token could not be sent on by the pool",
    "UniswapV2: TRANSFER_FAILED": "a token could not be sent on by the pool",
    "SA": "a token refused an approval",
    "STE": "the native coin could not be sent on",
    "AS": "the amount to swap is zero",
    "IIA": (
        "the pool was not paid: the token takes a fee on transfer, or transfers less than its"
        " amount"
    ),
    "LOK": "the pool is locked: it is being called from inside itself, or was never initialised",
    "UniswapV2: LOCKED": "the pool is locked: it is being called from inside itself",
    "SPL": "the price limit lies on the wrong side of the pool's price",
    "L": "the pool has no liquidity to swap against",
    "OLD": "the pool's price history does not reach back that far",
    "I": "the pool's price history was never started",
    "TLU": "a tick range is upside down",
    "TLM": "a tick lies below the lowest",
    "TUM": "a tick lies above the highest",
    "UniswapV2: K": "the pool was not paid in full: the token takes a fee on transfer",
    "UniswapV2: INSUFFICIENT_INPUT_AMOUNT": "the pool was paid nothing",
    "UniswapV2: INSUFFICIENT_LIQUIDITY": "the pool has too little liquidity",
    "UniswapV2Library: INSUFFICIENT_INPUT_AMOUNT": "the amount to swap is zero",
    "UniswapV2Library: INSUFFICIENT_LIQUIDITY": "the pool has no liquidity",
    "UniswapV2: INSUFFICIENT_OUTPUT_AMOUNT": "the amount is too small to buy anything",
    "Insufficient WETH9": "the router holds less wrapped native coin than was to be sent on",
    "Insufficient token": "the router holds less of a token than was to be sent on",
}
"""Descriptions of the revert reasons of Uniswap V2 and V3 contracts."""

_CUSTOM = {
    "ERC20InsufficientBalance(address,uint256,uint256)": "the balance of a token is too small",
    "ERC20InsufficientAllowance(address,uint256,uint256)": "the allowance of a token is too small",
    "ERC20InvalidReceiver(address)": "a token refuses the recipient",
    "ERC20InvalidSpender(address)": "a token refuses the spender",
    "SafeERC20FailedOperation(address)": "a token's transfer or approval failed",
    "EnforcedPause()": "a token or contract is paused",
    "InsufficientBalance()": "a balance is too small",
    "InsufficientAllowance()": "an allowance is too small",
    "TransferFailed()": "a token's transfer failed",
    "TransferFromFailed()": "a token could not be taken from the wallet",
}
_REBALANCER = {
    "Expired()": "the deadline has passed",
    "Reentered()": (
        "the Rebalancer was called from inside itself: a token or pool of the plan runs foreign"
        " code"
    ),
    "Malformed()": "the program is not one that the Rebalancer understands",
    "NotAwaited()": (
        "a caller other than the pool of the running swap asked the Rebalancer for payment"
    ),
    "TooMuchAsked()": "a pool asked for more than its swap pays",
    "NoSuchPool(uint256)": "swap {}: the venue's factory made no such pool",
    "TooLittleOut(uint256)": f"swap {{}}: {_TOO_LITTLE}",
    "FilledInPart(uint256)": (
        "swap {}: the pool took only part of the amount: it is short of liquidity"
    ),
    "TokenRefused(address)": (
        "token {} could not be moved or read: balance or allowance is too small, or the token"
        " forbids it"
    ),
    "BelowBound(address)": (
        "the wallet's {} would change by less than the plan's bound: more spent, or less received"
    ),
    "BelowFloor(int256)": (
        "the wallet's value would change by {} base units of the numeraire, less than the plan's"
        " floor"
    ),
    "LeftBehind(address)": "{} would be left behind in the Rebalancer",
    "NativeRefused()": (
        "native coin could not be sent to the wallet, or came from elsewhere than its wrapping"
        " contract"
    ),
}
"""Descriptions of the errors of contracts/src/Rebalancer.sol; {} stands for the error's
argument."""
CUSTOM = {
    selector(signature): (signature, words) for signature, words in (_CUSTOM | _REBALANCER).items()
}
"""Custom errors of common token libraries and of our Rebalancer by selector: signature and
words."""

_PANICS = {
    0x01: "an assertion failed",
    0x11: "arithmetic overflow",
    0x12: "division by zero",
    0x21: "an enum has no such value",
    0x32: "an index is out of bounds",
    0x41: "out of memory",
}


def revert_reason(fault: RpcFault) -> str:
    """Return the reason of a failed call, with the contract's own text in parentheses; harmless
    characters only (T17).
    """
    if fault.data not in ("", "0x"):
        return _from_data(bytes.fromhex(fault.data[2:]))
    text = fault.message
    for prefix in _PREFIXES:
        text = text.removeprefix(prefix)
    text = text.strip(" :'")
    return revert_message(text) if text else "reverted without a reason"


def revert_message(code: str) -> str:
    """Return the description of a contract's text, or the text itself, cut and harmless, if the
    table lacks it.
    """
    shown = scrub(code)[:_MAX_TEXT]
    return f"{REVERT_MESSAGES[code]} ({shown})" if code in REVERT_MESSAGES else shown


def _from_data(data: bytes) -> str:
    head, body = data[:4], data[4:]
    if head == _ERROR:
        try:
            return revert_message(str(abi_decode(["string"], body)[0]))
        except Exception:  # eth_abi raises many error types on malformed bytes
            return "reverted with a reason that cannot be read"
    if head == _PANIC and len(body) == 32:
        code = int.from_bytes(body, "big")
        return f"the contract stopped itself: {_PANICS.get(code, 'panic')} (Panic 0x{code:02x})"
    if head in CUSTOM:
        signature, words = CUSTOM[head]
        name, _, types = signature.rstrip(")").partition("(")
        return f"{words.format(_error_argument(types, body))} ({name})"
    return (
        f"reverted with custom error 0x{head.hex()}"
        if len(head) == 4
        else "reverted with data that cannot be read"
    )


def _error_argument(kind: str, body: bytes) -> str:
    """Return the single value carried by a Rebalancer error."""
    word = body[:32]
    if len(word) != 32:
        return "?"
    if kind == "address":
        return str(to_checksum_address(word[12:]))
    return str(int.from_bytes(word, "big", signed=kind == "int256"))


_REVERTED_CODE = 3


class NonceUsed(OperatorNeeded):
    """The chain has another transaction at this nonce: another sender uses the wallet."""


class SendRefused(Refused):
    """The node refused the transaction. The verdict's guard is `send.<why>`."""


class _RefusalKind(Enum):
    """Meaning of a node's refusal of a transaction."""

    KNOWN = "known"
    NONCE_LOW = "nonce_too_low"
    UNDERPRICED = "underpriced"
    NO_FUNDS = "no_funds"
    BAD_GAS = "gas"
    UNFIT = "unfit"


_PHRASES: tuple[tuple[_RefusalKind, tuple[str, ...]], ...] = (
    (
        _RefusalKind.KNOWN,
        (
            "already known",
            "alreadyknown",
            "known transaction",
            "already imported",
            "already in pool",
            "already exists",
        ),
    ),
    (
        _RefusalKind.NONCE_LOW,
        (
            "nonce too low",
            "nonce is too low",
            "oldnonce",
            "old nonce",
            "invalid transaction nonce",
            "nonce has already been used",
        ),
    ),
    (
        _RefusalKind.UNDERPRICED,
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
        _RefusalKind.NO_FUNDS,
        (
            "insufficient funds",
            "insufficient balance",
            "not enough funds",
            "does not have enough balance",
            "cannot afford",
        ),
    ),
    (
        _RefusalKind.BAD_GAS,
        ("intrinsic gas", "gas limit", "gas required exceeds", "insufficient gas", "out of gas"),
    ),
    (
        _RefusalKind.UNFIT,
        (
            "invalid sender",
            "invalid signature",
            "invalid chain",
            "chain id",
            "not supported",
            "not allowed",
            "nonce too high",
        ),
    ),
)
_REMEDIES = {
    _RefusalKind.UNDERPRICED: "raise limits.gas_price, or wait until gas is cheaper",
    _RefusalKind.NO_FUNDS: "send the wallet native coin for gas",
    _RefusalKind.BAD_GAS: "the plan needs more gas than the transaction allows; plan again",
    _RefusalKind.UNFIT: "the node rejects the transaction's form; check chain_id and the endpoint",
}


class NodeSender:
    """ports.Sender over one endpoint; with `submit` signed bytes go only there (a private
    endpoint).
    """

    def __init__(self, transport: Transport, submit: Transport | None = None) -> None:
        self._transport = transport
        self._submit = transport if submit is None else submit

    def simulate(self, tx: UnsignedTx, sender: str, height: int | None = None) -> Simulation:
        """Simulate the exact transaction at the head, or after the block of that height; return its
        result and gas. Raises Retryable if the node cannot simulate. With a `gas` of 0 the node
        chooses the amount, and the wallet's funds are not checked: a node would require the price
        of a whole block.
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
        head = parse_head(
            _result(block, "the head"),
            parse_quantity(_result(chain_id, "the chain id"), "chain id"),
        )
        if head.base_fee_wei is not None and _most_wei(tx) < head.base_fee_wei:
            return Simulation(
                False,
                f"its fee of {_most_wei(tx)} wei per gas is below the base fee of"
                f" {head.base_fee_wei} wei",
                0,
                head,
            )
        for outcome in (answer, gas):
            if isinstance(outcome, RpcFault):
                return Simulation(
                    False, _failure(outcome), 0, head, reverted=_by_contracts(outcome, tx)
                )
        if tx.data.startswith(hex_data(APPROVE)) and _not_true(
            parse_bytes(answer, "the simulated call")
        ):
            return Simulation(
                False,
                "the token answers false, not true: it refuses the approval",
                0,
                head,
                reverted=True,
            )
        return Simulation(True, "", parse_quantity(gas, "the gas estimate"), head)

    def send(self, signed: SignedTx) -> None:
        """Send the signed bytes to the node, once; a known transaction is success.

        Raises NonceUsed if another transaction has the nonce, SendRefused if the node certainly did
        not take it, and Retryable if the outcome is unknown: check the status of its hash.
        """
        try:
            self.offer(signed)
        except NonceUsed:
            if self.status_of(signed.hash).state == "unknown":
                raise

    def offer(self, signed: SignedTx) -> None:
        """Send as `send`, but NonceUsed may also mean that the transaction itself is mined: the
        caller must check its hash.
        """
        unknown = f"whether transaction {signed.hash} was taken is unknown"
        try:
            answer = self._submit.call("eth_sendRawTransaction", [hex_data(signed.raw)])
        except CallFailed as error:
            _refused(signed.hash, error.fault)
            return
        except Retryable as error:
            raise Retryable(
                f"{unknown}: {error.message}", "check its hash before sending anything else"
            ) from None
        if not isinstance(answer, str) or answer.lower() != signed.hash:
            raise Retryable(
                f"{unknown}: the node answers another hash",
                "check its hash before sending anything else",
            )

    def status_of(self, tx_hash: str) -> TransactionStatus:
        """Return the status of the hash: unknown, pending or mined (with its receipt). Raises
        Retryable if the node cannot say.
        """
        found, known = self._transport.batch(
            [("eth_getTransactionReceipt", [tx_hash]), ("eth_getTransactionByHash", [tx_hash])]
        )
        receipt, body = _maybe(found, "the receipt"), _maybe(known, "the transaction")
        if receipt is not None and receipt.get("blockHash") is not None:
            return TransactionStatus("mined", parse_receipt(receipt, tx_hash))
        if body is not None:
            return TransactionStatus("pending", None)
        return TransactionStatus("unknown", None)

    def nonces(self, owner: str) -> tuple[int, int]:
        """Next nonce of `owner` by (latest, pending)."""
        latest, pending = self._transport.batch(
            [
                ("eth_getTransactionCount", [owner, "latest"]),
                ("eth_getTransactionCount", [owner, "pending"]),
            ]
        )
        return parse_quantity(_result(latest, "the nonce"), "nonce"), parse_quantity(
            _result(pending, "the nonce"), "nonce"
        )

    def head(self, height: int | None = None) -> Head:
        """The newest block's header, or that of a height."""
        chain_id, block = self._transport.batch(
            [("eth_chainId", []), ("eth_getBlockByNumber", [_tag(height), False])]
        )
        return parse_head(
            _result(block, "the head"),
            parse_quantity(_result(chain_id, "the chain id"), "chain id"),
        )

    def block_hash(self, number: int) -> str | None:
        """Hash of the canonical block at that height; None if there is none."""
        (block,) = self._transport.batch([("eth_getBlockByNumber", [hex(number), False])])
        found = _maybe(block, "the block")
        return None if found is None else hex_data(parse_bytes(found.get("hash"), "block hash", 32))


def _refused(tx_hash: str, fault: RpcFault) -> None:
    """Return if the node already has the transaction; else raise its refusal as an error."""
    meaning = _meaning(fault)
    if meaning is _RefusalKind.KNOWN:
        return
    if meaning is _RefusalKind.NONCE_LOW:
        raise NonceUsed(
            f"the nonce of transaction {tx_hash} is used by another transaction ({fault.message})",
            "something else sends from this wallet; find out what before going on",
        )
    if meaning is None:
        raise Retryable(
            f"whether transaction {tx_hash} was taken is unknown: {fault.message}", "check its hash"
        )
    verdict = Verdict(f"send.{meaning.value}", fault.message, "taken by the node", False)
    raise SendRefused(
        f"the node did not take transaction {tx_hash}: {fault.message}",
        (verdict,),
        _REMEDIES[meaning],
    )


def _tag(height: int | None) -> str:
    return "latest" if height is None else hex(height)


def _request(tx: UnsignedTx, sender: str) -> dict[str, str]:
    """The transaction as the object of eth_call and eth_estimateGas."""
    request = {"from": sender, "to": tx.to, "data": tx.data, "value": hex(tx.value_wei)}
    if tx.gas == 0:
        return request
    fees = {
        "maxFeePerGas": tx.max_fee_wei,
        "maxPriorityFeePerGas": tx.max_priority_fee_wei,
        "gasPrice": tx.gas_price_wei,
    }
    return {
        **request,
        "gas": hex(tx.gas),
        **{name: hex(value) for name, value in fees.items() if value is not None},
    }


def _most_wei(tx: UnsignedTx) -> int:
    """Return the most per gas that the transaction pays."""
    return (tx.gas_price_wei if tx.max_fee_wei is None else tx.max_fee_wei) or 0


def _result(answer: object, what: str) -> object:
    if isinstance(answer, RpcFault):
        raise Retryable(f"the endpoint cannot report {what}: {answer.message}")
    return answer


def _maybe(answer: object, what: str) -> Mapping[str, object] | None:
    """Return an object, or None if the node reports that it has none; an error never counts as
    none.
    """
    found = _result(answer, what)
    if found is None or isinstance(found, Mapping):
        return found
    raise Retryable(f"the endpoint's answer for {what} is not an object")


def _meaning(fault: RpcFault) -> _RefusalKind | None:
    text = fault.message.lower()
    return next(
        (meaning for meaning, phrases in _PHRASES if any(phrase in text for phrase in phrases)),
        None,
    )


def _failure(fault: RpcFault) -> str:
    """Return the reason of a reverted simulation; raise Retryable if the node failed."""
    if _reverts(fault):
        return revert_reason(fault)
    meaning = _meaning(fault)
    if meaning is None or meaning is _RefusalKind.KNOWN:
        raise Retryable(
            f"the endpoint cannot simulate: {fault.message}", "try again, or use another endpoint"
        )
    remedy = _REMEDIES.get(meaning)
    return f"{fault.message}; {remedy}" if remedy else fault.message


def _reverts(fault: RpcFault) -> bool:
    return (
        fault.code == _REVERTED_CODE
        or fault.data not in ("", "0x")
        or "revert" in fault.message.lower()
    )


def _by_contracts(fault: RpcFault, tx: UnsignedTx) -> bool:
    """True if contracts refused, or burned all the gas. "gas required exceeds" may also mean a
    wallet that cannot pay, but only if gas or price was named.
    """
    burned = tx.gas == 0 and _meaning(fault) is _RefusalKind.BAD_GAS
    return _reverts(fault) or burned or "out of gas" in fault.message.lower()


def _not_true(returned: bytes) -> bool:
    """True if an ERC-20 call returned anything but true; USDT-like tokens return nothing, which is
    success.
    """
    return len(returned) > 0 and int.from_bytes(returned, "big") != 1


# --- The mined or pending transaction at a nonce of the wallet: for messages to the operator, never
# for decisions.


def find_conflicting_tx(
    endpoint_pool: EndpointPool, owner: str, nonce: int, head_block: int
) -> str | None:
    """Return the hash of the transaction of `owner` with `nonce`; None if no endpoint knows it."""
    for since_block in (max(0, head_block - RECENT_BLOCKS), 0):
        try:
            found = find_tx_by_nonce(endpoint_pool, owner, nonce, since_block, head_block)
        except TrimtabError:
            continue
        if found is not None:
            return found.tx_hash
    poll = endpoint_pool.ask(lambda line: _pending(line, owner, nonce))
    return next((answer for answer in poll.answers.values() if answer is not None), None)


def _pending(line: Transport, owner: str, nonce: int) -> str | None:
    block = line.call("eth_getBlockByNumber", ["pending", True])
    listed = block.get("transactions") if isinstance(block, Mapping) else None
    for tx in listed if isinstance(listed, list) else []:
        try:
            if (
                isinstance(tx, Mapping)
                and str(tx.get("from", "")).lower() == owner.lower()
                and parse_quantity(tx.get("nonce"), "nonce") == nonce
            ):
                return hex_data(parse_bytes(tx.get("hash"), "transaction hash", 32))
        except Retryable:
            continue
    return None


# --- Sender over all endpoints: answers by quorum, and signed bytes only to permitted endpoints.


T = TypeVar("T")
R = TypeVar("R")
Refusal = NonceUsed | SendRefused


class QuorumSender:
    """Implements ports.Sender over an endpoint pool; with one endpoint its answer counts.

    Receipts, headers and block hashes must be equal from enough operators (a majority of those who
    answer, and the config's minimum). A used nonce and a height need enough operators that have
    seen as much; gas needed and pending nonces are the least that enough operators call sufficient.
    A simulation is made at one block and decided by majority. A single dishonest operator can
    neither stop the agent nor make it send, and a wrong simulation can only cost gas, since
    minimums and deadline are in the transaction itself.
    """

    def __init__(
        self,
        endpoint_pool: EndpointPool,
        chain_id: int,
        submit: Endpoint | None = None,
        public_fallback: bool = False,
    ) -> None:
        """Set the endpoints. With `submit` signed bytes go only there; with `public_fallback` also
        to the panel if `submit` refuses.
        """
        self._endpoint_pool = endpoint_pool
        self._chain_id = chain_id
        self._submit = submit
        self._public_fallback = public_fallback

    def simulate(self, tx: UnsignedTx, sender: str) -> Simulation:
        """Simulate as ports.Sender, at the newest block that enough operators have. Gas is from
        operators whose simulation succeeds.
        """
        asked = ask_at_one_block(
            self._endpoint_pool,
            lambda one, height: self._here(NodeSender(one).simulate(tx, sender, height)),
            lambda found: found.head,
        )
        return replace(self._verdict(asked.answers), height_disagreement=asked.height_disagreement)

    def _verdict(self, results: Sequence[tuple[Endpoint, Simulation]]) -> Simulation:
        enough = quorum_size(
            len({endpoint.operator for endpoint, _ in results}), self._endpoint_pool.min_operators
        )
        verdicts = operators_by_value((endpoint.operator, found.ok) for endpoint, found in results)
        good, bad = verdicts.get(True, set()), verdicts.get(False, set())
        self._blame(
            results,
            lambda found: (
                (len(good) >= enough and not found.ok) or (len(bad) >= enough and found.ok)
            ),
            "the simulation",
        )
        if len(good) >= enough:
            gas: dict[str, int] = {}
            for endpoint, found in results:
                if endpoint.operator in good:
                    gas[endpoint.operator] = max(gas.get(endpoint.operator, 0), found.gas)
            return Simulation(True, "", lowest_sufficient(gas, enough), results[0][1].head)
        failed = [(endpoint, found) for endpoint, found in results if not found.ok]
        if len(bad) >= enough:
            by_contracts = operators_by_value(
                (endpoint.operator, found.reverted) for endpoint, found in failed
            ).get(True, set())
            return replace(failed[0][1], reverted=len(by_contracts) >= enough)
        message = "; ".join(f"{endpoint.operator}: {found.reason}" for endpoint, found in failed)
        succeeded = ", ".join(sorted(good)) or "nobody"
        return Simulation(
            False,
            f"endpoints disagree ({message}; it succeeds for {succeeded})",
            0,
            results[0][1].head,
        )

    def send(self, signed: SignedTx) -> None:
        """Send as ports.Sender: the bytes go to every public endpoint at once, or to the private
        one alone. This is still one send: a nonce is used once, and an endpoint that withholds the
        bytes has no effect. One acceptance suffices. An unknown outcome at one endpoint is unknown,
        unless another accepted. A refusal must come from all; a used nonce is verified first.
        """
        taken, refusals, lost = self._offer_all(signed)
        if taken:
            return
        unknown = [failure for failure in lost if not isinstance(failure, EndpointResting)]
        if lost and not refusals and all(isinstance(failure, OperatorNeeded) for failure in lost):
            raise lost[0]
        if unknown or not refusals:
            message = "; ".join(failure.message for failure in lost)
            raise Retryable(
                f"whether transaction {signed.hash} was taken is unknown: {message}",
                "check its hash before sending anything else",
            )
        refused = next((refusal for refusal in refusals if isinstance(refusal, SendRefused)), None)
        if refused is not None:
            raise refused
        if self.status_of(signed.hash).state == "unknown":
            raise refusals[0]

    def status_of(self, tx_hash: str) -> TransactionStatus:
        """Return the status as ports.Sender.

        It is mined if enough operators show the same receipt, and unknown only if no operator knows
        the hash.
        """
        poll = self._hear(
            lambda node: node.status_of(tx_hash),
            lambda answers: self._seen(answers).state != "unknown",
        )
        found = self._seen(poll)
        if found.receipt is not None:
            mined = [
                (endpoint, status)
                for endpoint, status in poll.items()
                if status.receipt is not None
            ]
            self._blame(mined, lambda status: status != found, "a receipt")
        return found

    def nonces(self, owner: str) -> tuple[int, int]:
        """Return the nonces as ports.Sender. A used nonce confirms all below it; a pending nonce in
        a single mempool is outvoted.
        """
        poll = self._hear(lambda node: node.nonces(owner), lambda answers: True)
        latest: dict[str, int] = {}
        pending: dict[str, int] = {}
        for endpoint, (used, queued) in poll.items():
            latest[endpoint.operator] = min(latest.get(endpoint.operator, used), used)
            pending[endpoint.operator] = max(
                pending.get(endpoint.operator, 0), queued if queued > used else 0
            )
        enough = quorum_size(len(latest), self._endpoint_pool.min_operators)
        common = highest_confirmed(latest, enough)
        self._blame(poll.items(), lambda pair: pair[0] > common, "the wallet's nonce")
        return common, max(common, lowest_sufficient(pending, enough))

    def head(self) -> Head:
        """Return the newest header that enough operators agree on (ports.Sender)."""
        return ask_at_one_block(
            self._endpoint_pool,
            lambda one, height: self._on_chain(NodeSender(one).head(height)),
            lambda head: head,
        ).answers[0][1]

    def block_hash(self, number: int) -> str | None:
        """See ports.Sender."""

        def vote(answers: Mapping[Endpoint, str | None]) -> str | None:
            votes = [(endpoint.operator, found) for endpoint, found in answers.items()]
            return confirmed_value(votes, self._endpoint_pool.min_operators, f"block {number}")

        poll = self._hear(
            lambda node: node.block_hash(number), lambda answers: _decided(vote, answers)
        )
        found = vote(poll)
        self._blame(
            poll.items(), lambda answer: answer is not None and answer != found, f"block {number}"
        )
        return found

    def conflicting_tx(self, owner: str, nonce: int) -> str | None:
        """See ports.ConflictingTransactionFinder."""
        return find_conflicting_tx(self._endpoint_pool, owner, nonce, self.head().number)

    def _hear(
        self, question: Callable[[NodeSender], T], settled: Callable[[Mapping[Endpoint, T]], bool]
    ) -> dict[Endpoint, T]:
        """Return answers of at least a quorum of operators; once `settled` is true, the rest are
        ignored.
        """
        wanted = quorum_size(
            len(operators_of(self._endpoint_pool.endpoints)), self._endpoint_pool.min_operators
        )
        poll = self._endpoint_pool.ask(
            lambda endpoint: question(NodeSender(endpoint)),
            enough=lambda answers: len(operators_of(answers)) >= wanted and settled(answers),
        )
        self._endpoint_pool.require(poll)
        return poll.answers

    def _seen(self, answers: Mapping[Endpoint, TransactionStatus]) -> TransactionStatus:
        """Combine the operators' status of one hash; a receipt that too few show counts as
        pending.
        """
        enough = quorum_size(len(operators_of(answers)), self._endpoint_pool.min_operators)
        for seen, behind in operators_by_value(
            (endpoint.operator, found) for endpoint, found in answers.items()
        ).items():
            if seen.receipt is not None and len(behind) >= enough:
                return seen
        known = any(found.state != "unknown" for found in answers.values())
        return TransactionStatus("pending" if known else "unknown", None)

    def _offer_all(
        self, signed: SignedTx
    ) -> tuple[bool, list[Refusal], list[Retryable | OperatorNeeded]]:
        """Offer to each target; return True if one accepted, the refusals, and the failures with
        unknown outcome.
        """
        refusals: list[Refusal] = []
        lost: list[Retryable | OperatorNeeded] = []
        targets = [EndpointPool([self._submit], 1)] if self._submit is not None else []
        if self._submit is None or self._public_fallback:
            targets.append(self._endpoint_pool)
        for target in targets:
            poll = target.ask(
                lambda endpoint: _offer(endpoint, signed),
                enough=lambda answers: None in answers.values(),
            )
            if None in poll.answers.values():
                return True, refusals, lost
            refusals += [refusal for refusal in poll.answers.values() if refusal is not None]
            lost += [
                failure
                for failure in poll.lost.values()
                if isinstance(failure, Retryable | OperatorNeeded)
            ]
        return False, refusals, lost

    def _blame(
        self, replies: Iterable[tuple[Endpoint, T]], wrong: Callable[[T], bool], what: str
    ) -> None:
        for endpoint, found in replies:
            if wrong(found):
                self._endpoint_pool.blame(endpoint, f"differs in {what}")

    def _here(self, found: Simulation) -> Simulation:
        self._on_chain(found.head)
        return found

    def _on_chain(self, head: Head) -> Head:
        if head.chain_id != self._chain_id:
            raise OperatorNeeded(
                f"an endpoint is on chain {head.chain_id}, the config says {self._chain_id}",
                "fix the endpoint's url",
            )
        return head


def _offer(endpoint: Endpoint, signed: SignedTx) -> Refusal | None:
    """Return None if the endpoint now has the transaction, else its refusal. Raises if the outcome
    is unknown.
    """
    try:
        NodeSender(endpoint).offer(signed)
    except (NonceUsed, SendRefused) as refusal:
        return refusal
    return None


def _decided(vote: Callable[[Mapping[Endpoint, T]], R], answers: Mapping[Endpoint, T]) -> bool:
    try:
        vote(answers)
    except NoQuorum:
        return False
    return True
