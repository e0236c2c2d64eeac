"""Aggregators and their HTTP interfaces: what each would pay for a sale. They learn tokens and
amounts, and no wallet. An answer is untrusted: its tokens and amount must be those of the question.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

import requests

from agent.chain.providers.sessions import open_session, read_body
from agent.codec import json_field
from agent.foreign_text import failure_words, read_json
from agent.units import mul_div_down

TIMEOUT_S = 4.0
"""Longest wait for all answers together."""
MAX_ANSWER_BYTES = 2**20
NO_WALLET = "0x" + "0" * 40
"""Stands for the trader where a service requires one; CoW then simulates with a random address."""
ServiceRequest = tuple[str, object, Mapping[str, str]]
"""Path with query, body (None: GET), and headers beside those of every request."""


@dataclass(frozen=True, slots=True)
class Sale:
    """A question: `sold_raw` base units of the token `sold_token`, for the token `bought_token`."""

    sold_token: str
    bought_token: str
    sold_raw: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """An answer: for `sold_raw` base units of `sold_token`, `bought_raw` base units of
    `bought_token`, before gas.
    """

    sold_token: object
    sold_raw: int
    bought_token: object
    bought_raw: int


@dataclass(frozen=True, slots=True)
class Aggregator:
    """An aggregator: its name, its published address, its names of chains by chain id, the request
    about a sale (from the chain's name and the key), and the reading of an answer, which raises
    ValueError.
    """

    label: str
    url: str
    chain_name_by_id: Mapping[int, str]
    build_request: Callable[[str, Sale, str], ServiceRequest]
    read_offer: Callable[[object], Offer]
    needs_key: bool = False


def _amount_raw(answer_object: object, field_name: str) -> int:
    """Return an amount of base units, which all services write as text."""
    amount_text = json_field(answer_object, field_name)
    if not isinstance(amount_text, str) or not re.fullmatch("[0-9]{1,78}", amount_text):
        raise ValueError(f"{field_name} is not a whole number of base units")
    return int(amount_text)


def _zero_x_request(chain_name: str, sale: Sale, api_key: str) -> ServiceRequest:
    """Indicative price of Swap API v2 (0x.org/docs/api)."""
    query = {
        "chainId": chain_name,
        "sellToken": sale.sold_token,
        "buyToken": sale.bought_token,
        "sellAmount": sale.sold_raw,
    }
    headers = {"0x-api-key": api_key, "0x-version": "v2"}
    return f"/swap/allowance-holder/price?{urlencode(query)}", None, headers


def _read_zero_x(answer: object) -> Offer:
    if isinstance(answer, dict) and "buyAmount" not in answer:
        raise ValueError("it has no route")
    sold_token = json_field(answer, "sellToken")
    bought_token = json_field(answer, "buyToken")
    return Offer(
        sold_token=sold_token,
        sold_raw=_amount_raw(answer, "sellAmount"),
        bought_token=bought_token,
        bought_raw=_amount_raw(answer, "buyAmount"),
    )


def _kyberswap_request(chain_name: str, sale: Sale, _: str) -> ServiceRequest:
    """Route of Aggregator API v1 (docs.kyberswap.com)."""
    query = {"tokenIn": sale.sold_token, "tokenOut": sale.bought_token, "amountIn": sale.sold_raw}
    return f"/{chain_name}/api/v1/routes?{urlencode(query)}", None, {"x-client-id": "trimtab"}


def _read_kyberswap(answer: object) -> Offer:
    route = json_field(json_field(answer, "data"), "routeSummary")
    sold_token = json_field(route, "tokenIn")
    bought_token = json_field(route, "tokenOut")
    return Offer(
        sold_token=sold_token,
        sold_raw=_amount_raw(route, "amountIn"),
        bought_token=bought_token,
        bought_raw=_amount_raw(route, "amountOut"),
    )


def _cow_request(chain_name: str, sale: Sale, _: str) -> ServiceRequest:
    """Quote of the order book (docs.cow.fi, @cowprotocol/sdk-order-book)."""
    body = {
        "sellToken": sale.sold_token,
        "buyToken": sale.bought_token,
        "from": NO_WALLET,
        "kind": "sell",
        "sellAmountBeforeFee": str(sale.sold_raw),
    }
    return f"/{chain_name}/api/v1/quote", body, {}


def _read_cow(answer: object) -> Offer:
    """Read a quote. `feeAmount` is gas, taken from the sale; without it the rest would pay in
    proportion.
    """
    quote = json_field(answer, "quote")
    sold_token = json_field(quote, "sellToken")
    bought_token = json_field(quote, "buyToken")
    traded_raw = _amount_raw(quote, "sellAmount")
    paid_raw = _amount_raw(quote, "buyAmount")
    sold_raw = traded_raw + _amount_raw(quote, "feeAmount")
    return Offer(
        sold_token=sold_token,
        sold_raw=sold_raw,
        bought_token=bought_token,
        bought_raw=mul_div_down(paid_raw, sold_raw, traded_raw) if traded_raw else 0,
    )


SERVICES = {
    "0x": Aggregator(
        "0x",
        "https://api.0x.org",
        {chain_id: str(chain_id) for chain_id in (1, 10, 56, 130, 137, 8453, 42161)},
        _zero_x_request,
        _read_zero_x,
        needs_key=True,
    ),
    "kyberswap": Aggregator(
        "KyberSwap",
        "https://aggregator-api.kyberswap.com",
        {
            1: "ethereum",
            10: "optimism",
            56: "bsc",
            130: "unichain",
            137: "polygon",
            8453: "base",
            42161: "arbitrum",
        },
        _kyberswap_request,
        _read_kyberswap,
    ),
    "cow": Aggregator(
        "CoW",
        "https://api.cow.fi",
        {1: "mainnet", 56: "bnb", 137: "polygon", 8453: "base", 42161: "arbitrum_one"},
        _cow_request,
        _read_cow,
    ),
}
"""Aggregators by their names in the config, with the chains that trimtab has data of."""


def ask_services(
    service_names: Sequence[str], api_key: str, chain_id: int, sales: Sequence[Sale]
) -> list[dict[str, int | str]]:
    """Return for each sale the base units that each service, by name, would pay before gas, or why
    that is unknown. Returns within TIMEOUT_S.
    """
    deadline_s = time.monotonic() + TIMEOUT_S
    answers: list[dict[str, int | str]] = [
        dict.fromkeys(service_names, f"no answer within {TIMEOUT_S:g} s") for _ in sales
    ]

    def ask_aggregator(service_name: str) -> None:
        for sale, answers_of_sale in zip(sales, answers, strict=True):
            if time.monotonic() < deadline_s:
                answers_of_sale[service_name] = _answer_of(
                    SERVICES[service_name], api_key, chain_id, sale, deadline_s
                )

    # A server may send single bytes for as long as it likes; a daemon delays neither us nor an exit.
    threads = [
        threading.Thread(target=ask_aggregator, args=(service_name,), daemon=True)
        for service_name in service_names
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline_s - time.monotonic()))
    return [dict(answers_of_sale) for answers_of_sale in answers]


def _open_session(url: str) -> requests.Session:
    """Return a session without credentials of the environment: only a key in the config is sent."""
    session = open_session(url)
    session.auth = None
    return session


def _answer_of(
    aggregator: Aggregator, api_key: str, chain_id: int, sale: Sale, deadline_s: float
) -> int | str:
    """Return the base units paid, or why they are unknown, in our words: neither the server's text
    nor the key is repeated.
    """
    if (chain_name := aggregator.chain_name_by_id.get(chain_id)) is None:
        return f"does not know chain {chain_id}"
    if aggregator.needs_key and not api_key:
        return "its key is not set"
    path, body, headers = aggregator.build_request(chain_name, sale, api_key)
    try:
        with (
            _open_session(aggregator.url) as session,
            session.request(
                "GET" if body is None else "POST",
                aggregator.url + path,
                data=None if body is None else json.dumps(body),
                headers=headers,
                timeout=TIMEOUT_S,
                allow_redirects=False,
                stream=True,
            ) as response,
        ):
            if response.status_code != requests.codes.ok:
                return f"HTTP {response.status_code}"
            answer_bytes = read_body(response, MAX_ANSWER_BYTES, deadline_s)
    except Exception as error:  # also those of urllib3, idna and the encoding of headers
        return failure_words(error)
    if answer_bytes is None:
        return "its answer is too long or too slow"
    try:
        answer = read_json(answer_bytes.decode())
    except ValueError:
        return "odd answer: no JSON"
    try:
        offer = aggregator.read_offer(answer)
    except ValueError as error:
        return f"odd answer: {error}"
    answered_tokens = [str(token).lower() for token in (offer.sold_token, offer.bought_token)]
    if answered_tokens != [sale.sold_token.lower(), sale.bought_token.lower()]:
        return "odd answer: other tokens"
    if offer.sold_raw != sale.sold_raw:
        return "odd answer: another amount"
    return offer.bought_raw or "odd answer: it pays nothing"
