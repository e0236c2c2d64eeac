"""Requests to Hyperliquid over HTTP: within the venue's budget of weight, and actions at most once.
Requests are our own, because the venue's library takes floats, chooses the network by the address,
and has no timeouts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NoReturn
from urllib.parse import urlsplit

import requests

from agent.chain.providers.secrets import secret_parts
from agent.chain.providers.sessions import open_session, read_body
from agent.chain.rpc import scrub
from agent.errors import ConfigError, ErrorCode, Retryable
from agent.foreign_text import failure_words, read_json
from agent.venues.hyperliquid.budget import (
    RESERVED_WEIGHT,
    RequestBudget,
    answer_weight,
    request_weight,
)

IS_MAINNET_BY_HOST = {"api.hyperliquid.xyz": True, "api.hyperliquid-testnet.xyz": False}
"""Published hosts: True for mainnet."""
MAX_ANSWER_BYTES = 16 * 1024 * 1024
LIMITED_PAUSES_S = (1, 2, 4, 8, 15, 31)
"""Pauses after answers with status 429, seconds: a minute in all, after which the venue's budget is
whole again.
"""
FAULT_PAUSES_S = (1, 2)
"""Pauses after a server's error in answer to a read, seconds."""
USED_UP = "the venue's budget of requests is used up"
SIDE_READS_WEIGHT = 200
"""Weight of the side reads of a look with several markets."""
SIDE_READS_S = 4.0
"""Longest time that the reads which can wait take together in one look, seconds."""


class _NoAnswer(Exception):
    """Raised if a request that may have arrived has no answer that can be read."""

    def __init__(self, problem: str, http_status: int = 0) -> None:
        super().__init__(problem)
        self.http_status = http_status


class HyperliquidConnection:
    """Requests to /info and /exchange of one venue. Reads may be repeated; actions are never sent
    twice, except by the same bytes after the answer that the venue took none (status 429).
    """

    def __init__(
        self,
        url: str,
        *,
        is_mainnet: bool,
        timeout_s: float,
        budget: RequestBudget | None = None,
    ) -> None:
        """Set the venue's address. Without `budget` requests are neither counted nor repeated."""
        url_parts = urlsplit(url)
        if url_parts.scheme not in ("http", "https") or not url_parts.hostname:
            raise ConfigError("hyperliquid: the url is not an http or https address")
        if IS_MAINNET_BY_HOST.get(url_parts.hostname, is_mainnet) is not is_mainnet:
            raise ConfigError(
                f"hyperliquid: {url_parts.hostname} is not the {network_name(is_mainnet)}",
                "change the url or the network",
            )
        self._url = url.rstrip("/")
        self._session = open_session(url)
        self._timeout_s = timeout_s
        self._budget = budget
        self._side_reads_end_s = 0.0
        self._has_left_out_reads = False
        self._may_wait = True
        self.is_mainnet = is_mainnet

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a connection cannot be pickled or copied: its URL is a secret")

    def info(self, **request_fields: object) -> object:
        """Return the answer to a read. While the venue limits requests it waits, for a minute at
        most, unless the reads are prompt. Raises Retryable.
        """
        pauses_s = {True: list(LIMITED_PAUSES_S), False: list(FAULT_PAUSES_S)}
        if not self._may_wait and self._is_used_up(request_weight("info", request_fields)):
            self._has_left_out_reads = True
            raise _no_read_error(request_fields, USED_UP)
        while True:
            try:
                return self._request_answer("info", request_fields, self._timeout_s)
            except _NoAnswer as error:
                problem = str(error)
                http_status = error.http_status
            is_limited = http_status == requests.codes.too_many_requests
            is_passing = is_limited or http_status >= requests.codes.server_error
            if self._budget is None or not is_passing or not pauses_s[is_limited]:
                raise _no_read_error(request_fields, problem)
            if not self._may_wait:
                self._has_left_out_reads = True
                raise _no_read_error(request_fields, problem)
            self._budget.pause(pauses_s[is_limited].pop(0))

    @contextmanager
    def prompt_reads(self) -> Iterator[None]:
        """Leave out the reads that would have to wait for the venue, instead of waiting."""
        self._may_wait = False
        try:
            yield
        finally:
            self._may_wait = True

    @property
    def has_left_out_reads(self) -> bool:
        """True if the last look left out reads because the venue limits or fails them; a side read
        that fails does not count, because no look waits for it.
        """
        return self._has_left_out_reads

    def begin_side_reads(self) -> None:
        """Begin the time that the side reads of a look may take together."""
        self._side_reads_end_s = time.monotonic() + SIDE_READS_S
        self._has_left_out_reads = False

    def wait_for_look(self) -> None:
        """Wait until the budget allows a whole look, for a minute at most."""
        if self._budget is not None:
            self._budget.wait_for(RESERVED_WEIGHT + SIDE_READS_WEIGHT)

    def side_info(self, **request_fields: object) -> object:
        """Return the answer to a read whose last value will do for now. It neither waits nor is
        repeated, and leaves RESERVED_WEIGHT of the budget. Raises Retryable.
        """
        remaining_s = self._side_reads_end_s - time.monotonic()
        if remaining_s <= 0:
            raise _no_read_error(request_fields, "the reads before it took too long")
        if self._is_used_up(RESERVED_WEIGHT + request_weight("info", request_fields)):
            self._has_left_out_reads = True
            raise _no_read_error(request_fields, USED_UP)
        try:
            return self._request_answer("info", request_fields, min(remaining_s, self._timeout_s))
        except _NoAnswer as error:
            problem = str(error)
        raise _no_read_error(request_fields, problem)

    def exchange(self, signed_action: Mapping[str, object]) -> object:
        """Return the answer to a signed action. While the venue limits requests, which it says
        before it takes an action, the same bytes are posted again: by their nonce they can be
        carried out once. Without an answer in JSON raises Retryable with the code
        `unknown_if_sent`, whatever other HTTP status, because a gateway may set its own.
        """
        pauses_s = [] if self._budget is None else list(LIMITED_PAUSES_S)
        while True:
            try:
                answer = self._request_answer("exchange", signed_action, self._timeout_s)
                return _without_secrets(answer, secret_parts(self._url))
            except _NoAnswer as error:
                problem = str(error)
                http_status = error.http_status
            if (
                self._budget is None
                or http_status != requests.codes.too_many_requests
                or not pauses_s
            ):
                raise Retryable(
                    f"Hyperliquid did not answer an action: {problem}",
                    "query its outcome before anything is sent again",
                    code=ErrorCode.UNKNOWN_IF_SENT,
                )
            self._budget.pause(pauses_s.pop(0))

    def _is_used_up(self, weight: int) -> bool:
        """True if the budget leaves less than this weight now."""
        return self._budget is not None and self._budget.left() < weight

    def _request_answer(
        self, path: str, request_body: Mapping[str, object], timeout_s: float
    ) -> object:
        """Return the JSON of an answer with status 200, and count its weight."""
        if self._budget is not None:
            weight = request_weight(path, request_body)
            self._budget.wait_for(weight)
            self._budget.spend(weight)
        http_status, answer_body = self._post(f"{self._url}/{path}", request_body, timeout_s)
        if http_status != requests.codes.ok:
            raise _NoAnswer(f"HTTP {http_status}", http_status)
        answer = _parse_json(answer_body)
        if self._budget is not None and (rows_weight := answer_weight(request_body, answer)):
            self._budget.spend(rows_weight)
        return answer

    def _post(
        self, url: str, request_body: Mapping[str, object], timeout_s: float
    ) -> tuple[int, bytes]:
        """Return status and body. Library errors are replaced outside their handlers, because their
        tracebacks would show the URL.
        """
        request_bytes = json.dumps(request_body).encode()
        deadline_s = time.monotonic() + timeout_s
        try:
            with self._session.post(
                url, data=request_bytes, timeout=timeout_s, stream=True, allow_redirects=False
            ) as response:
                if (answer_body := read_body(response, MAX_ANSWER_BYTES, deadline_s)) is not None:
                    return response.status_code, answer_body
                problem = "the answer is too long or too slow"
        except Exception as error:
            problem = failure_words(error)
        raise _NoAnswer(problem)


def _without_secrets(answer: object, secrets: Sequence[str]) -> object:
    """Return an answer to an action whose error texts do not repeat the venue's address."""
    if isinstance(answer, str):
        return scrub(answer, secrets)
    if isinstance(answer, list):
        return [_without_secrets(entry, secrets) for entry in answer]
    if not isinstance(answer, Mapping):
        return answer
    return {
        key: _without_secrets(value, secrets)
        if isinstance(value, Mapping | list) or key == "error" or answer.get("status") == "err"
        else value
        for key, value in answer.items()
    }


def network_name(is_mainnet: bool) -> str:
    """Return the name of the network."""
    return "mainnet" if is_mainnet else "testnet"


def _no_read_error(request_fields: Mapping[str, object], problem: str) -> Retryable:
    return Retryable(
        f"Hyperliquid did not answer {request_fields.get('type')}: {problem}",
        "try again later",
        code=ErrorCode.ENDPOINT,
    )


def _parse_json(answer_body: bytes) -> object:
    try:
        answer_json: object = read_json(answer_body.decode())
    except ValueError:
        answer_json = None
    if answer_json is None:
        raise _NoAnswer("the answer is not JSON", requests.codes.ok)
    return answer_json
