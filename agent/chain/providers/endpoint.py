"""One endpoint over HTTP: one request per batch, answers matched by id, limits, retries of
reads.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn
from urllib.parse import urlsplit

import requests
from eth_typing import URI
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)
from web3 import HTTPProvider

from agent.chain.providers.batches import (
    RESPONSE_TOO_LARGE_CODE,
    BatchRefused,
    smaller_batch,
)
from agent.chain.providers.call_budgets import CallBudget, waiting_time_s
from agent.chain.providers.checked import CheckedProvider
from agent.chain.providers.secrets import secret_parts
from agent.chain.providers.sessions import open_session, read_body
from agent.chain.rpc import EndpointOverloaded, RpcCall, RpcFault, parse_fault
from agent.codec import json_field
from agent.errors import ConfigError, ErrorCode, PassingFault, Retryable
from agent.foreign_text import is_nested_deeper
from agent.hosts import LOOPBACK_HOSTS
from agent.units import DAY_S

MAX_RESPONSE_BYTES = 32 * 1024 * 1024
_MAX_HEADER_CHARS = 64
_MAX_DEPTH = 64
_LONGEST_WAIT_S = 2.0
"""Longest Retry-After that is waited for. A longer one suspends the endpoint."""
_BACKOFF = wait_random_exponential(multiplier=0.2, max=_LONGEST_WAIT_S)
_RETRY_AFTER_STATUS = frozenset({429, 503})
_RETRY_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524})
_ACCESS_STATUS = frozenset({401, 402, 403, 404, 407})
_READ_METHODS = frozenset(
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


class EndpointProvider(CheckedProvider, HTTPProvider):
    """web3 provider and Transport of one endpoint over HTTP: requests go through web3's session,
    once, without redirects. The URL is a secret: messages name only operator and host (T18).
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
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Set the URL. `timeout_s` limits one request from connecting to the last byte; `attempts`
        includes the first.
        """
        host = _host(url)
        self._url = URI(url)
        del url  # keep it out of tracebacks
        self.name = f"endpoint {operator!r} at {host}"
        if host is None:
            raise ConfigError(
                f"chain.rpc url of operator {operator!r} is not an http or https address",
                "write https://host/…",
            )
        request_options = {
            "timeout": timeout_s,
            "headers": {},
            "stream": True,
            "allow_redirects": False,
        }
        HTTPProvider.__init__(self, self._url, request_options, open_session(self._url))
        self._timeout_s = timeout_s
        self._max_response_bytes = max_response_bytes
        stop_rule = stop_after_attempt(attempts)
        retry_rule = retry_if_exception(_may_retry)
        self._retrying = Retrying(
            stop=stop_rule, wait=_pause_s, retry=retry_rule, sleep=sleep, reraise=True
        )
        self._sleep = sleep
        self._wall_clock = wall_clock
        self.request_counter = itertools.count(1)
        self.operator = operator
        self.request_count = 0
        self.call_budget: CallBudget | None = None
        """The call budget of the operator; None without a limit."""
        self.max_batch: int | None = None
        """Largest number of calls in a request that the endpoint accepts; None: no limit is known."""

    def __repr__(self) -> str:
        return f"EndpointProvider({self.name})"

    __str__ = __repr__

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("an endpoint cannot be pickled or copied: its URL is a secret")

    def batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        """See Transport. Reads are split into several requests if the endpoint refuses their
        number; the size that it accepts is remembered.
        """
        if not calls:
            return []
        if not all(is_read(method) for method, _ in calls):
            try:
                return self._send_batch(calls)
            except BatchRefused as refusal:
                raise refusal.error from None
        size = min(self.max_batch or len(calls), len(calls))
        while True:
            parts = [calls[start : start + size] for start in range(0, len(calls), size)]
            try:
                answers = [
                    answer for part in parts for answer in self._retrying(self._send_batch, part)
                ]
            except BatchRefused as refusal:
                size = refusal.limit
                continue
            if size < len(calls):
                self.max_batch = size
            return answers

    def _send_batch(self, calls: Sequence[RpcCall]) -> list[Any]:
        request_ids = [next(self.request_counter) for _ in calls]
        batch = [
            {"jsonrpc": "2.0", "id": request_id, "method": method, "params": params}
            for request_id, (method, params) in zip(request_ids, calls, strict=True)
        ]
        request_body = json.dumps(batch if len(batch) > 1 else batch[0]).encode()
        self._await_turn(calls)
        self.request_count += 1
        status, answer_body, retry_after = self._post(request_body)
        if status == requests.codes.ok:
            parsed_body = self._parse(answer_body)
        else:
            parsed_body = self._read_refusal(status, answer_body, retry_after, len(batch))
        self._raise_if_whole_refused(parsed_body, len(batch))
        return self._match_ids(parsed_body, request_ids)

    def _await_turn(self, calls: Sequence[RpcCall]) -> None:
        """Wait for the turn of a request. What sends a transaction takes its turn and does not wait."""
        if self.call_budget is None:
            return
        wait_s = waiting_time_s(self.call_budget.take(len(calls)))
        if wait_s > 0 and all(is_read(method) for method, _ in calls):
            self._sleep(wait_s)

    def _post(self, request_body: bytes) -> tuple[int, bytes, str | None]:
        """Return the HTTP status, the body, and the header Retry-After of the answer. Errors are raised
        outside the exception handlers, since tracebacks of the libraries would show the URL.
        """
        deadline_s = time.monotonic() + self._timeout_s
        defect_text = ""
        failure_text = None
        post = self._request_session_manager.get_response_from_post_request
        try:
            with post(self._url, data=request_body, **self.get_request_kwargs()) as response:
                status = response.status_code
                retry_after = response.headers.get("Retry-After")
                answer_body = read_body(response, self._max_response_bytes, deadline_s)
        except requests.Timeout:
            failure_text = f"{self.name} did not answer within {self._timeout_s:g} s"
        except requests.ConnectionError:
            failure_text = f"{self.name} cannot be reached"
        except Exception as error:
            failure_text = f"{self.name} closed the connection during its answer"
            is_network_error = isinstance(error, requests.RequestException | OSError)
            if not is_network_error and not type(error).__module__.startswith("urllib3"):
                defect_text = f"a request to {self.name} failed: {type(error).__name__}"
        if defect_text:
            raise RuntimeError(defect_text)
        if failure_text is not None:
            raise Retryable(
                failure_text,
                "check the connection and the endpoint, or configure a second one",
                code=ErrorCode.UNREACHABLE,
            )
        if answer_body is None:
            raise Retryable(
                f"{self.name} took longer than {self._timeout_s:g} s or sent more than"
                f" {self._max_response_bytes} bytes",
                code=ErrorCode.TIMEOUT,
            )
        return status, answer_body, retry_after

    def _read_refusal(
        self, status: int, answer_body: bytes, retry_after: str | None, call_count: int
    ) -> object:
        """Return the JSON-RPC answer that came with an HTTP status other than 200. Raises the error
        of the status if there is none, or if the endpoint asks for a pause.
        """
        parsed_body = _parsed_json(answer_body)
        fault = self._whole_fault(parsed_body, call_count)
        error = self._status_error(status, "" if fault is None else fault.message, retry_after)
        limit = 0 if fault is None else smaller_batch(fault, call_count)
        if status == requests.codes.request_entity_too_large and call_count > 1:
            limit = limit or call_count // 2
        if limit:
            raise BatchRefused(limit, error)
        must_name_calls = status in _RETRY_STATUS or status in _ACCESS_STATUS
        if status == requests.codes.too_many_requests or not _is_rpc_answer(
            parsed_body, must_name_calls=must_name_calls
        ):
            raise error
        return parsed_body

    def _status_error(
        self, status: int, message: str, retry_after: str | None
    ) -> EndpointOverloaded | PassingFault:
        pause_s = None
        reason = f": {message}" if message else ""
        if status in _RETRY_AFTER_STATUS:
            pause_s = retry_after_s(retry_after, self._wall_clock())
        if status == requests.codes.too_many_requests:
            return EndpointOverloaded(
                f"{self.name} is rate limiting (HTTP 429){reason}",
                "send fewer requests, or use a plan that permits more",
                pause_s,
                code=ErrorCode.RATE_LIMIT,
            )
        if status in _RETRY_STATUS:
            return EndpointOverloaded(
                f"{self.name} failed (HTTP {status}){reason}",
                "it may be overloaded; try again, or configure a second endpoint",
                pause_s,
                code=ErrorCode.ENDPOINT,
            )
        return PassingFault(
            f"{self.name} refused the request (HTTP {status}){reason}",
            "check its url and access key in [[chain.rpc]]",
            code=ErrorCode.ACCESS,
        )

    def _whole_fault(self, parsed_body: object, call_count: int) -> RpcFault | None:
        """Return the error of a whole request: an object's, that of a list in which no call has a
        result, or that of a call whose answer made the whole too large; None without one.
        """
        answers = parsed_body if isinstance(parsed_body, list) else [parsed_body]
        faults = [
            self._fault(error)
            for answer in answers
            if isinstance(answer, dict) and (error := answer.get("error") or answer.get("message"))
        ]
        if isinstance(parsed_body, list) and len(faults) == call_count == 1:
            return None
        if not isinstance(parsed_body, list) or len(faults) == len(answers):
            return next(iter(faults), None)
        return next((fault for fault in faults if fault.code == RESPONSE_TOO_LARGE_CODE), None)

    def _parse(self, answer_body: bytes) -> object:
        parsed_body = _parsed_json(answer_body)
        if parsed_body is not None or answer_body.strip() == b"null":
            return parsed_body
        if answer_body.lstrip()[:1] == b"<":
            raise PassingFault(
                f"{self.name} answers with a web page, not JSON-RPC",
                "check its url in [[chain.rpc]]",
                code=ErrorCode.NOT_JSON,
            )
        raise Retryable(
            f"{self.name} sent {len(answer_body)} bytes that are not JSON",
            "the answer was cut off, or the endpoint is not a node; check its url",
            code=ErrorCode.NOT_JSON,
        )

    def _match_ids(self, parsed_body: object, request_ids: list[int]) -> list[object]:
        answers = parsed_body if isinstance(parsed_body, list) else [parsed_body]
        answer_by_id: dict[int, object] = {}
        for answer in answers:
            request_id = json_field(answer, "id")
            if (
                not isinstance(answer, dict)
                or isinstance(request_id, bool)
                or not isinstance(request_id, int)
                or request_id in answer_by_id
            ):
                raise Retryable(
                    f"{self.name} sent an answer without a valid id", code=ErrorCode.ANSWER
                )
            if "error" in answer and answer["error"] is not None:
                answer_by_id[request_id] = self._fault(answer["error"])
            elif "result" in answer:
                answer_by_id[request_id] = answer["result"]
            else:
                raise Retryable(
                    f"{self.name} sent an answer with neither result nor error",
                    code=ErrorCode.ANSWER,
                )
        if set(answer_by_id) != set(request_ids):
            raise Retryable(
                f"{self.name} returned answers to other requests (ids do not match)",
                code=ErrorCode.ANSWER,
            )
        return [answer_by_id[request_number] for request_number in request_ids]

    def _raise_if_whole_refused(self, parsed_body: object, call_count: int) -> None:
        """Raise BatchRefused if the endpoint refused the number of calls, Retryable if it refused
        them together for another reason.
        """
        fault = self._whole_fault(parsed_body, call_count)
        if fault is None:
            return
        error = Retryable(
            f"{self.name} refused the whole {'batch' if call_count > 1 else 'request'}:"
            f" {fault.message}",
            "the endpoint must support JSON-RPC batches" if call_count > 1 else "",
            code=ErrorCode.BATCH if call_count > 1 else ErrorCode.ANSWER,
        )
        if limit := smaller_batch(fault, call_count):
            raise BatchRefused(limit, error)
        names_call = call_count == 1 and isinstance(json_field(parsed_body, "id"), int)
        if isinstance(parsed_body, dict) and not names_call:
            raise error

    def _fault(self, error: object) -> RpcFault:
        return parse_fault(error, [self._url, *secret_parts(self._url)])


def _parsed_json(json_bytes: bytes) -> object:
    """Return the parsed JSON; None if it is not JSON, or nested deeper than any valid answer: the
    parser recurses, and enough brackets would crash the process.
    """
    with suppress(ValueError):
        json_text = json_bytes.decode("utf-8-sig")
        if not is_nested_deeper(json_text, _MAX_DEPTH):
            parsed_body: object = json.loads(json_text)
            return parsed_body
    return None


def _is_rpc_answer(parsed_body: object, *, must_name_calls: bool) -> bool:
    """Return whether a body is an answer by JSON-RPC, not another server's error as JSON; with
    `must_name_calls` only if each part has the id of a call.
    """
    answers = parsed_body if isinstance(parsed_body, list) else [parsed_body]
    return bool(answers) and all(
        isinstance(answer, dict)
        and (isinstance(answer.get("error"), dict) or "result" in answer)
        and (isinstance(answer.get("id"), int) or not must_name_calls)
        for answer in answers
    )


def retry_after_s(header: str | None, now_s: float) -> float | None:
    """Return the seconds of a Retry-After header, at most a day: a number, or an HTTP date against
    `now_s` (RFC 9110, 10.2.3). None for a missing or invalid header.
    """
    if header is None or len(header) > _MAX_HEADER_CHARS:
        return None
    header_text = header.strip()
    if header_text.isascii() and header_text.isdigit():
        return min(float(header_text), DAY_S)
    try:
        date = parsedate_to_datetime(header_text)
        if date.tzinfo is None:  # no zone, or -0000
            date = date.replace(tzinfo=UTC)
        return min(max(date.timestamp() - now_s, 0.0), DAY_S)
    except (ValueError, OverflowError, OSError):
        return None


def _may_retry(error: BaseException) -> bool:
    requested_pause_s = _requested_pause_s(error)
    return isinstance(error, Retryable) and (
        requested_pause_s is None or requested_pause_s <= _LONGEST_WAIT_S
    )


def _pause_s(retry_state: RetryCallState) -> float:
    """Return a random, growing pause that is at least as long as the endpoint requested."""
    error = None if retry_state.outcome is None else retry_state.outcome.exception()
    return max(_BACKOFF(retry_state), _requested_pause_s(error) or 0.0)


def _requested_pause_s(error: BaseException | None) -> float | None:
    return error.retry_after_s if isinstance(error, EndpointOverloaded) else None


def is_read(method: str) -> bool:
    """Return whether the method is known to be a read, so that it may be repeated."""
    return method in _READ_METHODS or method.startswith("eth_get")


def _host(url: str) -> str | None:
    """Return the host of the URL, without user, path or query, and with its port only on this
    machine, where no other part tells endpoints apart; None if it is not an http(s) URL.
    """
    try:
        url_parts = urlsplit(url)
        is_usable = (
            url_parts.scheme in ("http", "https")
            and bool(url_parts.hostname)
            and (url_parts.port is None or url_parts.port > 0)
        )
        if not is_usable or url_parts.hostname not in LOOPBACK_HOSTS or url_parts.port is None:
            return url_parts.hostname if is_usable else None
        host = f"[{url_parts.hostname}]" if ":" in url_parts.hostname else url_parts.hostname
        return f"{host}:{url_parts.port}"
    except ValueError:
        return None
