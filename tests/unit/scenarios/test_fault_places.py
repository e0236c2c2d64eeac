"""Each place that raises an error for the operator has its row in the table of docs/endpoints.md, or is no part of a run."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache

from tests.support.pages_of_docs import ROOT

AGENT = ROOT / "agent"
PASSING = "passing"
PERSON = "a person"
ROWS: dict[str, tuple[str, ...]] = {
    "endpoint: web page": (
        "chain/endpoints.py::EndpointPool.require_quorum",
        "chain/providers/block_reading.py::BlockReader._first_answer",
        "chain/providers/endpoint.py::EndpointProvider._parse",
        "chain/providers/endpoint.py::EndpointProvider._status_error",
        "chain/safe.py::SafeContract.require_hash",
        "chain/sender.py::QuorumSender._require_chain",
        "engine.py::_repeat_until_end",
        "execution/submission/submitter.py::Submitter.simulate",
    ),
    "receipt of provided liquidity": ("amm/lp/own_changes.py::_missing_liquidity_error", "execution/settlement.py::trade_loss"),
    "store: locked": (
        "store/database/errors.py::database_errors",
        "store/files/locks.py::_lock",
        "store/files/locks.py::_write_pid",
        "store/files/pause.py::KillSwitch.pause",
        "store/files/pause.py::KillSwitch.resume",
        "store/files/pause.py::PauseSwitch.pause",
        "store/files/pause.py::paused_here_alone_error",
        "store/files/recorder.py::FileOutbox.write_proposal",
        "store/files/secret.py::_secret_error",
        "store/opening.py::_disk_room_named",
        "store/postgresql/session.py::_unsettled_error",
        "store/postgresql/versions.py::raise_oldest_reader",
    ),
    "lock of the wallet": (
        "fleet/members.py::FleetMember._open",
        "store/files/locks.py::_lock_held_error",
        "store/files/locks.py::service_lock.service_held_error",
        "store/files/locks.py::wait_for_lock",
        "store/postgresql/fencing.py::LockSession.take",
        "store/postgresql/session.py::_taken_over_error",
    ),
    "key service": (
        "signing/remote_key.py::RemoteKey._sign_vrs",
        "signing/remote_key.py::RemoteKey.sign_transaction",
        "signing/remote_signer.py::_wrong_answer",
    ),
    "transaction that cannot be cancelled": (
        "execution/submission/reconcile.py::Reconciler._used_nonce_error",
        "execution/submission/reconcile.py::Reconciler.require_or_adopt_nonce",
        "execution/submission/replacement.py::TxReplacer.cancel",
        "store/journal/intents.py::IntentStore.add_intent",
        "venues/composer.py::RouterComposer._prepare",
    ),
    "confirmed config": ("app/cycles.py::AgentRun._adopt_confirmed_config",),
    "proposal whose nonce": (
        "execution/executor.py::ProposingExecutor._record_if_mined",
        "execution/executor.py::RefusingSigner.sign",
        "execution/executor.py::require_no_open_proposals",
    ),
    "damaged or foreign store": (
        "execution/resumption.py::_unreported_error",
        "execution/submission/submitter.py::Submitter._follow_chain",
        "execution/submission/submitter.py::block_of",
        "layers/gradual/store.py::_parse_draw",
        "layers/strategies/store.py::_parse_nav",
        "paper/chain.py::PaperChain.send",
        "paper/order_venue.py::PaperHyperliquid._with_funding",
        "store/accounts/balances.py::_transfer_from_row",
        "store/accounts/balances.py::parse_changes",
        "store/accounts/budgets.py::_parse_reviews",
        "store/accounts/budgets.py::_refusals_and_seqs",
        "store/accounts/ledger.py::parse_wallet_moves",
        "store/cycles.py::CycleStore._parse_or_close",
        "store/database/errors.py::database_errors",
        "store/database/errors.py::damaged_row_error",
        "store/database/facts.py::parse_fact_number",
        "store/executions.py::load_terms",
        "store/files/secret.py::find_secret",
        "store/opening.py::_prepare_tables",
        "store/opening.py::_read_version",
        "store/opening.py::_require_intact",
        "store/postgresql/session.py::require_fit_server",
        "store/postgresql/session.py::require_same_secret",
        "store/prices.py::_decode_allocation",
        "store/prices.py::_parse_price",
        "store/runs.py::_read_report",
        "store/store.py::PaperStore.begun_wallet",
        "store/store.py::PaperStore.save",
        "store/store.py::Store.bind_owner",
        "store/store.py::TrustStore.market_numbers",
    ),
    "foreign transaction at our nonce": (
        "chain/sender.py::_raise_refusal",
        "execution/submission/reconcile.py::Reconciler._used_nonce_error",
        "execution/submission/reorgs.py::ReorgHandler._deep_reorg_error",
    ),
    "transaction or message that the key's library": (
        "signing/secret.py::AgentPrivateKey.sign_message",
        "signing/secret.py::PrivateKey._sign_typed_data",
        "signing/secret.py::PrivateKey.sign_transaction",
    ),
    "Hyperliquid: account": (
        "venues/hyperliquid/account.py::require_own_margin",
        "venues/hyperliquid/account.py::require_pinned_numbers",
        "venues/hyperliquid/client.py::HyperliquidClient.require_agent",
    ),
}
"""Places by the beginning of their row."""
COMMANDS = frozenset(
    (
        "app/controls/queue.py::_pause",
        "app/money/deployment.py::_read_deployment",
        "app/money/hard_pause.py::pause_hard",
        "app/money/proposals.py::SafeProposal.require_signable",
        "app/records/store_copy.py::_create_private",
        "app/config_versions.py::take_back",
        "app/start/units.py::_run_commands",
        "backtest/tune/jobs.py::ResultStore.opened",
        "chain/safe.py::SafeSender.send",
        "cli/display/terminal.py::command_exit",
        "layers/gradual/store.py::GradualExecutionStore.begin",
        "store/files/backup.py::_damaged_file_error",
        "store/files/backup.py::inspect_store_file",
        "store/files/backup.py::restore",
        "store/files/locks.py::is_service_locked",
        "store/files/users.py::_damaged_file_error",
        "store/files/users.py::_file_errors",
        "store/postgresql/copying.py::_require_not_copied",
        "store/postgresql/copying.py::_require_same_rows",
        "web/api/tokens.py::_parse_tokens",
        "web/reading.py::_call",
        "wiring/transactor.py::paper_transactor",
    )
)
"""Places of commands and pages alone."""
WAITED = "LockHeld"
"""Waited out although it is no PassingFault."""


def parsed() -> dict[str, ast.Module]:
    return {path.relative_to(AGENT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in sorted(AGENT.rglob("*.py"))}


def error_verdicts(modules: dict[str, ast.Module]) -> dict[str, str]:
    """Return what the table says of each class of errors for the operator."""
    verdict_by_class = {"OperatorNeeded": PERSON, "PassingFault": PASSING, WAITED: PASSING}
    classes = [node for module in modules.values() for node in ast.walk(module) if isinstance(node, ast.ClassDef)]
    while missing := [
        (node.name, base.id)
        for node in classes
        for base in node.bases
        if isinstance(base, ast.Name) and base.id in verdict_by_class and node.name not in verdict_by_class
    ]:
        verdict_by_class |= {name: verdict_by_class[base] for name, base in missing}
    return verdict_by_class


def places(file: str, node: ast.AST, verdict_by_class: dict[str, str], names: tuple[str, ...] = ()) -> Iterator[tuple[str, str]]:
    """Yield each place that makes such an error, or chooses its class, with the verdict."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            yield from places(file, child, verdict_by_class, (*names, child.name))
            continue
        chosen: list[ast.expr] = []
        if isinstance(child, ast.Call):
            chosen = [child.func]
        elif isinstance(child, ast.IfExp):
            chosen = [child.body, child.orelse]
        for expression in chosen:
            if isinstance(expression, ast.Name) and expression.id in verdict_by_class:
                yield f"{file}::{'.'.join(names)}", verdict_by_class[expression.id]
        yield from places(file, child, verdict_by_class, names)


@cache
def all_places() -> set[tuple[str, str]]:
    modules = parsed()
    verdict_by_class = error_verdicts(modules)
    return {place for file, module in modules.items() for place in places(file, module, verdict_by_class)}


def table() -> dict[str, str]:
    text = (ROOT / "docs" / "endpoints.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {cells[0]: cells[1] for cells in rows if len(cells) == 2}


def test_table__each_place_of_a_run__has_its_row() -> None:
    listed = {place for places in ROWS.values() for place in places}
    in_code = {place for place, _ in all_places()}
    assert in_code - listed - COMMANDS == set(), "decide: passing, or a person; then name its row here and in docs/endpoints.md"
    assert (listed | COMMANDS) - in_code == set(), "no longer there"
    assert listed & COMMANDS == set()


def test_table__each_row__says_what_the_class_of_its_errors_does() -> None:
    verdicts = all_places()
    for beginning, listed in ROWS.items():
        (verdict,) = [says for fault, says in table().items() if fault.startswith(beginning)]
        if verdict == "no futures action":
            continue
        assert [place for place in listed if (place, verdict) not in verdicts] == [], beginning


def test_table__place_of_two_classes__has_two_rows() -> None:
    verdicts_by_place: dict[str, set[str]] = {}
    for place, verdict in all_places():
        verdicts_by_place.setdefault(place, set()).add(verdict)
    rows_by_place = {place: [row for row, listed in ROWS.items() if place in listed] for place in verdicts_by_place}
    two = {place for place, verdicts in verdicts_by_place.items() if len(verdicts) == 2}
    assert two
    assert [place for place in two if len(rows_by_place[place]) != 2] == []
