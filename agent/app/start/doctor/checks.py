"""`trimtab doctor`: check all prerequisites of a run, with a remedy for each problem."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from agent import wiring
from agent.app.describe import HIDDEN_PATHS, submission_channel, submission_text
from agent.app.documents import fill
from agent.app.documents.owner import FAIL, OK, WARN, CheckDocument
from agent.app.documents.status import current_minimum_total
from agent.app.start.doctor.endpoint_checks import (
    endpoint_records,
    has_enough_operators,
    outvoted_endpoints,
    probe_endpoints,
    probed_endpoint_documents,
)
from agent.app.start.doctor.fee_modules import fee_module_checks
from agent.app.start.doctor.price_source_checks import price_checks
from agent.app.start.doctor.quote_checks import quote_checks
from agent.app.start.doctor.route_checks import route_checks
from agent.app.start.shared_wallets import SHARED_WALLET_TEXT, configs_of_wallet
from agent.app.start.tracking_losses import step_loss_document
from agent.app.start.venue import venue_checks
from agent.chain.endpoints import Endpoint
from agent.chain.fees.minimum_tip import suggested_tip
from agent.chain.rpc import Transport
from agent.chain.safe import SafeContract
from agent.chain.screening.moves import screening_moves
from agent.config.load import load_config
from agent.config.loaded import LoadedConfig
from agent.config.networks import typical_fees
from agent.config.schema import Config
from agent.config.secrets.key_sources import key_source, stored_key_text
from agent.config.tables.limits import LimitsTable, accepted_limit_texts, needless_acceptances
from agent.errors import (
    EXIT_OK,
    EXIT_REFUSED,
    EXIT_RETRYABLE,
    EXIT_USAGE,
    ConfigError,
    TrimtabError,
)
from agent.foreign_text import read_json
from agent.layers.signals.state import SignalState
from agent.model import (
    NO_CODE_HASH,
    Portfolio,
    ScreenedToken,
    Snapshot,
    StepInput,
    UnreadableItem,
    has_no_code,
)
from agent.policy import minimum, native_coin
from agent.policy.cash_flows import cash_limit
from agent.policy.drift import compute_drifts, investable_total, portfolio_total
from agent.reference import reference_prices
from agent.store import Store
from agent.store.files.locks import require_trusted_writers
from agent.store.files.secret import secret_path
from agent.units import decimal_text, format_duration, short_address, shown_price_text
from agent.venues import allowances

if TYPE_CHECKING:
    from agent.app.documents.owner import DoctorDocument, ProbedEndpointDocument


def screen_tokens(
    context: wiring.AgentContext, step: StepInput
) -> Iterator[tuple[str, ScreenedToken]]:
    """Yield label and result of each quarantined token, then of each asset and hub whose transfer
    can be simulated, through each of its pools: the wallet's holding, or a hundredth of the pool.
    Raises Retryable.
    """
    quarantined_by_token = {
        screened_token.token: screened_token for screened_token in step.targets.quarantined_tokens
    }
    all_screenings = list(quarantined_by_token.values())
    if context.limits.token_screen:
        moves = screening_moves(step)
        # one request a token, since a portfolio has many pools
        for token in dict.fromkeys(move.token for move in moves):
            if token not in quarantined_by_token:
                token_moves = tuple(move for move in moves if move.token == token)
                all_screenings += context.token_screen.screen(step, token_moves)
    for token_screening in all_screenings:
        yield step.portfolio.token(token_screening.token).label, token_screening


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One check: state, finding and remedy; `exit_code` is the exit code if it fails, `addresses`
    are those that the finding shortens.
    """

    check: str
    state: str
    finding: str
    remedy: str = ""
    exit_code: int = EXIT_REFUSED
    addresses: tuple[str, ...] = ()


def doctor(
    config: LoadedConfig | Path | str,
    transports: Sequence[Transport] | None = None,
    now_s: Callable[[], float] = time.time,
) -> DoctorDocument:
    """Run all checks. `exit` is the exit code of the first failure, 0 without one. A failing
    endpoint is a warning as long as enough others work.
    """
    endpoints: list[ProbedEndpointDocument] = []
    check_results = list(_run_checks(config, transports, now_s, endpoints))
    return {
        "endpoints": endpoints,
        "checks": [
            fill(CheckDocument, check_result, **_address_field(check_result))
            for check_result in check_results
        ],
        "exit": next(
            (
                check_result.exit_code
                for check_result in check_results
                if check_result.state == FAIL
            ),
            EXIT_OK,
        ),
    }


def _address_field(check_result: CheckResult) -> dict[str, list[str]]:
    return {"addresses": list(check_result.addresses)} if check_result.addresses else {}


def _run_checks(
    config: LoadedConfig | Path | str,
    transports: Sequence[Transport] | None,
    now_s: Callable[[], float],
    endpoint_documents: list[ProbedEndpointDocument],
) -> Iterator[CheckResult]:
    try:
        loaded_config = load_config(config)
    except TrimtabError as error:
        yield _failed_check("config", error)
        return
    yield _config_check(loaded_config)
    try:
        require_trusted_writers(wiring.store_file(loaded_config), "store", checks_companions=True)
    except ConfigError as error:
        yield _failed_check("store", error)
    for other_path in configs_of_wallet(loaded_config.path, loaded_config.config):
        yield CheckResult(
            "wallet",
            WARN,
            f"{other_path.name} is a config of the same wallet; {SHARED_WALLET_TEXT}",
            "let only one of them send, or use another wallet",
        )
    yield from _limit_checks(loaded_config.config.limits)
    yield _key_check(loaded_config)
    try:
        opened_transports = (
            wiring.open_transports(loaded_config.config) if transports is None else transports
        )
    except ConfigError as error:
        yield _failed_check("endpoints", error)
        return
    chain = loaded_config.config.chain
    chain_endpoints = tuple(Endpoint(transport) for transport in opened_transports)
    probes = probe_endpoints(chain_endpoints, chain, now_s)
    endpoint_documents.extend(probed_endpoint_documents(probes))
    has_quorum = has_enough_operators(probes, chain.min_operators)
    failure_state = WARN if has_quorum else FAIL
    for probe in probes:
        endpoint_check_state = failure_state if probe.head_number is None else OK
        yield CheckResult(
            f"endpoint {probe.endpoint.operator}",
            endpoint_check_state,
            probe.finding,
            probe.remedy,
            probe.exit_code,
        )
        for warning, remedy in probe.warnings:
            yield CheckResult(f"endpoint {probe.endpoint.operator}", WARN, warning, remedy)
    yield _operator_check(loaded_config)
    yield _submission_check(loaded_config.config)
    if not has_quorum:
        return
    try:
        with wiring.open_context(
            loaded_config, chain_endpoints, includes_untrusted_pools=True
        ) as context:
            yield CheckResult("store", OK, wiring.store_text(loaded_config))
            yield from _seal_checks(context.store, loaded_config)
            snapshot = context.position_reader.snapshot()
            endpoint_documents[:] = [
                {**probed_document, **current_record}
                for probed_document, current_record in zip(
                    endpoint_documents, endpoint_records(context.endpoints), strict=True
                )
            ]
            yield from _chain_checks(context, snapshot)
            switch_state = context.kill_switch.read()
            if switch_state.paused is False:
                yield CheckResult("kill switch", OK, "not paused")
            else:
                yield CheckResult(
                    "kill switch", WARN, f"paused: {switch_state.reason}", "trimtab resume"
                )
    except TrimtabError as error:
        yield _failed_check("reading", error)


def _seal_checks(store: Store, loaded_config: LoadedConfig) -> Iterator[CheckResult]:
    """Yield a row for each sealed table with rows that another program wrote or removed."""
    seal_secret_path = secret_path(wiring.store_file(loaded_config))
    for seal_report in store.seal_reports():
        faults = []
        if seal_report.unsealed_count:
            faults.append(
                f"{seal_report.unsealed_count} of {seal_report.row_count} rows are not sealed and do not count"
            )
        if seal_report.gap_count:
            faults.append(f"rows are missing in {seal_report.gap_count} places")
        if faults:
            remedy = f"find out which program wrote to the store, or restore {seal_secret_path}"
            yield CheckResult(seal_report.table, WARN, "; ".join(faults), remedy)


def _chain_checks(context: wiring.AgentContext, snapshot: Snapshot) -> Iterator[CheckResult]:
    """Yield the checks that need a snapshot: endpoints, contracts, tokens, prices, gas money."""
    for operator, outvoted_reason in outvoted_endpoints(snapshot):
        yield CheckResult(
            f"endpoint {operator}",
            WARN,
            outvoted_reason,
            "the quorum works without it; ask its operator, or replace it",
        )
    step = context.readers.step_input_at(snapshot)
    for answer in step.layer(SignalState).faults:
        yield CheckResult(
            f"signal {answer.name}",
            WARN,
            answer.why,
            "correct its file or package, or signals in the config; see docs/signals.md",
        )
    yield from _safe_checks(context)
    yield from _contract_checks(context, snapshot)
    yield from _holding_checks(context, step)
    for label, screened_token in screen_tokens(context, step):
        yield CheckResult(
            f"moves of {label}",
            OK if screened_token.finding.is_tradable else WARN,
            screened_token.why,
            screened_token.finding.remedy,
        )
        for failed_pool in screened_token.failed_pools:
            yield CheckResult(
                f"pool of {label}",
                WARN,
                f"{failed_pool.pool}: {failed_pool.why}",
                "none; plans leave it out, and test it again each time they would use it",
            )
    for check_line in price_checks(context, step.snapshot, step.policy, step.reference):
        yield CheckResult(*check_line)
    for check_line in venue_checks(context, step.snapshot, step.portfolio):
        yield CheckResult(*check_line)
    for check_line in quote_checks(context, step.snapshot):
        yield CheckResult(*check_line)
    for check_line in fee_module_checks(context, step.snapshot):
        yield CheckResult(*check_line)
    yield from _gas_and_head_checks(context, snapshot)
    yield from _tip_checks(context, step)
    for warning in minimum.size_warnings(context.portfolio):
        yield CheckResult("portfolio", WARN, warning, "trimtab status shows the figures")
    yield from _minimum_total_checks(step)
    yield from cash_checks(step)
    tax_table = context.config.tax
    yield from _loss_checks(step, has_tax=tax_table is not None and tax_table.rate is not None)
    for check_line in route_checks(step):
        yield CheckResult(*check_line)


def _safe_checks(context: wiring.AgentContext) -> Iterator[CheckResult]:
    """Yield a row about the owners of a Safe, and who else acts for it; none for other wallets."""
    safe = SafeContract(context.transport, context.config.wallet.address)
    signers_text = safe.signers_text()
    if not context.config.wallet.safe:
        if signers_text:
            yield CheckResult(
                "wallet",
                FAIL,
                f"the wallet is {signers_text}, and no key signs for it",
                "write a config by trimtab init --safe",
            )
        return
    try:
        unbatched_reason = safe.unbatched_reason(safe.require_supported())
        modules = safe.modules()
        owners = safe.owners()
    except TrimtabError as error:
        yield CheckResult("wallet", FAIL, error.message, error.remedy, error.exit_code)
        return
    finding = f"{signers_text}: {', '.join(map(short_address, owners))}"
    if unbatched_reason:
        finding += f"; approvals are proposals of their own, since {unbatched_reason}"
    if not modules:
        yield CheckResult("wallet", OK, finding, addresses=owners)
        return
    yield CheckResult(
        "wallet",
        WARN,
        f"{finding}; these modules move its money without a signature: {', '.join(modules)}",
        "ask the owners what they are for; disableModule removes one, and no limit here binds it",
        addresses=owners,
    )


def _tip_checks(context: wiring.AgentContext, step: StepInput) -> Iterator[CheckResult]:
    """Yield a row for each endpoint that suggests no tip, and for a tip that nodes demanded."""
    if step.snapshot.head.base_fee_wei is None:
        return
    usual_tip_wei = typical_fees(context.config.chain.chain_id).priority_fee_wei
    for endpoint in context.endpoints.endpoints:
        try:
            (tip_answer,) = endpoint.batch([("eth_maxPriorityFeePerGas", [])])
        except TrimtabError:
            continue  # its own row names the failure
        if suggested_tip(tip_answer) is None:
            yield CheckResult(
                f"tip of {endpoint.operator}",
                WARN,
                "it does not answer eth_maxPriorityFeePerGas; the usual tip of the network counts,"
                f" {decimal_text(usual_tip_wei, 9)} gwei",
                "set execution.min_tip if its transactions wait",
            )
    if demanded_tip_wei := step.history.demanded_tip_wei:
        yield CheckResult(
            "tip",
            WARN,
            f"a node refused less than {decimal_text(demanded_tip_wei, 9)} gwei; that is paid for a day",
            f'write execution.min_tip = "{decimal_text(demanded_tip_wei, 9)} gwei" to keep it',
        )


def _limit_checks(limits: LimitsTable) -> Iterator[CheckResult]:
    for warning in accepted_limit_texts(limits):
        yield CheckResult("limits", WARN, warning, "lower the limit, or keep it")
    for limit_name in needless_acceptances(limits):
        yield CheckResult(
            "limits",
            WARN,
            f"limits.i_accept: {limit_name} is within its ceiling",
            f'remove "{limit_name}" from limits.i_accept',
        )


def _failed_check(check: str, error: TrimtabError) -> CheckResult:
    return CheckResult(
        check, FAIL, error.message, error.remedy or "see the message", error.exit_code
    )


def _config_check(loaded_config: LoadedConfig) -> CheckResult:
    """Check the config file's mode: a file with endpoint URLs is a secret (T18)."""
    config_summary = f"{loaded_config.path.name}, sha256 {loaded_config.digest[:12]}"
    has_secrets = (
        any(endpoint.url is not None for endpoint in loaded_config.config.chain.rpc)
        and not loaded_config.config.chain.is_local
    )
    file_mode = loaded_config.path.stat().st_mode & 0o777
    if has_secrets and file_mode & 0o077:
        return CheckResult(
            "config",
            WARN,
            f"{config_summary}; it has endpoint URLs and is readable by others (mode {file_mode:04o})",
            f"chmod 600 {loaded_config.path}",
        )
    return CheckResult("config", OK, config_summary)


def _key_check(loaded_config: LoadedConfig) -> CheckResult:
    """Check that the key exists, without loading it or asking for a password."""
    if loaded_config.config.wallet.mode == "propose":
        return CheckResult(
            "key", OK, f"external: transactions are proposed in {loaded_config.proposals_path}"
        )
    keystore_path = loaded_config.keystore_path
    if keystore_path is not None:
        if not keystore_path.is_file():
            return CheckResult(
                "key",
                WARN,
                f"{keystore_path} does not exist",
                "trimtab wallet create, or copy it there before --send",
            )
        if keystore_path.stat().st_mode & 0o077:
            return CheckResult(
                "key",
                FAIL,
                f"{keystore_path} is readable by others (mode {keystore_path.stat().st_mode & 0o777:04o})",
                f"chmod 600 {keystore_path}",
            )
        return _keystore_check(loaded_config, keystore_path)
    if loaded_config.config.wallet.signer_url_env is not None:
        return _remote_signer_check(loaded_config)
    try:
        create_command = f"trimtab wallet create --keyring {loaded_config.config.wallet.keyring}"
        key_text = stored_key_text(key_source(loaded_config), create_command)
    except ConfigError as error:
        return CheckResult("key", WARN, error.message, error.remedy)
    return CheckResult("key", OK, key_text)


def _remote_signer_check(loaded_config: LoadedConfig) -> CheckResult:
    """Check whether the remote signer answers and signs for the wallet."""
    try:
        wiring.require_signer_has_key(loaded_config)
    except TrimtabError as error:
        return CheckResult("key", FAIL, error.message, error.remedy)
    return CheckResult("key", OK, "the remote signer signs for the wallet")


def _keystore_check(loaded_config: LoadedConfig, keystore_path: Path) -> CheckResult:
    """Check the keystore's address, which most keystores state in clear text."""
    try:
        keystore_address = str(read_json(keystore_path.read_text(encoding="utf-8"))["address"])
    except (OSError, ValueError, KeyError, TypeError):
        return CheckResult("key", OK, f"keystore {keystore_path}")
    expected_address = loaded_config.config.wallet.address.lower().removeprefix("0x")
    if keystore_address.lower().removeprefix("0x") != expected_address:
        return CheckResult(
            "key",
            FAIL,
            f"{keystore_path} belongs to another wallet",
            "correct wallet.address or wallet.keystore",
            EXIT_USAGE,
        )
    return CheckResult("key", OK, f"keystore {keystore_path} of this wallet")


def _operator_check(loaded_config: LoadedConfig) -> CheckResult:
    chain = loaded_config.config.chain
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
    if config.chain.is_local or submission_channel(config) in HIDDEN_PATHS:
        return CheckResult("submission", OK, submission_text(config))
    return CheckResult(
        "submission",
        WARN,
        submission_text(config),
        "a private endpoint in execution.submit_url hides transactions",
    )


def _contract_checks(context: wiring.AgentContext, snapshot: Snapshot) -> Iterator[CheckResult]:
    code_hashes = {code_entry.address: code_entry.hash for code_entry in snapshot.code_hashes}
    contract_addresses = dict.fromkeys(
        (*context.execution.pinned, *(pool.contract for pool in context.pools))
    )
    codeless_addresses = [
        address
        for address in contract_addresses
        if has_no_code(code_hashes.get(address, NO_CODE_HASH))
    ]
    if codeless_addresses:
        yield CheckResult(
            "contracts",
            FAIL,
            f"no code at {', '.join(codeless_addresses)}",
            "correct these addresses in the config",
        )
    pinned_hashes = context.store.trust.pins()
    unpinned_addresses = [address for address in contract_addresses if address not in pinned_hashes]
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
            f"{len(unpinned_addresses)} of {len(contract_addresses)} contracts are not pinned",
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
    for unreadable_item in (
        unreadable_item
        for unreadable_item in snapshot.unreadable_items
        if unreadable_item.subject != "endpoint"
    ):
        yield _unreadable_check(context.portfolio, unreadable_item)


def _unreadable_check(portfolio: Portfolio, unreadable: UnreadableItem) -> CheckResult:
    """Return the row of an item that could not be read: a feed by the assets that it prices."""
    labels = [asset.token.label for asset in portfolio.assets if asset.feed == unreadable.address]
    if not labels:
        return CheckResult(
            unreadable.subject,
            FAIL,
            f"{unreadable.address}: {unreadable.why}",
            "trading is halted until it is corrected or removed",
        )
    return CheckResult(
        f"feed {', '.join(labels)}",
        FAIL,
        f"{unreadable.subject} {unreadable.address}: {unreadable.why}",
        "trading waits until it answers; if it was retired, write another feed of the asset, or add"
        ' "twap" to reference.kind',
    )


def _holding_checks(context: wiring.AgentContext, step: StepInput) -> Iterator[CheckResult]:
    raw_by_token = native_coin.held_balances(step)
    current_prices = reference_prices(step)
    numeraire_decimals = context.portfolio.numeraire.decimals
    pool_contracts = {pool.contract for pool in context.pools}
    pinned_addresses = context.store.trust.pins().keys()
    for asset in context.portfolio.assets:
        token = asset.token
        if token.address not in raw_by_token:
            continue
        reference_price = current_prices.reference_by_token.get(token.address)
        if reference_price is None:
            unpriced_reason = next(
                (
                    unpriced_token.why
                    for unpriced_token in current_prices.unpriced
                    if unpriced_token.token == token.address
                ),
                "no reference price",
            )
            if pool_contracts <= pinned_addresses:
                remedy = "add a feed, or a V3 pool with enough observations"
                yield CheckResult(f"token {token.label}", FAIL, unpriced_reason, remedy)
            else:
                remedy = "trimtab trust, then trimtab doctor again"
                yield CheckResult(f"token {token.label}", WARN, unpriced_reason, remedy)
            continue
        unit_price_text = shown_price_text(
            reference_price.price, token.decimals, numeraire_decimals
        )
        holding_text = (
            f"{decimal_text(raw_by_token[token.address], token.decimals)} at {unit_price_text} by"
            f" {reference_price.source.value}, {token.decimals} decimals"
        )
        if raw_by_token[token.address]:
            yield CheckResult(f"token {token.label}", OK, holding_text)
        else:
            yield CheckResult(f"token {token.label}", WARN, holding_text, "the wallet holds none")
    if not any(raw_by_token.values()) and not _holds_value(step):
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


def _holds_value(step: StepInput) -> bool:
    """Return whether the portfolio has a value, such as positions; False if it is unknown."""
    try:
        drifts = compute_drifts(step, reference_prices(step).price_by_token)
    except TrimtabError:
        return False
    return portfolio_total(step, drifts) > 0


def _minimum_total_checks(step: StepInput) -> Iterator[CheckResult]:
    """Yield a row on the minimum total at which these settings work, and one if the total is above
    portfolio.max_live_value.
    """
    prices = reference_prices(step).price_by_token
    try:
        drifts = compute_drifts(step, prices)
        total_value = portfolio_total(step, drifts)
        minimum_total = current_minimum_total(step, investable_total(drifts))
    except TrimtabError:
        return
    if ceiling_warning := cash_limit.max_live_value_message(
        step.portfolio, step.limits, total_value
    ):
        yield CheckResult("max_live_value", WARN, ceiling_warning, cash_limit.MAX_LIVE_VALUE_REMEDY)
    if minimum_total is not None:
        yield CheckResult(
            "minimum total",
            WARN if minimum_total["enough"] is False else OK,
            minimum_total["summary"],
            "; or ".join(minimum_total["changes"]),
        )


def cash_checks(step: StepInput) -> Iterator[CheckResult]:
    """Yield a warning if the wallet has less numeraire than portfolio.use_cash before the agent takes
    any.
    """
    cash_state = step.history.cash_flows.cash
    if cash_state is None or not cash_state.is_known or cash_state.is_stored:
        return
    account = cash_state.account
    if account.taken_raw < account.limit_raw:
        numeraire = step.portfolio.numeraire
        taken_text = decimal_text(account.taken_raw, numeraire.decimals)
        limit_text = decimal_text(account.limit_raw, numeraire.decimals)
        yield CheckResult(
            "cash",
            WARN,
            f"portfolio.use_cash is {limit_text} {numeraire.label}, the wallet has {taken_text}",
            "only what the wallet has is used; pay in the rest, or lower portfolio.use_cash",
        )


def _loss_checks(step: StepInput, *, has_tax: bool) -> Iterator[CheckResult]:
    """Yield a row on about what the policy loses a year by costs, drift and tax, or on gas that is
    dear for the portfolio.
    """
    try:
        loss = step_loss_document(step, has_tax=has_tax)
    except TrimtabError:
        return
    if loss is None:
        return
    sentence, _, _, *tax_lines = loss["lines"]
    yield CheckResult("tracking loss", OK, " ".join((sentence, *tax_lines)), "")
    for warning in loss["warnings"]:
        yield CheckResult(
            "gas", WARN, warning, "a larger portfolio, or a network with cheaper gas, loses less"
        )


def _gas_and_head_checks(context: wiring.AgentContext, snapshot: Snapshot) -> Iterator[CheckResult]:
    floor_wei = context.limits.native_floor_wei or 0
    wrapped_address = context.portfolio.wrapped_native
    wrapped_raw = next(
        (holding.raw for holding in snapshot.holdings if holding.token == wrapped_address), 0
    )
    can_top_up = wrapped_raw > 0 and context.limits.native_top_up_wei is not None
    balance_text = f"{decimal_text(snapshot.native_wei, 18)} native"
    below_floor_text = f"{balance_text}, the floor is {decimal_text(floor_wei, 18)}"
    if context.config.wallet.safe and context.limits.native_floor_wei is None:
        yield CheckResult(
            "gas money", OK, f"{balance_text}; who executes for the Safe pays the gas"
        )
    elif snapshot.native_wei > floor_wei:
        yield CheckResult("gas money", OK, balance_text)
    elif snapshot.native_wei > 0 and can_top_up:
        yield CheckResult(
            "gas money", WARN, below_floor_text, "the next step unwraps some: limits.native_top_up"
        )
    else:
        yield CheckResult(
            "gas money", FAIL, below_floor_text, "send the wallet more of the native coin"
        )
    head_age_s = context.clock.now_s() - snapshot.head.timestamp_s
    max_head_age_s = context.limits.head_age_s
    if max_head_age_s is not None and head_age_s > max_head_age_s:
        yield CheckResult(
            "head",
            FAIL,
            f"{format_duration(head_age_s)} old, the limit is {format_duration(max_head_age_s)}",
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
