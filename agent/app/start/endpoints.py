"""Endpoint health: probe endpoints for the doctor, and report their records for every command."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.app.documents.fields import fill
from agent.app.documents.plans import EndpointDocument
from agent.chain.endpoints import Endpoint, EndpointPool, operators_of
from agent.chain.quorum import common_height, height_disagreement, quorum_size
from agent.config.schema import ChainTable
from agent.errors import EXIT_OPERATOR, EXIT_REFUSED, EXIT_RETRYABLE, TrimtabError
from agent.model import Snapshot

if TYPE_CHECKING:
    from agent.app.documents.setup import ProbedEndpointDocument

MAX_CLOCK_SKEW_S = 30


@dataclass(frozen=True, slots=True)
class EndpointProbe:
    """One endpoint's answer: `head` is None if it failed or `lags`, then with reason, remedy and exit code."""

    endpoint: Endpoint
    head: int | None
    found: str
    remedy: str = ""
    exit: int = EXIT_REFUSED
    lags: bool = False


def probe_endpoints(endpoints: Sequence[Endpoint], chain: ChainTable, now_s: Callable[[], float]) -> list[EndpointProbe]:
    """Read chain id and head of each endpoint; mark those too far behind."""
    found = [_one(endpoint, chain.chain_id, now_s) for endpoint in endpoints]
    newest = {one.endpoint: one.head for one in found if one.head is not None}
    if len(operators_of(newest)) < chain.min_operators:
        return found
    endpoint_pool = EndpointPool(endpoints, chain.min_operators, max_lag_blocks=chain.max_lag_blocks)
    height_disagreement(endpoint_pool, newest, common_height(newest, chain.min_operators))
    return [_behind(one) for one in found]


def has_enough_operators(probes: Sequence[EndpointProbe], min_operators: int) -> bool:
    """True if enough operators have a working endpoint; a lagging endpoint counts among those to
    outvote.
    """
    answer = operators_of(one.endpoint for one in probes if one.head is not None or one.lags)
    return len(operators_of(one.endpoint for one in probes if one.head is not None)) >= quorum_size(len(answer), min_operators)


def endpoint_records(endpoint_pool: EndpointPool) -> list[EndpointDocument]:
    """Return state, score from 0 to 1, mean time and last problem of each endpoint in this process."""
    return [fill(EndpointDocument, found, operator=operator) for operator, found in endpoint_pool.endpoint_states()]


def report(probes: Sequence[EndpointProbe]) -> list[ProbedEndpointDocument]:
    """Records for the doctor, with each endpoint's head (None if it has none)."""
    return [{**endpoint_records(EndpointPool([one.endpoint], 1))[0], "head": one.head} for one in probes]


def outvoted_endpoints(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Yield operator and reason of each endpoint that was excluded from a snapshot."""
    yield from ((item.address, item.why) for item in snapshot.quarantined if item.item == "endpoint")


def _one(endpoint: Endpoint, chain_id: int, now_s: Callable[[], float]) -> EndpointProbe:
    try:
        started = time.monotonic()
        found = int(endpoint.call("eth_chainId", []), 16)
        took_ms = (time.monotonic() - started) * 1000
        block = endpoint.call("eth_getBlockByNumber", ["latest", False])
        head, head_s = int(block["number"], 16), int(block["timestamp"], 16)
    except TrimtabError as error:
        return EndpointProbe(endpoint, None, error.message, error.remedy or "check the URL and the network", error.exit_code)
    except (TypeError, ValueError, KeyError):
        return EndpointProbe(endpoint, None, "answers unlike a node", "check its URL", EXIT_OPERATOR)
    if found != chain_id:
        why = f"chain {found}, the config says {chain_id}"
        return EndpointProbe(endpoint, None, why, "correct chain.chain_id or the endpoint", EXIT_OPERATOR)
    skew_s = head_s - int(now_s())
    if skew_s > MAX_CLOCK_SKEW_S:
        return EndpointProbe(endpoint, None, f"its head is {skew_s} s in the future", "set this machine's clock (NTP)")
    return EndpointProbe(endpoint, head, f"chain {found}, {took_ms:.0f} ms, head {head}, {-skew_s} s old")


def _behind(one: EndpointProbe) -> EndpointProbe:
    if one.head is None or not one.endpoint.health.lagging:
        return one
    why = one.endpoint.health.state.why
    return EndpointProbe(one.endpoint, None, f"{one.found}: {why}", "ask its operator, or replace it", EXIT_RETRYABLE, lags=True)
