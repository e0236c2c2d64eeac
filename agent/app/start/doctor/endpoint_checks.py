"""Endpoints: probes of the doctor, and the records that every command can show."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.app.documents import fill
from agent.app.documents.plans import EndpointDocument
from agent.chain.chain_time import MAX_NEWEST_AGE_S
from agent.chain.endpoints import Endpoint, EndpointPool, EndpointState, operators_of
from agent.chain.quorum import check_heights, common_height, quorum_size
from agent.chain.rpc import RpcFault, block_ref_at_hash
from agent.config.tables.chain import ChainTable
from agent.errors import EXIT_OPERATOR, EXIT_REFUSED, EXIT_RETRYABLE, TrimtabError
from agent.model import MAX_BLOCK_LEAD_S, Snapshot
from agent.units import rough_duration

if TYPE_CHECKING:
    from agent.app.documents.owner import ProbedEndpointDocument

DOUBTFUL_CLOCK_SKEW_S = 5
"""Seconds from which on a head ahead of this machine's clock shows that the clock is slow."""
OLD_HEAD_S = MAX_NEWEST_AGE_S + DOUBTFUL_CLOCK_SKEW_S
"""Age of a head from which on the endpoint lags, or the clock is fast."""
PROBED_CALLS = 40
"""Calls of the request that finds an endpoint's limit; a step's largest has about as many."""
_INVALID_PARAMS_CODE = -32602
"""Code of a call with invalid parameters (JSON-RPC 2.0, section 5.1)."""
_INVALID_PARAMS_PHRASES = ("unmarshal", "invalid argument", "invalid param", "not a string")
_NO_OWNER = "0x0000000000000000000000000000000000000000"


@dataclass(frozen=True, slots=True)
class EndpointProbe:
    """Answer of one endpoint. `head_number` is None if it failed or `is_lagging`; `finding` is then
    the reason. `head_s` is the timestamp of `head_number`; `warnings` are limits of the endpoint
    and doubts about the clock, each with its remedy.
    """

    endpoint: Endpoint
    head_number: int | None
    finding: str
    remedy: str = ""
    exit_code: int = EXIT_REFUSED
    is_lagging: bool = False
    head_s: int = 0
    warnings: tuple[tuple[str, str], ...] = ()


def probe_endpoints(
    endpoints: Sequence[Endpoint], chain: ChainTable, now_s: Callable[[], float]
) -> list[EndpointProbe]:
    """Read chain id and head of each endpoint; mark those that lag behind the others."""
    probes = [
        _probe(endpoint, chain.chain_id, now_s, is_local=chain.is_local) for endpoint in endpoints
    ]
    head_by_endpoint = {
        probe.endpoint: probe.head_number for probe in probes if probe.head_number is not None
    }
    if len(operators_of(head_by_endpoint)) < chain.min_operators:
        return probes
    endpoint_pool = EndpointPool(
        endpoints, chain.min_operators, max_lag_blocks=chain.max_lag_blocks, now_s=now_s
    )
    quorum_height = common_height(head_by_endpoint, chain.min_operators)
    head_s = min(probe.head_s for probe in probes if probe.head_number == quorum_height)
    # records the lag in each endpoint's health
    check_heights(endpoint_pool, head_by_endpoint, quorum_height, head_s)
    return [_marked_if_lagging(probe) for probe in probes]


def has_enough_operators(probes: Sequence[EndpointProbe], min_operators: int) -> bool:
    """Return whether the operators with a working endpoint are a quorum of all that answer,
    including lagging ones.
    """
    working_operators = operators_of(
        probe.endpoint for probe in probes if probe.head_number is not None
    )
    answering_operators = operators_of(
        probe.endpoint for probe in probes if probe.head_number is not None or probe.is_lagging
    )
    return len(working_operators) >= quorum_size(len(answering_operators), min_operators)


def endpoint_records(endpoint_pool: EndpointPool) -> list[EndpointDocument]:
    """Return state, score from 0 to 1, latency and last problem of each endpoint in this
    process.
    """
    return [
        _endpoint_document(operator, endpoint_state)
        for operator, endpoint_state in endpoint_pool.endpoint_states()
    ]


def probed_endpoint_documents(probes: Sequence[EndpointProbe]) -> list[ProbedEndpointDocument]:
    """Return the records of the probed endpoints with their heads."""
    return [
        {
            **_endpoint_document(probe.endpoint.operator, probe.endpoint.health.state),
            "head": probe.head_number,
        }
        for probe in probes
    ]


def _endpoint_document(operator: str, endpoint_state: EndpointState) -> EndpointDocument:
    return fill(EndpointDocument, endpoint_state, operator=operator)


def outvoted_endpoints(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Yield each endpoint that the quorum excluded from a snapshot: its operator, and why."""
    yield from (
        (unreadable_item.address, unreadable_item.why)
        for unreadable_item in snapshot.unreadable_items
        if unreadable_item.subject == "endpoint"
    )


def _probe(
    endpoint: Endpoint, chain_id: int, now_s: Callable[[], float], *, is_local: bool
) -> EndpointProbe:
    """Return the answer of an endpoint of the chain `chain_id`."""
    try:
        return _read_probe(endpoint, chain_id, now_s, is_local=is_local)
    except TrimtabError as error:
        return EndpointProbe(
            endpoint,
            None,
            error.message,
            error.remedy or "check the URL and the network",
            error.exit_code,
        )
    except (TypeError, ValueError, KeyError):
        return EndpointProbe(
            endpoint, None, "is not a node's JSON-RPC endpoint", "check its URL", EXIT_OPERATOR
        )


def _read_probe(
    endpoint: Endpoint, chain_id: int, now_s: Callable[[], float], *, is_local: bool
) -> EndpointProbe:
    started_s = time.monotonic()
    answered_chain_id = int(endpoint.call("eth_chainId", []), 16)
    latency_ms = (time.monotonic() - started_s) * 1000
    head_block = endpoint.call("eth_getBlockByNumber", ["latest", False])
    head = int(head_block["number"], 16)
    head_s = int(head_block["timestamp"], 16)
    if answered_chain_id != chain_id:
        mismatch_text = f"chain {answered_chain_id}, but chain.chain_id is {chain_id}"
        return EndpointProbe(
            endpoint, None, mismatch_text, "correct chain.chain_id or the endpoint", EXIT_OPERATOR
        )
    ahead_s = head_s - int(now_s())
    if ahead_s > MAX_BLOCK_LEAD_S:
        return EndpointProbe(
            endpoint,
            None,
            f"its head is {rough_duration(ahead_s)} in the future",
            "set this machine's clock (NTP)",
        )
    if not _reads_by_hash(endpoint, str(head_block["hash"])):
        return EndpointProbe(
            endpoint,
            None,
            "does not read at a block's hash (EIP-1898)",
            "use another endpoint: a step reads all at one block",
            EXIT_OPERATOR,
        )
    age_text = f"{rough_duration(abs(ahead_s))} {'ahead of this clock' if ahead_s > 0 else 'old'}"
    return EndpointProbe(
        endpoint,
        head,
        f"chain {answered_chain_id}, {latency_ms:.0f} ms, head {head}, {age_text}",
        head_s=head_s,
        warnings=(*_clock_warnings(ahead_s, is_local=is_local), *_batch_warnings(endpoint)),
    )


def _reads_by_hash(endpoint: Endpoint, block_hash: str) -> bool:
    """Return whether an endpoint takes a block's hash as a parameter (EIP-1898). A node that takes
    it may not know the block yet.
    """
    params = [_NO_OWNER, block_ref_at_hash(block_hash)]
    (answer,) = endpoint.batch([("eth_getBalance", params)])
    return not isinstance(answer, RpcFault) or (
        answer.code != _INVALID_PARAMS_CODE
        and not any(phrase in answer.message.lower() for phrase in _INVALID_PARAMS_PHRASES)
    )


def _clock_warnings(ahead_s: int, *, is_local: bool) -> Iterator[tuple[str, str]]:
    """Yield a doubt about this machine's clock by the head, which is `ahead_s` ahead of it. The time
    of a local chain is its own and says nothing about the clock: the chain may rest, and each of
    its blocks is at least a second later than the one before, however fast they are mined.
    """
    if is_local:
        return
    remedy = "set this machine's clock (NTP)"
    if ahead_s >= DOUBTFUL_CLOCK_SKEW_S:
        yield f"this machine's clock is at least {rough_duration(ahead_s)} slow", remedy
    if -ahead_s >= OLD_HEAD_S:
        age_text = rough_duration(-ahead_s)
        yield f"its head is {age_text} old: it lags, or this machine's clock is fast", remedy


def _batch_warnings(endpoint: Endpoint) -> Iterator[tuple[str, str]]:
    """Yield the limit of an endpoint that does not take PROBED_CALLS calls in a request."""
    try:
        endpoint.batch([("eth_chainId", [])] * PROBED_CALLS)
    except TrimtabError as error:
        yield f"refuses {PROBED_CALLS} calls in a request: {error.message}", error.remedy
    if endpoint.max_batch is not None:
        yield (
            f"takes at most {endpoint.max_batch} calls in a request; larger ones are split",
            "use a plan or an endpoint without this limit to read in two requests",
        )


def _marked_if_lagging(probe: EndpointProbe) -> EndpointProbe:
    if probe.head_number is None or not probe.endpoint.health.is_lagging:
        return probe
    return EndpointProbe(
        probe.endpoint,
        None,
        f"{probe.finding}: {probe.endpoint.health.state.last_failure}",
        "ask its operator, or replace it",
        EXIT_RETRYABLE,
        is_lagging=True,
    )
