"""JSON-RPC over HTTP: one request per batch, answers matched by id, every failure an error with a
remedy.
"""

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
from eth_utils.address import to_checksum_address
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from agent.errors import ConfigError, ErrorCode, OperatorNeeded, Retryable
from agent.model import Head

# --- Strict parsing of a node's answers: quantities, bytes, headers, faults; anything else is an error, never a guess.


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
    """A JSON-RPC error of one call. `message` is reduced to harmless characters (T17); `data` is
    revert data as 0x-hex or "".
    """

    code: int
    message: str
    data: str = ""


class CallFailed(Retryable):
    """A node answered one call with an error; `fault` is that answer."""

    def __init__(self, message: str, fault: RpcFault, remedy: str = "") -> None:
        super().__init__(message, remedy)
        self.fault = fault


def require_result(name: str, method: str, answer: object) -> object:
    """Return the answer; raise CallFailed for a fault."""
    if isinstance(answer, RpcFault):
        raise CallFailed(f"{name} refused {method}: {answer.message}", answer)
    return answer


def parse_quantity(value: object, what: str) -> int:
    """Non-negative integer of a JSON-RPC quantity. Raises Retryable naming `what`."""
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
    raise Retryable(
        f"the endpoint's answer for {what} is not {'data' if length is None else f'{length} bytes'}",
        code=ErrorCode.ANSWER,
    )


def parse_recipient(value: object) -> str:
    """Parse the checksummed recipient of a transaction; "" for a contract creation. Raises
    Retryable on anything else.
    """
    return (
        ""
        if value is None or value == ""
        else str(to_checksum_address(parse_bytes(value, "a recipient", 20)))
    )


def hex_data(raw: bytes) -> str:
    """0x-hex of bytes."""
    return "0x" + raw.hex()


def parse_head(block: object, chain_id: int) -> Head:
    """Head of an `eth_getBlockBy…` answer. Raises Retryable if fields are missing or malformed."""
    if not isinstance(block, Mapping):
        raise Retryable("the endpoint has no such block", code=ErrorCode.ANSWER)
    base_fee = block.get("baseFeePerGas")
    return Head(
        chain_id=chain_id,
        number=_moderate(parse_quantity(block.get("number"), "block number"), "block number"),
        hash=hex_data(parse_bytes(block.get("hash"), "block hash", 32)),
        timestamp_s=_moderate(
            parse_quantity(block.get("timestamp"), "block timestamp"), "block timestamp"
        ),
        base_fee_wei=None if base_fee is None else parse_quantity(base_fee, "base fee"),
    )


def _moderate(value: int, what: str) -> int:
    """A number that every store can keep. Raises Retryable for any other."""
    if value >= 2**63:
        raise Retryable(
            f"the endpoint's answer for {what} is beyond all sense", code=ErrorCode.ANSWER
        )
    return value


def scrub(message: str, secrets: Sequence[str] = ()) -> str:
    """`message` without URLs and `secrets`, harmless characters only, cut to a line."""
    for secret in sorted((s for s in secrets if len(s) >= _SECRET_LENGTH), key=len, reverse=True):
        message = message.replace(secret, "(secret)")
    plain = _FOREIGN.sub("?", _URL.sub("(url)", message))
    return plain[:_MAX_MESSAGE]


def parse_fault(error: object) -> RpcFault:
    """RpcFault of a JSON-RPC error object, however odd."""
    if not isinstance(error, Mapping):
        return RpcFault(0, scrub(str(error)))
    code = error.get("code")
    data = error.get("data")
    if isinstance(data, Mapping):
        data = data.get("data")
    found = re.search(r"0x(?:[0-9a-fA-F]{2})*", data) if isinstance(data, str) else None
    return RpcFault(
        code if isinstance(code, int) else 0,
        scrub(str(error.get("message", "no message"))),
        found.group(0).lower() if found else "",
    )


# --- Connections to endpoints, with proxy and certificate settings of the environment.


class Connection:
    """Connection to one URL. Derived data of URL, headers, proxies and credentials is computed
    once, not per request.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = _opened(url)
        self._prepared: requests.PreparedRequest | None = None

    def __repr__(self) -> str:
        return "Connection(hidden)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a connection is not pickled or copied: its URL is a secret")

    def post(self, body: bytes, timeout_s: float) -> requests.Response:
        """The answer, its body still to be read; redirects are not followed. Raises what requests
        raises, a bad URL included.
        """
        if self._prepared is None:
            self._prepared = self._session.prepare_request(requests.Request("POST", self._url))
        asked = self._prepared.copy()
        asked.prepare_body(body, None)
        if self._session.cookies:
            asked.prepare_cookies(self._session.cookies)
        return self._session.send(
            asked,
            timeout=timeout_s,
            stream=True,
            allow_redirects=False,
            proxies=self._session.proxies,
        )


def _opened(url: str) -> requests.Session:
    """Read proxies, certificates and credentials of the environment once; requests would per
    request.
    """
    session = requests.Session()
    found = session.merge_environment_settings(url, {}, None, None, None)
    session.proxies, session.verify, session.auth = (
        found["proxies"],
        found["verify"],
        requests.utils.get_netrc_auth(url),
    )
    session.trust_env = False
    session.headers.update({"Content-Type": "application/json", "Accept": "application/json"})
    return session


logging.getLogger("urllib3").setLevel(logging.CRITICAL)
"""Loggers that repeat the whole URL (T18); our own errors report failures."""
MAX_RESPONSE_BYTES = 32 * 1024 * 1024
_CHUNK_BYTES = 64 * 1024
_LONGEST_HEADER = 64
_DAY_S = 86_400.0
_MOST_DEPTH = 64
_NESTING = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_WAITED_FOR_S = 2.0
"""Longest Retry-After that is waited for; longer ones suspend the endpoint."""
_BACKOFF = wait_random_exponential(multiplier=0.2, max=_WAITED_FOR_S)
_HEEDED = frozenset({429, 503})
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
    """The endpoint is rate limiting; `retry_after_s` is the requested pause, None if
    unspecified.
    """

    def __init__(
        self, message: str, remedy: str = "", retry_after_s: float | None = None, *, code: str = ""
    ) -> None:
        super().__init__(message, remedy, code=code)
        self.retry_after_s = retry_after_s


class Transport(Protocol):
    """One endpoint. `operator` is its provider; `requests` counts HTTP requests."""

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
        """Results in the order of `calls`; a call that the node refused is an RpcFault in its
        place.

        Raises Retryable (endpoint down, slow, overloaded, answers that make no sense) or
        OperatorNeeded (not a node, no access). Only batches of reads are retried.
        """
        ...

    def call(self, method: str, params: list[Any]) -> Any:
        """One call's result. Raises CallFailed if the node answers with an error, else as
        `batch`.
        """
        ...


class HttpTransport:
    """JSON-RPC over HTTP. The URL is a secret: messages name the operator and the host only
    (T18).
    """

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
        """Set the URL. `timeout_s` bounds one request from connecting to its last byte; `attempts`
        includes the first.
        """
        host = _host(url)
        self._url = url
        del url  # no frame of the error below, nor of any later one, holds it
        self.name = f"endpoint {operator!r} at {host}"
        if host is None:
            raise ConfigError(
                f"chain.rpc url of operator {operator!r} is not an http or https address",
                "write https://host/…",
            )
        self._timeout_s = timeout_s
        self._max_response_bytes = max_response_bytes
        stop, retry = stop_after_attempt(attempts), retry_if_exception(_soon)
        self._retrying = Retrying(stop=stop, wait=_pause, retry=retry, sleep=sleep, reraise=True)
        self._wall = wall
        self._connection = Connection(self._url)
        self._next_id = 1
        self.operator = operator
        self.requests = 0

    def __repr__(self) -> str:
        return f"HttpTransport({self.name})"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("an endpoint is not pickled or copied: its URL is a secret")

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
        asked = [
            {"jsonrpc": "2.0", "id": i, "method": m, "params": p}
            for i, (m, p) in zip(ids, calls, strict=True)
        ]
        body = json.dumps(asked if len(asked) > 1 else asked[0]).encode()
        self.requests += 1
        text = self._post(body)
        return self._match(self._parse(text), ids)

    def _post(self, body: bytes) -> bytes:
        """Body of the answer. The error is raised outside the handler, so that no traceback shows
        the URL.
        """
        deadline, defect, failure = time.monotonic() + self._timeout_s, "", None
        try:
            with self._connection.post(body, self._timeout_s) as response:
                status, patience = response.status_code, response.headers.get("Retry-After")
                text = self._body(response, deadline)
        except requests.Timeout:
            failure = f"{self.name} did not answer within {self._timeout_s:g} s"
        except requests.ConnectionError:
            failure = f"{self.name} cannot be reached"
        except (requests.RequestException, OSError) as error:
            failure = f"{self.name} broke off its answer ({type(error).__name__})"
        except Exception as error:
            known = type(error).__module__.startswith("urllib3")
            failure = f"{self.name} broke off its answer ({type(error).__name__})"
            defect = "" if known else f"asking {self.name} failed: {type(error).__name__}"
        if defect:  # without the frames of the libraries, which hold the URL
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
        self._check_status(status, text, patience)
        return text

    def _body(self, response: requests.Response, deadline: float) -> bytes | None:
        """At most the allowed bytes, read until the deadline however slowly they trickle; None
        beyond either bound.
        """
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

    def _check_status(self, status: int, text: bytes, patience: str | None) -> None:
        if status == requests.codes.ok:
            return
        after_s = retry_after_s(patience, self._wall()) if status in _HEEDED else None
        if status == requests.codes.too_many_requests:
            raise EndpointOverloaded(
                f"{self.name} is rate limiting (HTTP 429)",
                "ask less often or use a plan with more requests",
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
            f"{self.name} refuses (HTTP {status})",
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
            "a cut-off answer or not a node; check its url",
            code=ErrorCode.NOT_JSON,
        )

    def _match(self, parsed: object, ids: list[int]) -> list[object]:
        answers = parsed if isinstance(parsed, list) else [parsed]
        if len(ids) > 1 and isinstance(parsed, dict) and "error" in parsed:
            fault = self._fault(parsed["error"])
            raise Retryable(
                f"{self.name} refused the whole batch: {fault.message}",
                "the endpoint must take JSON-RPC batches",
                code=ErrorCode.BATCH,
            )
        by_id: dict[int, object] = {}
        for answer in answers:
            number = answer.get("id") if isinstance(answer, dict) else None
            if (
                not isinstance(answer, dict)
                or isinstance(number, bool)
                or not isinstance(number, int)
                or number in by_id
            ):
                raise Retryable(
                    f"{self.name} sent an answer without a proper id", code=ErrorCode.ANSWER
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
                f"{self.name} answered other questions than were asked (ids do not match)",
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


def _soon(error: BaseException) -> bool:
    """True if the endpoint is worth another try now."""
    patience = error.retry_after_s if isinstance(error, EndpointOverloaded) else None
    return isinstance(error, Retryable) and (patience is None or patience <= _WAITED_FOR_S)


def _pause(state: RetryCallState) -> float:
    """Pause for a random, growing time, at least as long as the endpoint requested."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked_s = error.retry_after_s if isinstance(error, EndpointOverloaded) else None
    return max(_BACKOFF(state), asked_s or 0.0)


def is_read(method: str) -> bool:
    """True if the method may be repeated; a method not known to be a read may not."""
    return method in _READS or method.startswith("eth_get")


def _too_deep(text: bytes) -> bool:
    """True if JSON nests deeper than any answer does: the parser recurses, and enough brackets
    would end the process.
    """
    if text.count(b"[") + text.count(b"{") <= _MOST_DEPTH:
        return False
    depth = 0
    for token in _NESTING.finditer(text):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token.group(), 0)
        if depth > _MOST_DEPTH:
            return True
    return False


def _host(url: str) -> str | None:
    """Return the host of the URL, without user, port, path or query; None if it is not an http(s)
    URL.
    """
    try:
        parts = urlsplit(url)
        usable = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and (parts.port is None or parts.port > 0)
        )
        return parts.hostname if usable else None
    except ValueError:
        return None
