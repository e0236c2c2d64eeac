"""JSON-RPC over HTTP: one request per batch, answers matched by id and parsed strictly."""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn, Protocol
from urllib.parse import urlsplit

import requests
import rlp
from eth_utils.address import to_checksum_address
from eth_utils.crypto import keccak
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from agent.codec import json_field
from agent.errors import ConfigError, ErrorCode, OperatorNeeded, Retryable
from agent.hosts import LOOPBACK
from agent.model import Head

# --- Strict parsing of a node's answers. Malformed answers are errors and are never guessed.


_QUANTITY = re.compile(r"0x[0-9a-fA-F]{1,64}")
_DATA = re.compile(r"0x(?:[0-9a-fA-F]{2})*")
_FOREIGN = re.compile(r"[^A-Za-z0-9 .,:;_/()'#+-]")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://\S+")
_MAX_MESSAGE = 200
_SECRET_LENGTH = 6


RpcCall = tuple[str, list[Any]]
"""Method and params of one JSON-RPC call."""


@dataclass(frozen=True, slots=True)
class RpcFault:
    """JSON-RPC error of one call. `message` has safe characters only (T17); `data` is revert data
    as 0x-hex or "".
    """

    code: int
    message: str
    data: str = ""


class CallFailed(Retryable):
    """A node answered a call with the error `fault`."""

    def __init__(self, message: str, fault: RpcFault, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.fault = fault


Log = Mapping[str, object]
"""Log entry of a receipt."""


def require_result(name: str, method: str, answer: object) -> object:
    """Return the answer. Raises CallFailed for a fault."""
    if isinstance(answer, RpcFault):
        raise CallFailed(f"{name} refused {method}: {answer.message}", answer)
    return answer


def parse_quantity(value: object, what: str) -> int:
    """Parse a JSON-RPC quantity, a non-negative integer. Raises Retryable naming `what`."""
    if isinstance(value, str) and _QUANTITY.fullmatch(value):
        return int(value, 16)
    raise Retryable(f"the endpoint's answer for {what} is not a number", code=ErrorCode.ANSWER)


def parse_bytes(value: object, what: str, length: int | None = None) -> bytes:
    """Parse bytes of JSON-RPC data, exactly `length` of them if given. Raises Retryable naming
    `what`.
    """
    if isinstance(value, str) and _DATA.fullmatch(value):
        raw = bytes.fromhex(value[2:])
        if length is None or len(raw) == length:
            return raw
    expected = "data" if length is None else f"{length} bytes"
    raise Retryable(f"the endpoint's answer for {what} is not {expected}", code=ErrorCode.ANSWER)


def parse_recipient(value: object) -> str:
    """Parse the recipient of a transaction, checksummed; "" for a contract creation. Raises
    Retryable for other values.
    """
    if value is None or value == "":
        return ""
    return str(to_checksum_address(parse_bytes(value, "a recipient", 20)))


def hex_data(raw: bytes) -> str:
    """Return bytes as 0x-hex."""
    return "0x" + raw.hex()


def parse_head(block: object, chain_id: int) -> Head:
    """Parse the header of an `eth_getBlockBy…` answer. Raises Retryable if fields are missing or
    malformed.
    """
    if not isinstance(block, Mapping):
        raise Retryable("the endpoint has no such block", code=ErrorCode.ANSWER)
    base_fee = block.get("baseFeePerGas")
    return Head(
        chain_id=chain_id,
        number=_parse_int64(block.get("number"), "block number"),
        hash=hex_data(parse_bytes(block.get("hash"), "block hash", 32)),
        timestamp_s=_parse_int64(block.get("timestamp"), "block timestamp"),
        base_fee_wei=None if base_fee is None else parse_quantity(base_fee, "base fee"),
    )


HEADER_FIELDS = (
    ("parentHash", False), ("sha3Uncles", False), ("miner", False), ("stateRoot", False), ("transactionsRoot", False),
    ("receiptsRoot", False), ("logsBloom", False), ("difficulty", True), ("number", True), ("gasLimit", True), ("gasUsed", True),
    ("timestamp", True), ("extraData", False), ("mixHash", False), ("nonce", False), ("baseFeePerGas", True),
    ("withdrawalsRoot", False), ("blobGasUsed", True), ("excessBlobGas", True), ("parentBeaconBlockRoot", False),
    ("requestsHash", False),
)  # fmt: skip
"""Fields of a block header in their order, and whether each is a number (Yellow Paper, 4.4.3; EIP-1559, EIP-4895,
EIP-4844, EIP-4788, EIP-7685)."""
_FIRST_OPTIONAL_FIELD = 15


def header_verifies(block: object, number: int) -> bool:
    """Return whether an `eth_getBlockBy…` answer is the header of block `number`: its hash is that of
    its fields. Anyone can compute such a header, but no altered copy of one passes.
    """
    if not isinstance(block, Mapping):
        return False
    try:
        fields: list[int | bytes] = []
        for at, (name, is_number) in enumerate(HEADER_FIELDS):
            if (value := block.get(name)) is None and at >= _FIRST_OPTIONAL_FIELD:
                break
            fields.append(parse_quantity(value, name) if is_number else parse_bytes(value, name))
        same_number = parse_quantity(block.get("number"), "block number") == number
        hashed = keccak(rlp.encode(fields))
        return same_number and parse_bytes(block.get("hash"), "block hash", 32) == hashed
    except Retryable:
        return False


def _parse_int64(value: object, what: str) -> int:
    """Parse a quantity that fits a signed 64-bit column of the store."""
    number = parse_quantity(value, what)
    if number >= 2**63:
        raise Retryable(f"the endpoint's answer for {what} is out of range", code=ErrorCode.ANSWER)
    return number


def scrub(message: str, secrets: Sequence[str] = ()) -> str:
    """Return `message` without URLs and `secrets`: at most 200 characters, all of them safe."""
    for secret in sorted((s for s in secrets if len(s) >= _SECRET_LENGTH), key=len, reverse=True):
        message = message.replace(secret, "(secret)")
    plain = _FOREIGN.sub("?", _URL.sub("(url)", message))
    return plain[:_MAX_MESSAGE]


def parse_fault(error: object) -> RpcFault:
    """Parse a JSON-RPC error object; missing and malformed fields get defaults."""
    if not isinstance(error, Mapping):
        return RpcFault(0, scrub(str(error)))
    code = error.get("code")
    data = error.get("data")
    if isinstance(data, Mapping):
        data = data.get("data")
    revert_data = re.search(r"0x(?:[0-9a-fA-F]{2})*", data) if isinstance(data, str) else None
    return RpcFault(
        code if isinstance(code, int) else 0,
        scrub(str(error.get("message", "no message"))),
        revert_data.group(0).lower() if revert_data else "",
    )


# --- HTTP connections, with the proxy and certificate settings of the environment.


class Connection:
    """Connection to one URL. URL, headers, proxies and credentials are prepared once, not per
    request.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = _open_session(url)
        self._prepared: requests.PreparedRequest | None = None

    def __repr__(self) -> str:
        return "Connection(hidden)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a connection cannot be pickled or copied: its URL is a secret")

    def post(self, body: bytes, timeout_s: float) -> requests.Response:
        """Return the response with its body unread. Redirects are not followed. Raises the errors
        of requests, including for an invalid URL.
        """
        if self._prepared is None:
            self._prepared = self._session.prepare_request(requests.Request("POST", self._url))
        request = self._prepared.copy()
        request.prepare_body(body, None)
        if self._session.cookies:
            request.prepare_cookies(self._session.cookies)
        return self._session.send(
            request,
            timeout=timeout_s,
            stream=True,
            allow_redirects=False,
            proxies=self._session.proxies,
        )


def _open_session(url: str) -> requests.Session:
    """Return a session with proxies, certificates and credentials of the environment, which are
    read once instead of for each request.
    """
    session = requests.Session()
    settings = session.merge_environment_settings(url, {}, None, None, None)
    session.proxies, session.verify = settings["proxies"], settings["verify"]
    session.auth = requests.utils.get_netrc_auth(url)
    session.trust_env = False
    session.headers.update({"Content-Type": "application/json", "Accept": "application/json"})
    return session


# --- The transport: batches, retries of reads, limits of an answer.


logging.getLogger("urllib3").setLevel(logging.CRITICAL)  # urllib3 logs whole URLs (T18)
MAX_RESPONSE_BYTES = 32 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_LONGEST_HEADER = 64
_DAY_S = 86_400.0
_MAX_DEPTH = 64
_NESTING = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_LONGEST_WAIT_S = 2.0
"""Longest Retry-After that is waited for. A longer one suspends the endpoint."""
_BACKOFF = wait_random_exponential(multiplier=0.2, max=_LONGEST_WAIT_S)
_RETRY_AFTER_STATUS = frozenset({429, 503})
_RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})
_READS = frozenset(
    {
        "eth_blockNumber",
        "eth_call",
        "eth_chainId",
        "eth_estimateGas",
        "eth_feeHistory",
        "eth_gasPrice",
        "eth_maxPriorityFeePerGas",
        "net_version",
        "web3_clientVersion",
    }
)


class EndpointOverloaded(Retryable):
    """The endpoint is rate limiting or temporarily failing; `retry_after_s` is the requested pause,
    None if unspecified.
    """

    def __init__(
        self, message: str, remedy: str = "", retry_after_s: float | None = None, *, code: str = ""
    ) -> None:
        super().__init__(message, remedy, code=code)
        self.retry_after_s = retry_after_s


class Transport(Protocol):
    """One endpoint."""

    @property
    def operator(self) -> str:
        """Operator of the endpoint, as declared in the config."""
        ...

    @property
    def name(self) -> str:
        """Operator and host for messages, never the URL."""
        ...

    @property
    def requests(self) -> int:
        """HTTP requests so far, retries included."""
        ...

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        """Return the results in the order of `calls`, with an RpcFault for each refused call.

        Raises Retryable (endpoint down, slow, overloaded, malformed answers) or OperatorNeeded (not
        a node, no access). Only batches of reads are retried.
        """
        ...

    def call(self, method: str, params: list[Any]) -> Any:
        """Return one call's result. Raises CallFailed if the node answers with an error, else as
        `batch`.
        """
        ...


class HttpTransport:
    """JSON-RPC over HTTP. The URL is a secret: messages name only operator and host (T18)."""

    def __init__(
        self,
        url: str,
        operator: str,
        timeout_s: float = 10.0,
        *,
        attempts: int = 3,
        max_response_bytes: int = MAX_RESPONSE_BYTES,
        sleep: Callable[[float], None] = time.sleep,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """Set the URL. `timeout_s` limits one request from connecting to the last byte; `attempts`
        includes the first.
        """
        host = _host(url)
        self._url = url
        del url  # keep it out of tracebacks
        self.name = f"endpoint {operator!r} at {host}"
        if host is None:
            raise ConfigError(
                f"chain.rpc url of operator {operator!r} is not an http or https address",
                "write https://host/…",
            )
        self._timeout_s = timeout_s
        self._max_response_bytes = max_response_bytes
        stop, retry = stop_after_attempt(attempts), retry_if_exception(_may_retry)
        self._retrying = Retrying(stop=stop, wait=_pause, retry=retry, sleep=sleep, reraise=True)
        self._wall = wall
        self._connection = Connection(self._url)
        self._next_id = 1
        self.operator = operator
        self.requests = 0

    def __repr__(self) -> str:
        return f"HttpTransport({self.name})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("an endpoint cannot be pickled or copied: its URL is a secret")

    def call(self, method: str, params: list[Any]) -> Any:
        """See Transport."""
        return require_result(self.name, method, self.batch([(method, params)])[0])

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        """See Transport."""
        if not calls:
            return []
        if not all(is_read(method) for method, _ in calls):
            return self._once(calls)
        return self._retrying(self._once, calls)

    def _once(self, calls: Sequence[RpcCall]) -> list[Any]:
        ids = list(range(self._next_id, self._next_id + len(calls)))
        self._next_id += len(calls)
        batch = [
            {"jsonrpc": "2.0", "id": number, "method": method, "params": params}
            for number, (method, params) in zip(ids, calls, strict=True)
        ]
        body = json.dumps(batch if len(batch) > 1 else batch[0]).encode()
        self.requests += 1
        text = self._post(body)
        return self._match(self._parse(text), ids)

    def _post(self, body: bytes) -> bytes:
        """Return the body of the answer. Errors are raised outside the exception handlers, since
        tracebacks of the libraries would show the URL.
        """
        deadline, defect, failure = time.monotonic() + self._timeout_s, "", None
        try:
            with self._connection.post(body, self._timeout_s) as response:
                status, retry_after = response.status_code, response.headers.get("Retry-After")
                text = self._body(response, deadline)
        except requests.Timeout:
            failure = f"{self.name} did not answer within {self._timeout_s:g} s"
        except requests.ConnectionError:
            failure = f"{self.name} cannot be reached"
        except (requests.RequestException, OSError) as error:
            failure = (
                f"{self.name} closed the connection during its answer ({type(error).__name__})"
            )
        except Exception as error:
            failure = (
                f"{self.name} closed the connection during its answer ({type(error).__name__})"
            )
            if not type(error).__module__.startswith("urllib3"):
                defect = f"a request to {self.name} failed: {type(error).__name__}"
        if defect:
            raise RuntimeError(defect)
        if failure is not None:
            raise Retryable(
                failure,
                "check the connection and the endpoint, or configure a second one",
                code=ErrorCode.UNREACHABLE,
            )
        if text is None:
            raise Retryable(
                f"{self.name} took longer than {self._timeout_s:g} s or sent more than"
                f" {self._max_response_bytes} bytes",
                code=ErrorCode.TIMEOUT,
            )
        self._check_status(status, text, retry_after)
        return text

    def _body(self, response: requests.Response, deadline: float) -> bytes | None:
        """Read the body; None once it exceeds the deadline or the allowed number of bytes."""
        parts: list[bytes] = []
        size = 0
        while True:
            part = response.raw.read1(_CHUNK_BYTES, decode_content=True)
            if not part:
                return b"".join(parts)
            size += len(part)
            if size > self._max_response_bytes or time.monotonic() > deadline:
                return None
            parts.append(part)

    def _check_status(self, status: int, text: bytes, retry_after: str | None) -> None:
        if status == requests.codes.ok:
            return
        after_s = None
        if status in _RETRY_AFTER_STATUS:
            after_s = retry_after_s(retry_after, self._wall())
        if status == requests.codes.too_many_requests:
            raise EndpointOverloaded(
                f"{self.name} is rate limiting (HTTP 429)",
                "send fewer requests, or use a plan that permits more",
                after_s,
                code=ErrorCode.RATE_LIMIT,
            )
        if status in _RETRY_STATUS:
            raise EndpointOverloaded(
                f"{self.name} failed (HTTP {status})",
                "it may be overloaded; try again, or configure a second endpoint",
                after_s,
                code=ErrorCode.ENDPOINT,
            )
        if text.lstrip()[:1] in (b"{", b"["):
            return  # some nodes answer a JSON-RPC error with status 400
        raise OperatorNeeded(
            f"{self.name} refused the request (HTTP {status})",
            "check its url and access key in [[chain.rpc]]",
            code=ErrorCode.ACCESS,
        )

    def _parse(self, text: bytes) -> object:
        try:
            if not _too_deep(text):
                parsed: object = json.loads(text)
                return parsed
        except ValueError:
            pass
        if text.lstrip()[:1] == b"<":
            raise OperatorNeeded(
                f"{self.name} answers with a web page, not JSON-RPC",
                "check its url in [[chain.rpc]]",
                code=ErrorCode.NOT_JSON,
            )
        raise Retryable(
            f"{self.name} sent {len(text)} bytes that are not JSON",
            "the answer was cut off, or the endpoint is not a node; check its url",
            code=ErrorCode.NOT_JSON,
        )

    def _match(self, parsed: object, ids: list[int]) -> list[object]:
        answers = parsed if isinstance(parsed, list) else [parsed]
        if len(ids) > 1 and isinstance(parsed, dict) and "error" in parsed:
            fault = self._fault(parsed["error"])
            raise Retryable(
                f"{self.name} refused the whole batch: {fault.message}",
                "the endpoint must support JSON-RPC batches",
                code=ErrorCode.BATCH,
            )
        by_id: dict[int, object] = {}
        for answer in answers:
            number = json_field(answer, "id")
            if (
                not isinstance(answer, dict)
                or isinstance(number, bool)
                or not isinstance(number, int)
                or number in by_id
            ):
                raise Retryable(
                    f"{self.name} sent an answer without a valid id", code=ErrorCode.ANSWER
                )
            if "error" in answer and answer["error"] is not None:
                by_id[number] = self._fault(answer["error"])
            elif "result" in answer:
                by_id[number] = answer["result"]
            else:
                raise Retryable(
                    f"{self.name} sent an answer with neither result nor error",
                    code=ErrorCode.ANSWER,
                )
        if set(by_id) != set(ids):
            raise Retryable(
                f"{self.name} returned answers to other requests (ids do not match)",
                code=ErrorCode.ANSWER,
            )
        return [by_id[i] for i in ids]

    def _fault(self, error: object) -> RpcFault:
        fault = parse_fault(error)
        parts = urlsplit(self._url)
        secrets = [
            self._url,
            parts.query,
            parts.path.strip("/"),
            parts.username or "",
            parts.password or "",
            *parts.path.split("/"),
        ]
        return RpcFault(fault.code, scrub(fault.message, secrets), fault.data)


def retry_after_s(header: str | None, now_s: float) -> float | None:
    """Return the seconds of a Retry-After header, at most a day: a number, or an HTTP date against
    `now_s` (RFC 9110, 10.2.3). None for a missing or invalid header.
    """
    if header is None or len(header) > _LONGEST_HEADER:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(float(text), _DAY_S)
    try:
        return min(max(parsedate_to_datetime(text).timestamp() - now_s, 0.0), _DAY_S)
    except (ValueError, OverflowError, OSError):
        return None


def _may_retry(error: BaseException) -> bool:
    requested_s = _requested_pause_s(error)
    return isinstance(error, Retryable) and (requested_s is None or requested_s <= _LONGEST_WAIT_S)


def _pause(state: RetryCallState) -> float:
    """Return a random, growing pause that is at least as long as the endpoint requested."""
    error = None if state.outcome is None else state.outcome.exception()
    return max(_BACKOFF(state), _requested_pause_s(error) or 0.0)


def _requested_pause_s(error: BaseException | None) -> float | None:
    return error.retry_after_s if isinstance(error, EndpointOverloaded) else None


def is_read(method: str) -> bool:
    """Return whether the method is known to be a read, so that it may be repeated."""
    return method in _READS or method.startswith("eth_get")


def _too_deep(text: bytes) -> bool:
    """Return whether JSON nests deeper than any valid answer. The parser recurses, and enough
    brackets would crash the process.
    """
    if text.count(b"[") + text.count(b"{") <= _MAX_DEPTH:
        return False
    depth = 0
    for token in _NESTING.finditer(text):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token.group(), 0)
        if depth > _MAX_DEPTH:
            return True
    return False


def _host(url: str) -> str | None:
    """Return the host of the URL, without user, path or query, and with its port only on this
    machine, where no other part tells endpoints apart; None if it is not an http(s) URL.
    """
    try:
        parts = urlsplit(url)
        usable = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
        )
        if not usable or parts.hostname not in LOOPBACK or parts.port is None:
            return parts.hostname if usable else None
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return f"{host}:{parts.port}"
    except ValueError:
        return None


def topics_of(log: Log, event: str, count: int) -> list[object] | None:
    """Return the topics of a log entry if it has this event signature and number of topics, else
    None.
    """
    topics = log.get("topics")
    if isinstance(topics, list) and len(topics) == count and topics[0] == event:
        return topics
    return None


def emitter(log: Log) -> str:
    """Return the contract that emitted a log entry."""
    return to_checksum_address(parse_bytes(log.get("address"), "log address", 20))


def address_of(topic: object) -> str:
    """Return the address in a topic."""
    return to_checksum_address(parse_bytes(topic, "log topic", 32)[12:])
