"""`trimtab doctor`: check all prerequisites of a run, with a remedy for each problem."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent import codec, wiring
from agent.app.describe import HIDDEN, submission, submission_text
from agent.app.documents import fill
from agent.app.documents.owner import FAIL, OK, WARN, CheckDocument, CheckLine
from agent.app.documents.status import current_minimum_total
from agent.app.start.endpoint_checks import (
    endpoint_records,
    has_enough_operators,
    outvoted_endpoints,
    probe_endpoints,
    probed_endpoint_documents,
)
from agent.app.start.setup import EMPTY_CODE, NO_CODE
from agent.app.start.venue import venue_checks
from agent.chain.endpoints import Endpoint
from agent.chain.lens import DESCRIPTION, CallItem, LensItem, query_lens
from agent.chain.rpc import Transport
from agent.chain.tokens import initial_token_moves, symbol_text
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.config.networks import feed_name
from agent.config.schema import Config
from agent.config.secrets.key_sources import key_source, keyring_backend
from agent.config.tables.limits import LimitsTable, accepted_limits, needless_acceptances
from agent.errors import (
    EXIT_OK,
    EXIT_REFUSED,
    EXIT_RETRYABLE,
    EXIT_USAGE,
    ConfigError,
    TrimtabError,
)
from agent.model import (
    FeedRound,
    Policy,
    PriceSource,
    ReferenceConfig,
    ScreenedToken,
    Snapshot,
    StepInput,
    schedules_of,
)
from agent.policy import minimum, native_coin
from agent.policy.cash_flows import cash_limit
from agent.policy.drift import compute_drifts, investable_total, portfolio_total
from agent.reference import reference_prices, sequencer_fault
from agent.reference.prices import feed_round_fault, twap_rejection
from agent.store import Store
from agent.store.files.locks import require_private
from agent.store.files.secret import secret_path
from agent.units import decimal_text, format_duration, price_text, safe_label
from agent.venues import allowances

if TYPE_CHECKING:
    from agent.app.documents.owner import DoctorDocument, ProbedEndpointDocument


_MAX_DESCRIPTION_BYTES = 160
_DOLLAR_SYMBOL = "USD"
_UNKNOWN_SYMBOL = "?"
UNBOUNDED_ANSWER = 2**95 - 1
"""A maximum answer at or above this counts as no bound: aggregators without an upper bound return
the maximum of an integer type.
"""


def price_checks(
    context: wiring.AgentContext, snapshot: Snapshot, policy: Policy, reference: ReferenceConfig
) -> Iterator[CheckLine]:
    """Yield a row for each feed, for TWAPs, for sequencer and data fee of a rollup, and for
    triggers without price confirmation.
    """
    yield from _feed_checks(context, snapshot, reference)
    yield from _twap_checks(snapshot, reference)
    yield from _sequencer_checks(snapshot, reference)
    yield from _data_fee_checks(snapshot)
    yield from _trigger_checks(context, policy)


def _trigger_checks(context: wiring.AgentContext, policy: Policy) -> Iterator[CheckLine]:
    """Yield warnings about triggers that prices of a single block can fire, and about schedules
    without jitter, which an attacker can predict; none on local chains.
    """
    if context.config.chain.local:
        return
    if policy.confirm_blocks == 0:
        yield (
            "triggers",
            WARN,
            "the prices of a single block can fire it",
            "policy.confirm_blocks = 3",
        )
    if policy.jitter_bps == 0 and schedules_of(policy.trigger):
        yield (
            "schedule",
            WARN,
            "it makes the agent's trades predictable",
            'policy.jitter = "10%"',
        )


def _feed_checks(
    context: wiring.AgentContext, snapshot: Snapshot, reference: ReferenceConfig
) -> Iterator[CheckLine]:
    tokens = {
        token.address: token.label
        for token in (*(asset.token for asset in context.portfolio.assets), *context.portfolio.hubs)
    }
    feeds = [
        (address, feed)
        for address in tokens
        if (feed := context.portfolio.feed(address)) is not None
    ]
    description_calls: list[LensItem] = [
        CallItem(feed, DESCRIPTION, max_answer_bytes=_MAX_DESCRIPTION_BYTES) for _, feed in feeds
    ]
    for (address, feed), answer in zip(
        feeds, query_lens(context.transport, description_calls), strict=True
    ):
        label = tokens[address]
        latest_round = next(
            (feed_round for feed_round in snapshot.feeds if feed_round.feed == feed), None
        )
        if latest_round is None:
            continue  # a quarantined token has its own row
        base, quote = _parse_pair(symbol_text(answer))
        pair_and_bounds = f"{base} / {quote}, {format_answer_bounds(latest_round)}"
        check_name, fault = (
            f"feed {label}",
            feed_round_fault(snapshot, reference, latest_round),
        )
        if fault:
            yield check_name, FAIL, f"it {fault}", "wait for its next round, or correct the feed"
        elif quote != _DOLLAR_SYMBOL or not (
            base == feed_name(context.config.chain.chain_id, address) or _is_base_of(base, label)
        ):
            yield (
                check_name,
                WARN,
                pair_and_bounds,
                f"make sure that {feed} is a feed of {label} in dollars",
            )
        else:
            yield check_name, OK, pair_and_bounds, ""


def _parse_pair(description: str) -> tuple[str, str]:
    """Split "ETH / USD" into both sides; text that is not a plain symbol becomes "?" (T17)."""
    base, _, quote = description.partition("/")
    return safe_label(base.strip(), _UNKNOWN_SYMBOL), safe_label(quote.strip(), _UNKNOWN_SYMBOL)


def _is_base_of(base: str, label: str) -> bool:
    """Return whether the token is the feed's base or a wrapped form of it: WETH for ETH, cbBTC for
    BTC.
    """
    return base != _UNKNOWN_SYMBOL and label.upper().removesuffix(".E").endswith(base.upper())


def format_answer_bounds(feed_round: FeedRound) -> str:
    """Format the bounds of the answers that a feed's aggregator reports."""
    if feed_round.min_answer is None or feed_round.max_answer is None:
        return "no bounds"
    low_text = f"from {decimal_text(feed_round.min_answer, feed_round.decimals)}"
    if feed_round.max_answer >= UNBOUNDED_ANSWER:
        return f"{low_text}, no upper bound"
    return f"{low_text} to {decimal_text(feed_round.max_answer, feed_round.decimals)}"


def _twap_checks(snapshot: Snapshot, reference: ReferenceConfig) -> Iterator[CheckLine]:
    if PriceSource.TWAP not in reference.kinds:
        return
    pools = [pool for pool in snapshot.pools if pool.keeps_observations]
    rejected_pools = [
        f"{pool.address}: {why}"
        for pool in pools
        if (why := twap_rejection(snapshot, reference, pool))
    ]
    count_text = f"{len(pools) - len(rejected_pools)} of {len(pools)} V3 pools have a usable TWAP"
    if rejected_pools:
        count_and_first = f"{count_text}; the first without: {rejected_pools[0]}"
        yield "TWAPs", WARN, count_and_first, "trimtab oracle shows them all"
    else:
        yield "TWAPs", OK, count_text, ""


def _sequencer_checks(snapshot: Snapshot, reference: ReferenceConfig) -> Iterator[CheckLine]:
    if reference.sequencer_feed is None:
        return
    if fault := sequencer_fault(snapshot, reference):
        yield "sequencer", FAIL, fault, "wait; trading is halted until it is up"
    else:
        yield "sequencer", OK, "up", ""


def _data_fee_checks(snapshot: Snapshot) -> Iterator[CheckLine]:
    """Yield a row on rollups: the data fee of one swap now."""
    if why := snapshot.data_fee_unknown_reason:
        remedy = "check chain.chain_id and the endpoints; trading is halted until it is read"
        yield "data_fee", FAIL, f"not read: {why}", remedy
    elif snapshot.data_fee is not None:
        fee_wei = snapshot.data_fee_wei(minimum.LEG_GAS, 2 * minimum.LEG_BYTES)
        yield "data_fee", OK, f"at most {decimal_text(fee_wei, 18)} native for a swap", ""


def screen_tokens(
    context: wiring.AgentContext, step: StepInput
) -> Iterator[tuple[str, ScreenedToken]]:
    """Yield label and result of each quarantined token, then of each asset and hub whose transfer
    can be simulated: the wallet's holding, or a hundredth of the deepest pool. Raises Retryable.
    """
    quarantined_by_token = {
        screened_token.token: screened_token for screened_token in step.targets.quarantine
    }
    all_screened = list(quarantined_by_token.values())
    if context.limits.token_screen:
        screened_tokens = context.token_screen.screen(step, initial_token_moves(step))
        all_screened += [
            screened for screened in screened_tokens if screened.token not in quarantined_by_token
        ]
    for screened in all_screened:
        yield step.portfolio.token(screened.token).label, screened


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check: state, finding and remedy; `exit` is the exit code if it fails."""

    check: str
    state: str
    finding: str
    remedy: str = ""
    exit: int = EXIT_REFUSED


def doctor(
    config: LoadedConfig | Path | str,
    transports: Sequence[Transport] | None = None,
    now_s: Callable[[], float] = time.time,
) -> DoctorDocument:
    """Run all checks. `exit` is the exit code of the first failure, 0 without one. A failing
    endpoint is a warning as long as enough others work.
    """
    endpoints: list[ProbedEndpointDocument] = []
    check_results = list(_checks(config, transports, now_s, endpoints))
    return {
        "endpoints": endpoints,
        "checks": [fill(CheckDocument, check_result) for check_result in check_results],
        "exit": next(
            (check_result.exit for check_result in check_results if check_result.state == FAIL),
            EXIT_OK,
        ),
    }


def _checks(
    config: LoadedConfig | Path | str,
    transports: Sequence[Transport] | None,
    now_s: Callable[[], float],
    endpoint_documents: list[ProbedEndpointDocument],
) -> Iterator[CheckResult]:
    try:
        loaded = load_config(config)
    except TrimtabError as error:
        yield _failed_check("config", error)
        return
    yield _config_check(loaded)
    try:
        require_private(wiring.store_file(loaded), "store", companions=True)
    except ConfigError as error:
        yield _failed_check("store", error)
    yield from _limit_checks(loaded.config.limits)
    yield _key_check(loaded)
    try:
        opened_transports = (
            wiring.open_transports(loaded.config) if transports is None else transports
        )
    except ConfigError as error:
        yield _failed_check("endpoints", error)
        return
    chain = loaded.config.chain
    chain_endpoints = tuple(Endpoint(transport) for transport in opened_transports)
    probes = probe_endpoints(chain_endpoints, chain, now_s)
    endpoint_documents.extend(probed_endpoint_documents(probes))
    has_quorum = has_enough_operators(probes, chain.min_operators)
    failure_state = WARN if has_quorum else FAIL
    for probe in probes:
        state = failure_state if probe.head is None else OK
        yield CheckResult(
            f"endpoint {probe.endpoint.operator}", state, probe.finding, probe.remedy, probe.exit
        )
    yield _operator_check(loaded)
    yield _submission_check(loaded.config)
    if not has_quorum:
        return
    try:
        with wiring.open_context(loaded, chain_endpoints, untrusted_pools=True) as context:
            yield CheckResult("store", OK, str(wiring.store_file(loaded)))
            yield from _seal_checks(context.store, loaded)
            snapshot = context.reader.snapshot()
            endpoint_documents[:] = [
                {**probed_document, **current_record}
                for probed_document, current_record in zip(
                    endpoint_documents, endpoint_records(context.endpoints), strict=True
                )
            ]
            yield from _chain_checks(context, snapshot)
            switch_state = context.switch.read()
            if switch_state.paused is False:
                yield CheckResult("kill switch", OK, "not paused")
            else:
                yield CheckResult(
                    "kill switch", WARN, f"paused: {switch_state.reason}", "trimtab resume"
                )
    except TrimtabError as error:
        yield _failed_check("reading", error)


def _seal_checks(store: Store, loaded: LoadedConfig) -> Iterator[CheckResult]:
    """Yield a row for each sealed table with rows that another program wrote or removed."""
    secret = secret_path(wiring.store_file(loaded))
    for seal_report in store.seal_reports():
        faults = []
        if seal_report.unsealed_count:
            faults.append(
                f"{seal_report.unsealed_count} of {seal_report.row_count} rows are not sealed and do not count"
            )
        if seal_report.missing_count:
            faults.append(f"rows are missing in {seal_report.missing_count} places")
        if faults:
            remedy = f"find out which program wrote to the store, or restore {secret}"
            yield CheckResult(seal_report.table, WARN, "; ".join(faults), remedy)


def _chain_checks(context: wiring.AgentContext, snapshot: Snapshot) -> Iterator[CheckResult]:
    """Yield the checks that need a snapshot: endpoints, contracts, tokens, prices, gas money."""
    for operator, why in outvoted_endpoints(snapshot):
        yield CheckResult(
            f"endpoint {operator}",
            WARN,
            why,
            "the quorum works without it; ask its operator, or replace it",
        )
    step = context.readers.step_input_at(snapshot)
    yield from _contract_checks(context, snapshot)
    yield from _holding_checks(context, step)
    for label, screened_token in screen_tokens(context, step):
        yield CheckResult(
            f"moves of {label}",
            OK if screened_token.finding.is_tradable else WARN,
            screened_token.why,
            screened_token.finding.remedy,
        )
    for check_line in price_checks(context, step.snapshot, step.policy, step.reference):
        yield CheckResult(*check_line)
    for check_line in venue_checks(context, step.snapshot, step.portfolio):
        yield CheckResult(*check_line)
    yield from _gas_money_checks(context, snapshot)
    for warning in minimum.warnings(context.portfolio):
        yield CheckResult("portfolio", WARN, warning, "trimtab status shows the figures")
    yield from _minimum_total_checks(step)


def _limit_checks(limits: LimitsTable) -> Iterator[CheckResult]:
    for warning in accepted_limits(limits):
        yield CheckResult("limits", WARN, warning, "lower the limit, or keep it")
    for name in needless_acceptances(limits):
        yield CheckResult(
            "limits",
            WARN,
            f"limits.i_accept: {name} is within its ceiling",
            f'remove "{name}" from limits.i_accept',
        )


def _failed_check(check: str, error: TrimtabError) -> CheckResult:
    return CheckResult(
        check, FAIL, error.message, error.remedy or "see the message", error.exit_code
    )


def _config_check(loaded: LoadedConfig) -> CheckResult:
    """Check the config file's mode: a file with endpoint URLs is a secret (T18)."""
    description = f"{loaded.path.name}, sha256 {loaded.digest[:12]}"
    has_secrets = (
        any(endpoint.url is not None for endpoint in loaded.config.chain.rpc)
        and not loaded.config.chain.local
    )
    mode = loaded.path.stat().st_mode & 0o777
    if has_secrets and mode & 0o077:
        return CheckResult(
            "config",
            WARN,
            f"{description}; it has endpoint URLs and is readable by others (mode {mode:04o})",
            f"chmod 600 {loaded.path}",
        )
    return CheckResult("config", OK, description)


def _key_check(loaded: LoadedConfig) -> CheckResult:
    """Check that a key source exists, without opening it or asking for a password."""
    if loaded.config.wallet.mode == "propose":
        return CheckResult(
            "key", OK, f"external: transactions are proposed in {loaded.proposals_path}"
        )
    path = loaded.keystore_path
    if path is not None:
        if not path.is_file():
            return CheckResult(
                "key",
                WARN,
                f"{path} does not exist",
                "trimtab wallet create, or copy it there before --send",
            )
        if path.stat().st_mode & 0o077:
            return CheckResult(
                "key",
                FAIL,
                f"{path} is readable by others (mode {path.stat().st_mode & 0o777:04o})",
                f"chmod 600 {path}",
            )
        return _keystore_check(loaded, path)
    try:
        key_source(loaded)
        if loaded.config.wallet.keyring is not None:
            return CheckResult(
                "key",
                OK,
                f"keyring entry {loaded.config.wallet.keyring}, in {keyring_backend()}",
            )
    except ConfigError as error:
        return CheckResult("key", WARN, error.message, error.remedy)
    return CheckResult("key", OK, "a key source is configured")


def _keystore_check(loaded: LoadedConfig, path: Path) -> CheckResult:
    """Check the keystore's address, which most keystores state in clear text."""
    try:
        address = str(codec.read_json(path.read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, KeyError, TypeError):
        return CheckResult("key", OK, f"keystore {path}")
    expected_address = loaded.config.wallet.address.lower().removeprefix("0x")
    if address.lower().removeprefix("0x") != expected_address:
        return CheckResult(
            "key",
            FAIL,
            f"{path} belongs to another wallet",
            "correct wallet.address or wallet.keystore",
            EXIT_USAGE,
        )
    return CheckResult("key", OK, f"keystore {path} of this wallet")


def _operator_check(loaded: LoadedConfig) -> CheckResult:
    chain = loaded.config.chain
    operators = {endpoint.operator for endpoint in chain.rpc}
    if len(operators) >= chain.min_operators:
        return CheckResult(
            "quorum", OK, f"{len(operators)} operator(s), {chain.min_operators} needed"
        )
    return CheckResult(
        "quorum",
        FAIL,
        f"{len(operators)} operator(s), {chain.min_operators} must agree",
        "add an endpoint of another operator, or set single_operator",
        EXIT_USAGE,
    )


def _submission_check(config: Config) -> CheckResult:
    """Check whether transactions are public before they are mined, and state the possible loss (T1,
    T15).
    """
    if config.chain.local or submission(config) in HIDDEN:
        return CheckResult("submission", OK, submission_text(config))
    return CheckResult(
        "submission",
        WARN,
        submission_text(config),
        "a private endpoint in execution.submit_url hides transactions",
    )


def _contract_checks(context: wiring.AgentContext, snapshot: Snapshot) -> Iterator[CheckResult]:
    code_hashes = {code.address: code.hash for code in snapshot.code_hashes}
    contracts = dict.fromkeys(
        (*context.execution.pinned, *(pool.contract for pool in context.pools))
    )
    without_code = [
        address
        for address in contracts
        if code_hashes.get(address, NO_CODE) in (NO_CODE, EMPTY_CODE)
    ]
    if without_code:
        yield CheckResult(
            "contracts",
            FAIL,
            f"no code at {', '.join(without_code)}",
            "correct these addresses in the config",
        )
    pinned_hashes = {pin.address: pin.code_hash for pin in context.store.trust.pins()}
    unpinned_addresses = [address for address in contracts if address not in pinned_hashes]
    changed_addresses = [
        address
        for address, pinned_hash in pinned_hashes.items()
        if address in code_hashes and code_hashes[address] != pinned_hash
    ]
    if changed_addresses:
        yield CheckResult(
            "trust",
            FAIL,
            f"code changed at {', '.join(changed_addresses)}",
            "find out why, then: trimtab trust",
        )
    elif unpinned_addresses:
        yield CheckResult(
            "trust",
            WARN,
            f"{len(unpinned_addresses)} of {len(contracts)} contracts are not pinned",
            "trimtab trust",
        )
    else:
        yield CheckResult("trust", OK, f"{len(pinned_hashes)} contracts pinned by code hash")
    if not context.pools:
        yield CheckResult(
            "pools",
            FAIL,
            "no pool between any two of the tokens",
            "check the factories, or add a hub token",
        )
    else:
        yield CheckResult("pools", OK, f"{len(context.pools)} found")
    for unread in (unread for unread in snapshot.quarantined if unread.subject != "endpoint"):
        yield CheckResult(
            unread.subject,
            FAIL,
            f"{unread.address}: {unread.why}",
            "trading is halted until it is corrected or removed",
        )


def _holding_checks(context: wiring.AgentContext, step: StepInput) -> Iterator[CheckResult]:
    balances = native_coin.held_balances(step)
    references = reference_prices(step)
    decimals = context.portfolio.numeraire.decimals
    pools, pinned = (
        {contract.address for contract in contracts}
        for contracts in (context.pools, context.store.trust.pins())
    )
    for asset in context.portfolio.assets:
        token = asset.token
        if token.address not in balances:
            continue
        reference_price = references.prices.get(token.address)
        if reference_price is None:
            why = next(
                (
                    unpriced.why
                    for unpriced in references.unpriced
                    if unpriced.token == token.address
                ),
                "no reference price",
            )
            if pools <= pinned:
                remedy = "add a feed, or a V3 pool with enough observations"
                yield CheckResult(f"token {token.label}", FAIL, why, remedy)
            else:
                remedy = "trimtab trust, then trimtab doctor again"
                yield CheckResult(f"token {token.label}", WARN, why, remedy)
            continue
        unit_price = price_text(reference_price.price, token.decimals, decimals, 8)
        holding_text = (
            f"{decimal_text(balances[token.address], token.decimals)} at {unit_price} by"
            f" {reference_price.source.value}, {token.decimals} decimals"
        )
        if balances[token.address]:
            yield CheckResult(f"token {token.label}", OK, holding_text)
        else:
            yield CheckResult(f"token {token.label}", WARN, holding_text, "the wallet holds none")
    if not any(balances.values()):
        yield CheckResult(
            "portfolio",
            FAIL,
            "the wallet is empty",
            "send it some of the configured tokens",
        )
    for allowance in step.snapshot.allowances:
        if allowance.raw:
            label = allowances.token_label(step.portfolio, allowance.token)
            yield CheckResult(
                f"allowance {label}",
                WARN,
                f"{allowance.spender} may still spend {allowance.raw} base units",
                "trimtab revoke sets it to zero",
            )


def _minimum_total_checks(step: StepInput) -> Iterator[CheckResult]:
    """Yield a row on the minimum total at which these settings work, and one if the total is above
    portfolio.max_live_value.
    """
    prices = reference_prices(step).by_token
    try:
        drifts = compute_drifts(step, prices)
        total = portfolio_total(step, drifts)
        minimum_total = current_minimum_total(step, investable_total(drifts))
    except TrimtabError:
        return
    if ceiling_warning := cash_limit.ceiling_message(step.portfolio, step.limits, total):
        yield CheckResult("max_live_value", WARN, ceiling_warning, cash_limit.CEILING_REMEDY)
    if minimum_total is not None:
        yield CheckResult(
            "minimum total",
            WARN if minimum_total["enough"] is False else OK,
            minimum_total["summary"],
            "; or ".join(minimum_total["changes"]),
        )


def _gas_money_checks(context: wiring.AgentContext, snapshot: Snapshot) -> Iterator[CheckResult]:
    floor_wei = context.limits.native_floor_wei or 0
    wrapped_address = context.portfolio.wrapped_native
    wrapped_raw = next(
        (holding.raw for holding in snapshot.holdings if holding.token == wrapped_address), 0
    )
    can_top_up = wrapped_raw > 0 and context.limits.native_top_up_wei is not None
    balance_text = f"{decimal_text(snapshot.native_wei, 18)} native"
    below_floor_text = f"{balance_text}, the floor is {decimal_text(floor_wei, 18)}"
    if snapshot.native_wei > floor_wei:
        yield CheckResult("gas money", OK, balance_text)
    elif snapshot.native_wei > 0 and can_top_up:
        yield CheckResult(
            "gas money", WARN, below_floor_text, "the next step unwraps some: limits.native_top_up"
        )
    else:
        yield CheckResult(
            "gas money", FAIL, below_floor_text, "send the wallet more of the native coin"
        )
    age_s, max_age_s = context.clock.now_s() - snapshot.head.timestamp_s, context.limits.head_age_s
    if max_age_s is not None and age_s > max_age_s:
        yield CheckResult(
            "head",
            FAIL,
            f"{format_duration(age_s)} old, the limit is {format_duration(max_age_s)}",
            "the endpoint lags, or this machine's clock is wrong",
            EXIT_RETRYABLE,
        )
    if snapshot.nonce_pending != snapshot.nonce_latest:
        yield CheckResult(
            "nonce",
            WARN,
            f"{snapshot.nonce_pending - snapshot.nonce_latest} pending transaction(s)",
            "wait for them",
        )
