"""`trimtab doctor`: check everything a run needs, with a remedy for each problem; changes nothing
but an empty store.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent import codec, wiring
from agent.app.describe import PRIVATE, submission, submission_text
from agent.app.documents import fill
from agent.app.documents.plans import EndpointDocument
from agent.app.documents.setup import CheckDocument
from agent.app.documents.status import least_total_now
from agent.app.start.setup import EMPTY_CODE, NO_CODE
from agent.chain.endpoints import Endpoint, EndpointPool, operators_of
from agent.chain.lens import DESCRIPTION, CallItem, LensItem, query_lens
from agent.chain.quorum import common_height, height_disagreement, quorum_size
from agent.chain.rpc import Transport
from agent.chain.tokens import initial_token_moves, symbol_text
from agent.config.limits import accepted_limits, needless_acceptances
from agent.config.load import LoadedConfig, key_source, keyring_backend, load_config
from agent.config.schema import ChainTable, Config
from agent.errors import (
    EXIT_OK,
    EXIT_OPERATOR,
    EXIT_REFUSED,
    EXIT_RETRYABLE,
    EXIT_USAGE,
    ConfigError,
    TrimtabError,
)
from agent.model import FeedRound, PriceSource, ScreenedToken, Snapshot, StepInput, schedules_of
from agent.policy import minimum, native_coin
from agent.policy.drift import compute_drifts, investable_total
from agent.reference import prices as means
from agent.reference import prices as rounds
from agent.reference import reference_prices, sequencer_fault
from agent.store.files.locks import require_private
from agent.units import decimal_text, price_text, safe_label
from agent.venues import composer

if TYPE_CHECKING:
    from agent.app.documents.setup import DoctorDocument, ProbedEndpointDocument


# --- Endpoint health: probe endpoints for the doctor, and report their records for every command.


MAX_CLOCK_SKEW_S = 30


@dataclass(frozen=True, slots=True)
class EndpointProbe:
    """One endpoint's answer: `head` is None if it failed or `lags`, then with reason, remedy and
    exit code.
    """

    endpoint: Endpoint
    head: int | None
    found: str
    remedy: str = ""
    exit: int = EXIT_REFUSED
    lags: bool = False


def probe_endpoints(
    endpoints: Sequence[Endpoint], chain: ChainTable, now_s: Callable[[], float]
) -> list[EndpointProbe]:
    """Read chain id and head of each endpoint; mark those too far behind."""
    found = [_one(endpoint, chain.chain_id, now_s) for endpoint in endpoints]
    newest = {one.endpoint: one.head for one in found if one.head is not None}
    if len(operators_of(newest)) < chain.min_operators:
        return found
    endpoint_pool = EndpointPool(
        endpoints, chain.min_operators, max_lag_blocks=chain.max_lag_blocks
    )
    height_disagreement(endpoint_pool, newest, common_height(newest, chain.min_operators))
    return [_behind(one) for one in found]


def has_enough_operators(probes: Sequence[EndpointProbe], min_operators: int) -> bool:
    """True if enough operators have a working endpoint; a lagging endpoint counts among those to
    outvote.
    """
    answer = operators_of(one.endpoint for one in probes if one.head is not None or one.lags)
    return len(operators_of(one.endpoint for one in probes if one.head is not None)) >= quorum_size(
        len(answer), min_operators
    )


def endpoint_records(endpoint_pool: EndpointPool) -> list[EndpointDocument]:
    """Return state, score from 0 to 1, mean time and last problem of each endpoint in this
    process.
    """
    return [
        fill(EndpointDocument, found, operator=operator)
        for operator, found in endpoint_pool.endpoint_states()
    ]


def report(probes: Sequence[EndpointProbe]) -> list[ProbedEndpointDocument]:
    """Records for the doctor, with each endpoint's head (None if it has none)."""
    return [
        {**endpoint_records(EndpointPool([one.endpoint], 1))[0], "head": one.head} for one in probes
    ]


def outvoted_endpoints(snapshot: Snapshot) -> Iterator[tuple[str, str]]:
    """Yield operator and reason of each endpoint that was excluded from a snapshot."""
    yield from (
        (item.address, item.why) for item in snapshot.quarantined if item.item == "endpoint"
    )


def _one(endpoint: Endpoint, chain_id: int, now_s: Callable[[], float]) -> EndpointProbe:
    try:
        started = time.monotonic()
        found = int(endpoint.call("eth_chainId", []), 16)
        took_ms = (time.monotonic() - started) * 1000
        block = endpoint.call("eth_getBlockByNumber", ["latest", False])
        head, head_s = int(block["number"], 16), int(block["timestamp"], 16)
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
            endpoint, None, "answers unlike a node", "check its URL", EXIT_OPERATOR
        )
    if found != chain_id:
        why = f"chain {found}, the config says {chain_id}"
        return EndpointProbe(
            endpoint, None, why, "correct chain.chain_id or the endpoint", EXIT_OPERATOR
        )
    skew_s = head_s - int(now_s())
    if skew_s > MAX_CLOCK_SKEW_S:
        return EndpointProbe(
            endpoint,
            None,
            f"its head is {skew_s} s in the future",
            "set this machine's clock (NTP)",
        )
    return EndpointProbe(
        endpoint, head, f"chain {found}, {took_ms:.0f} ms, head {head}, {-skew_s} s old"
    )


def _behind(one: EndpointProbe) -> EndpointProbe:
    if one.head is None or not one.endpoint.health.lagging:
        return one
    why = one.endpoint.health.state.why
    return EndpointProbe(
        one.endpoint,
        None,
        f"{one.found}: {why}",
        "ask its operator, or replace it",
        EXIT_RETRYABLE,
        lags=True,
    )


# --- Price checks of the doctor: the pair and bounds of each feed, validity of TWAPs, the rollup's
# sequencer.


CheckLine = tuple[str, str, str, str]
"""(check, state, finding, remedy)."""
OK, NOTE, FAIL = "ok", "warn", "fail"
_DESCRIPTION_BYTES = 160
_DOLLAR = "USD"
_UNKNOWN = "?"
UNBOUNDED = 2**95 - 1
"""Lowest "largest answer" that bounds nothing: aggregators without a bound return the maximum of
some type.
"""


def price_checks(context: wiring.AgentContext, step: StepInput) -> Iterator[CheckLine]:
    """Yield a row for each feed, for TWAPs, for the sequencer, and for triggers that a single block
    fires.
    """
    yield from _feeds(context, step)
    yield from _twap_checks(step)
    yield from _sequencer(step)
    yield from _unguarded(context, step)


def _unguarded(context: wiring.AgentContext, step: StepInput) -> Iterator[CheckLine]:
    """Yield trigger settings that an attacker could predict or manipulate within a block; none on
    local chains.
    """
    if context.config.chain.local:
        return
    if step.policy.confirm_blocks == 0:
        yield (
            "triggers",
            NOTE,
            "the prices of a single block fire them",
            "policy.confirm_blocks = 3",
        )
    if step.policy.jitter_bps == 0 and schedules_of(step.policy.trigger):
        yield (
            "schedule",
            NOTE,
            "anyone who knows it knows when the agent trades",
            'policy.jitter = "10%"',
        )


def _feeds(context: wiring.AgentContext, step: StepInput) -> Iterator[CheckLine]:
    tokens = {
        token.address: token.label
        for token in (*(a.token for a in context.portfolio.assets), *context.portfolio.hubs)
    }
    named = {
        label: feed
        for address, label in tokens.items()
        if (feed := context.portfolio.feed(address)) is not None
    }
    items: list[LensItem] = [
        CallItem(feed, DESCRIPTION, longest=_DESCRIPTION_BYTES) for feed in named.values()
    ]
    for (label, feed), answer in zip(named.items(), query_lens(context.line, items), strict=True):
        found = next((one for one in step.snapshot.feeds if one.feed == feed), None)
        if found is None:
            continue  # a quarantined token has its own row
        base, quote = _pair(symbol_text(answer))
        about = f"{base} / {quote}, {format_answer_bounds(found)}"
        unfit = rounds.feed_round_fault(step, found)
        if unfit:
            yield (
                f"feed {label}",
                FAIL,
                f"it {unfit}",
                "wait for its next round, or correct the feed",
            )
        elif quote != _DOLLAR or not _same(label, base):
            yield (
                f"feed {label}",
                NOTE,
                about,
                f"make sure that {feed} is a feed of {label} in dollars",
            )
        else:
            yield f"feed {label}", OK, about, ""


def _pair(description: str) -> tuple[str, str]:
    """Both sides of "ETH / USD"; unprintable text becomes a question mark (T17)."""
    base, _, quote = description.partition("/")
    return safe_label(base.strip(), _UNKNOWN), safe_label(quote.strip(), _UNKNOWN)


def _same(label: str, base: str) -> bool:
    """True if the label is the feed's base or its wrapped form: WETH for ETH, cbBTC for BTC."""
    return base != _UNKNOWN and label.upper().removesuffix(".E").endswith(base.upper())


def format_answer_bounds(found: FeedRound) -> str:
    """Format the bounds at which a feed's aggregator cuts off."""
    if found.min_answer is None or found.max_answer is None:
        return "it names no bounds"
    low = f"from {decimal_text(found.min_answer, found.decimals)}"
    return (
        f"{low} to {decimal_text(found.max_answer, found.decimals)}"
        if found.max_answer < UNBOUNDED
        else f"{low}, no upper bound"
    )


def _twap_checks(step: StepInput) -> Iterator[CheckLine]:
    if PriceSource.TWAP not in step.reference.kinds:
        return
    asked = [pool for pool in step.snapshot.pools if pool.keeps_observations]
    lacking = [
        f"{pool.address}: {why}" for pool in asked if (why := means.twap_rejection(step, pool))
    ]
    counted = f"those of {len(asked) - len(lacking)} of {len(asked)} V3 pools count"
    if lacking:
        more = f", and {len(lacking) - 1} more" if len(lacking) > 1 else ""
        yield "means", NOTE, f"{counted}; {lacking[0]}{more}", "trimtab oracle shows them all"
    else:
        yield "means", OK, counted, ""


def _sequencer(step: StepInput) -> Iterator[CheckLine]:
    if step.reference.sequencer_feed is None:
        return
    fault = sequencer_fault(step)
    yield (
        ("sequencer", FAIL, fault, "wait; nothing is traded until then")
        if fault
        else ("sequencer", OK, "up", "")
    )


# --- Screens of tokens without a plan, and quarantined tokens.


def screen_tokens(
    context: wiring.AgentContext, step: StepInput
) -> Iterator[tuple[str, ScreenedToken]]:
    """Yield label and screening result of each asset and hub that a pool can lend; pin mismatches
    first. Raises Retryable. The amount is the wallet's holding, or a hundredth of the deepest pool.
    """
    shut = {one.token: one for one in step.quarantine}
    tried = (
        context.screen.screen(step, initial_token_moves(step))
        if context.limits.token_screen
        else ()
    )
    for one in (*shut.values(), *(found for found in tried if found.token not in shut)):
        yield step.portfolio.token(one.token).label, one


CHECKUP_OK, CHECKUP_NOTE, CHECKUP_FAIL = "ok", "warn", "fail"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check: the finding and the remedy; `exit` is the exit code if it fails."""

    check: str
    state: str
    found: str
    remedy: str = ""
    exit: int = EXIT_REFUSED


def doctor(
    config: LoadedConfig | Path | str,
    transports: Sequence[Transport] | None = None,
    now_s: Callable[[], float] = time.time,
) -> DoctorDocument:
    """Return all checks as {check, state, found, remedy}.

    `exit` is that of the first failure, 0 without one. `endpoints` has the record of each. A
    failing endpoint is tolerated while enough others work.
    """
    seen: list[ProbedEndpointDocument] = []
    rows = list(_checks(config, transports, now_s, seen))
    return {
        "endpoints": seen,
        "checks": [fill(CheckDocument, row) for row in rows],
        "exit": next((r.exit for r in rows if r.state == CHECKUP_FAIL), EXIT_OK),
    }


def _checks(
    config: LoadedConfig | Path | str,
    transports: Sequence[Transport] | None,
    now_s: Callable[[], float],
    seen: list[ProbedEndpointDocument],
) -> Iterator[CheckResult]:
    try:
        loaded = config if isinstance(config, LoadedConfig) else load_config(config)
    except TrimtabError as error:
        yield _failure("config", error)
        return
    yield _config(loaded)
    try:
        require_private(wiring.store_file(loaded), "store", companions=True)
    except ConfigError as error:
        yield _failure("store", error)
    limits = loaded.config.limits
    yield from (
        CheckResult("limits", CHECKUP_NOTE, check, "lower the limit, or leave it so")
        for check in accepted_limits(limits)
    )
    for name in needless_acceptances(limits):
        yield CheckResult(
            "limits",
            CHECKUP_NOTE,
            f"limits.i_accept: {name} is within its ceiling",
            f'take "{name}" out of limits.i_accept',
        )
    yield _key(loaded)
    try:
        lines = (
            tuple(transports) if transports is not None else wiring.open_transports(loaded.config)
        )
    except ConfigError as error:
        yield _failure("endpoints", error)
        return
    chain = loaded.config.chain
    known = tuple(Endpoint(line) for line in lines)
    probes = probe_endpoints(known, chain, now_s)
    seen.extend(report(probes))
    enough = has_enough_operators(probes, chain.min_operators)
    for found in probes:
        state = CHECKUP_OK if found.head is not None else CHECKUP_NOTE if enough else CHECKUP_FAIL
        yield CheckResult(
            f"endpoint {found.endpoint.operator}", state, found.found, found.remedy, found.exit
        )
    yield _operators(loaded)
    yield _submission(loaded.config)
    if not enough:
        return
    try:
        with wiring.open_context(loaded, known, untrusted_pools=True) as context:
            yield CheckResult("store", CHECKUP_OK, str(wiring.store_file(loaded)))
            snapshot = context.reader.snapshot()
            seen[:] = [
                {**old, **new}
                for old, new in zip(seen, endpoint_records(context.endpoints), strict=True)
            ]
            for operator, why in outvoted_endpoints(snapshot):
                yield CheckResult(
                    f"endpoint {operator}",
                    CHECKUP_NOTE,
                    why,
                    "the others go on without it; ask its operator, or replace it",
                )
            step = context.readers.step_input_at(snapshot)
            yield from _contracts(context, snapshot)
            yield from _holdings(context, step)
            for label, one in screen_tokens(context, step):
                yield CheckResult(
                    f"moves of {label}",
                    CHECKUP_OK if one.finding.accepted else CHECKUP_NOTE,
                    one.why,
                    one.finding.remedy,
                )
            yield from (CheckResult(*check) for check in price_checks(context, step))
            yield from _money(context, snapshot)
            yield from (
                CheckResult("portfolio", CHECKUP_NOTE, warning, "see the numbers in trimtab status")
                for warning in minimum.warnings(context.portfolio)
            )
            yield from _least(step)
            stopped = context.switch.read()
            if stopped.paused is False:
                yield CheckResult("kill switch", CHECKUP_OK, "not paused")
            else:
                yield CheckResult(
                    "kill switch", CHECKUP_NOTE, f"paused: {stopped.reason}", "trimtab resume"
                )
    except TrimtabError as error:
        yield _failure("reading", error)


def _failure(check: str, error: TrimtabError) -> CheckResult:
    return CheckResult(
        check, CHECKUP_FAIL, error.message, error.remedy or "see the message", error.exit_code
    )


def _config(loaded: LoadedConfig) -> CheckResult:
    """Check the config file's mode: with an endpoint's URL in it the file is a secret of its owner
    (T18).
    """
    found = f"{loaded.path.name}, sha256 {loaded.digest[:12]}"
    secrets = (
        any(endpoint.url is not None for endpoint in loaded.config.chain.rpc)
        and not loaded.config.chain.local
    )
    mode = loaded.path.stat().st_mode & 0o777
    if secrets and mode & 0o077:
        return CheckResult(
            "config",
            CHECKUP_NOTE,
            f"{found}; it holds URLs and others can read it (mode {mode:04o})",
            f"chmod 600 {loaded.path}",
        )
    return CheckResult("config", CHECKUP_OK, found)


def _key(loaded: LoadedConfig) -> CheckResult:
    """Check that a key source exists, without opening it: doctor asks for no password."""
    if loaded.config.wallet.mode == "propose":
        return CheckResult(
            "key", CHECKUP_OK, f"none here: transactions are proposed in {loaded.proposals_path}"
        )
    path = loaded.keystore_path
    if path is not None:
        if not path.is_file():
            return CheckResult(
                "key",
                CHECKUP_NOTE,
                f"{path} does not exist",
                "trimtab wallet create, or put it there before --send",
            )
        if path.stat().st_mode & 0o077:
            return CheckResult(
                "key",
                CHECKUP_FAIL,
                f"{path} can be read by others (mode {path.stat().st_mode & 0o777:04o})",
                f"chmod 600 {path}",
            )
        return _keystore(loaded, path)
    try:
        key_source(loaded)
        if loaded.config.wallet.keyring is not None:
            return CheckResult(
                "key",
                CHECKUP_OK,
                f"keyring entry {loaded.config.wallet.keyring}, in {keyring_backend()}",
            )
    except ConfigError as error:
        return CheckResult("key", CHECKUP_NOTE, error.message, error.remedy)
    return CheckResult("key", CHECKUP_OK, "a key source is configured")


def _keystore(loaded: LoadedConfig, path: Path) -> CheckResult:
    """Check that a keystore does not name another wallet; most have their address in the clear."""
    try:
        named = (
            str(codec.read_json(path.read_text(encoding="utf-8"))["address"])
            .lower()
            .removeprefix("0x")
        )
    except (OSError, ValueError, KeyError, TypeError):
        return CheckResult("key", CHECKUP_OK, f"keystore {path}")
    if named != loaded.config.wallet.address.lower().removeprefix("0x"):
        return CheckResult(
            "key",
            CHECKUP_FAIL,
            f"{path} is of another wallet",
            "correct wallet.address or wallet.keystore",
            EXIT_USAGE,
        )
    return CheckResult("key", CHECKUP_OK, f"keystore {path} of this wallet")


def _operators(loaded: LoadedConfig) -> CheckResult:
    chain = loaded.config.chain
    distinct = {endpoint.operator for endpoint in chain.rpc}
    if len(distinct) >= chain.min_operators:
        return CheckResult(
            "quorum", CHECKUP_OK, f"{len(distinct)} operator(s), {chain.min_operators} needed"
        )
    return CheckResult(
        "quorum",
        CHECKUP_FAIL,
        f"{len(distinct)} operator(s), {chain.min_operators} must agree",
        "add an endpoint of another operator, or set single_operator",
        EXIT_USAGE,
    )


def _submission(config: Config) -> CheckResult:
    """Check if transactions are public before they are mined, and the possible cost (T1, T15)."""
    if config.chain.local or submission(config) == PRIVATE:
        return CheckResult("submission", CHECKUP_OK, submission_text(config))
    return CheckResult(
        "submission",
        CHECKUP_NOTE,
        submission_text(config),
        "a private endpoint in execution.submit_url hides transactions",
    )


def _contracts(context: wiring.AgentContext, snapshot: Snapshot) -> Iterator[CheckResult]:
    hashes = {code.address: code.hash for code in snapshot.code_hashes}
    called = (*context.execution.pinned, *(pool.address for pool in context.pools))
    bare = [address for address in called if hashes.get(address, NO_CODE) in (NO_CODE, EMPTY_CODE)]
    if bare:
        yield CheckResult(
            "contracts",
            CHECKUP_FAIL,
            f"no code at {', '.join(bare)}",
            "correct these addresses in the config",
        )
    pins = {pin.address: pin.code_hash for pin in context.store.trust.pins()}
    missing = [address for address in called if address not in pins]
    changed = [
        address
        for address, pinned in pins.items()
        if address in hashes and hashes[address] != pinned
    ]
    if changed:
        yield CheckResult(
            "trust",
            CHECKUP_FAIL,
            f"code changed at {', '.join(changed)}",
            "find out why before: trimtab trust",
        )
    elif missing:
        yield CheckResult(
            "trust",
            CHECKUP_NOTE,
            f"{len(missing)} of {len(called)} contracts are not pinned",
            "trimtab trust",
        )
    else:
        yield CheckResult("trust", CHECKUP_OK, f"{len(pins)} contracts pinned by code hash")
    if not context.pools:
        yield CheckResult(
            "pools",
            CHECKUP_FAIL,
            "no pool between any two of the tokens",
            "check the factories, or add a hub token",
        )
    else:
        yield CheckResult("pools", CHECKUP_OK, f"{len(context.pools)} found")
    for item in (item for item in snapshot.quarantined if item.item != "endpoint"):
        yield CheckResult(
            item.item,
            CHECKUP_FAIL,
            f"{item.address}: {item.why}",
            "while it fails, nothing is traded; correct or remove it",
        )


def _holdings(context: wiring.AgentContext, step: StepInput) -> Iterator[CheckResult]:
    held = native_coin.held_balances(step)
    references = reference_prices(step)
    decimals = context.portfolio.numeraire.decimals
    for asset in context.portfolio.assets:
        token = asset.token
        if token.address not in held:
            continue
        price = references.prices.get(token.address)
        if price is None:
            why = next(
                (u.why for u in references.unpriced if u.token == token.address),
                "no reference price",
            )
            yield CheckResult(
                f"token {token.label}",
                CHECKUP_FAIL,
                why,
                "add a feed, or a V3 pool with enough observations",
            )
            continue
        each = price_text(price.price, token.decimals, decimals, 8)
        found = (
            f"{decimal_text(held[token.address], token.decimals)} at {each} by"
            f" {price.source.value}, {token.decimals} decimals"
        )
        yield CheckResult(
            f"token {token.label}",
            CHECKUP_OK if held[token.address] else CHECKUP_NOTE,
            found,
            "" if held[token.address] else "the wallet holds none",
        )
    if not any(held.values()):
        yield CheckResult(
            "portfolio",
            CHECKUP_FAIL,
            "the wallet is empty",
            "send it some of the configured tokens",
        )
    for allowance in step.snapshot.allowances:
        if allowance.raw:
            label = composer.token_label(step, allowance.token)
            yield CheckResult(
                f"allowance {label}",
                CHECKUP_NOTE,
                f"{allowance.spender} may still take {allowance.raw} base units",
                "left from an earlier plan",
            )


def _least(step: StepInput) -> Iterator[CheckResult]:
    """Yield the minimum total that these targets, bands, pools and gas work with."""
    prices = reference_prices(step).by_token
    try:
        found = least_total_now(step, investable_total(compute_drifts(step, prices)))
    except TrimtabError:
        return
    if found is not None:
        yield CheckResult(
            "least total",
            CHECKUP_OK if found["enough"] else CHECKUP_NOTE,
            found["summary"],
            "; or ".join(found["changes"]),
        )


def _money(context: wiring.AgentContext, snapshot: Snapshot) -> Iterator[CheckResult]:
    floor = context.limits.native_floor_wei or 0
    found = f"{decimal_text(snapshot.native_wei, 18)} native"
    coin_raw = next(
        (held.raw for held in snapshot.holdings if held.token == context.portfolio.wrapped_native),
        0,
    )
    if (
        0 < snapshot.native_wei <= floor
        and coin_raw
        and context.limits.native_top_up_wei is not None
    ):
        yield CheckResult(
            "gas money",
            CHECKUP_NOTE,
            f"{found}, the floor is {decimal_text(floor, 18)}",
            "the next step unwraps some: limits.native_top_up",
        )
    elif snapshot.native_wei <= floor:
        yield CheckResult(
            "gas money",
            CHECKUP_FAIL,
            f"{found}, the floor is {decimal_text(floor, 18)}",
            "send the wallet more of the native coin",
        )
    else:
        yield CheckResult("gas money", CHECKUP_OK, found)
    age_s, limit_s = context.clock.now_s() - snapshot.head.timestamp_s, context.limits.head_age_s
    if limit_s is not None and age_s > limit_s:
        yield CheckResult(
            "head",
            CHECKUP_FAIL,
            f"{age_s} s old, the limit is {limit_s} s",
            "the endpoint lags, or this machine's clock is wrong",
            EXIT_RETRYABLE,
        )
    if snapshot.nonce_pending != snapshot.nonce_latest:
        yield CheckResult(
            "nonce",
            CHECKUP_NOTE,
            f"{snapshot.nonce_pending - snapshot.nonce_latest} pending transaction(s)",
            "wait for them",
        )
