"""The document of each command: what it prints with --json has the keys and types of its declaration, and no others."""

from __future__ import annotations

import json
from functools import cache
from typing import Any, get_args

from pydantic import ConfigDict, TypeAdapter, ValidationError

from agent.app.documents import controls, futures, owner, plans, positions, proposals, records, research
from agent.app.documents.status import StatusDocument
from agent.observe.health import HealthDocument
from tests.cli import mapping_documents

ANY = "ANY"
"""Stands in golden documents for what differs between runs."""
DOCUMENTS: dict[str, Any] = {
    "status": StatusDocument,
    "positions": futures.FuturesPositionsDocument,
    "margin": futures.MarginDocument | plans.LivePlanDocument,
    "deleverage": plans.LivePlanDocument,
    "delegate": plans.LivePlanDocument | owner.AgentApprovalDocument,
    "funding": futures.FundingDocument,
    "quote": plans.QuoteDocument,
    "plan": plans.LivePlanDocument,
    "plan --input": plans.PlanDocument,
    "rebalance": plans.LivePlanDocument,
    "swap": plans.LivePlanDocument,
    "hedge": plans.LivePlanDocument,
    "run": plans.LivePlanDocument,
    "worker": plans.LivePlanDocument,
    "paper": plans.LivePlanDocument,
    "proposal list": proposals.ProposalsDocument,
    "proposal show": proposals.ProposalFileDocument,
    "proposal sign": proposals.SignatureDocument | mapping_documents.TypedDataDocument,
    "proposal collect": proposals.CollectedSignaturesDocument,
    "proposal execute": proposals.ProposalExecutionDocument,
    "limit": records.WaitingOrdersDocument | records.CancelledOrderDocument,
    "health": HealthDocument,
    "history": records.HistoryDocument,
    "explain": records.ExplanationDocument,
    "txs": records.TransactionsDocument,
    "cancel": records.CancelledTransactionsDocument | records.PendingTransactionsDocument,
    "reconcile": records.SettledTransactionsDocument | records.PendingTransactionsDocument,
    "adopt": records.AdoptedNonceDocument,
    "flows": records.TransfersDocument,
    "flows confirm": records.ConfirmedTransfersDocument,
    "pnl": records.ProfitDocument,
    "books check": records.LedgerCheckDocument,
    "books journal": records.EntriesDocument,
    "books lots": records.LotsDocument,
    "books open": records.BookDocument,
    "invest": owner.InvestmentDocument,
    "withdraw": owner.WithdrawalDocument | mapping_documents.WithdrawalsDocument,
    "edit": owner.EditDocument,
    "stop": owner.ShutdownDocument,
    "revoke": owner.RevocationDocument,
    "rehearse": owner.RehearsalDocument,
    "pause": owner.PauseDocument | owner.HardPauseDocument,
    "resume": owner.PauseDocument,
    "controls": controls.ControlsDocument,
    "request": controls.ControlDocument | controls.ShownPlanDocument,
    "lp": positions.LiquidityDocument,
    "orders": positions.OrdersDocument,
    "orders arm": positions.ArmedOrdersDocument,
    "orders disarm": positions.DisarmedOrdersDocument,
    "strategies": positions.StrategiesDocument,
    "strategies apply": positions.StrategiesDocument,
    "oracle": positions.PoolObservationsDocument | positions.RaisedObservationsDocument,
    "weights": positions.WeightsDocument,
    "alerts": owner.AlertsDocument,
    "alerts test": owner.AlertTestDocument,
    "db backup": records.BackupDocument,
    "db check": records.StoreCheckDocument,
    "db copy": records.StoreCopyDocument,
    "db restore": records.RestoreDocument,
    "export": records.ExportDocument,
    "prices forget": records.ForgottenPricesDocument,
    "init": owner.InitDocument,
    "deploy": owner.DeploymentDocument,
    "doctor": owner.DoctorDocument,
    "trust": owner.TrustDocument,
    "install": owner.SystemdUnitsDocument,
    "localchain": owner.LocalChainDocument,
    "serve": mapping_documents.DashboardDocument,
    "token add": mapping_documents.NewApiTokenDocument,
    "token list": mapping_documents.ApiTokensDocument,
    "token revoke": mapping_documents.ApiTokenDocument,
    "user add": owner.NewUserDocument,
    "user list": owner.UsersDocument,
    "user remove": owner.RemovedUserDocument,
    "user log": owner.UserLogDocument,
    "demo": owner.DemoDocument | owner.FuturesDemoDocument | owner.LiveDemoDocument,
    "templates": owner.TemplatesDocument,
    "export-profile": mapping_documents.ExportedProfileDocument,
    "import-profile": mapping_documents.ImportedProfileDocument,
    "wallet create": owner.NewKeyDocument,
    "wallet import": owner.NewKeyDocument,
    "wallet address": owner.KeyAddressDocument,
    "wallet change-password": owner.NewPasswordDocument,
    "lp take": positions.AdoptedPositionDocument,
    "lp forget": positions.AdoptedPositionDocument,
    "orders set": positions.ChangedLevelsDocument,
    "strategies deposits-to": positions.RoutedTransfersDocument,
    "whatif": mapping_documents.WhatIfDocument,
    "backtest": mapping_documents.BacktestDocument | mapping_documents.FuturesOnlyBacktestDocument,
    "stress": mapping_documents.StressDocument | mapping_documents.FuturesOnlyStressDocument,
    "tune": mapping_documents.TuneDocument,
    "replay": mapping_documents.ReplayDocument,
    "prices": research.PricesDocument,
    "prices import": research.ImportedPricesDocument,
    "prices fetch": research.FetchedPricesDocument,
}


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(list[kind], config=ConfigDict(extra="forbid", strict=True))


def misfits(kind: Any, document: Any) -> list[str]:
    """Each place where a document differs from its declaration; of several declarations, from the nearest."""
    if members := get_args(kind):
        return min((misfits(member, document) for member in members), key=len)
    try:
        _adapter(kind).validate_json(json.dumps([document]))
    except ValidationError as error:
        return [f"{error['loc'][1:]}: {error['msg']}, {error['input']!r:.80}" for error in error.errors() if error["input"] != ANY]
    return []


def command_of(args: tuple[str, ...]) -> str:
    """The command that these arguments call, as a key of `DOCUMENTS`."""
    if args[0] == "plan" and "--input" in args:
        return "plan --input"
    return next((name for name in (" ".join(args[:2]), args[0]) if name in DOCUMENTS), args[0])


OF_SEVERAL = ("status", "history", "pause", "resume", "health")
"""Commands that speak of one portfolio or of several."""


def require_declared(args: tuple[str, ...], document: Any) -> None:
    """Fail unless the document of a command is what is declared for it, or an error."""
    command = command_of(args)
    if "portfolios" in document and command in OF_SEVERAL:
        for answer in document["portfolios"]:
            require_declared(args, {key: value for key, value in answer.items() if key != "portfolio"})
        return
    if "error" in document:
        kind = mapping_documents.ErrorDocument
    elif {"--move", "--configs", "--config-version"} & {*args}:
        return
    else:
        kind = DOCUMENTS[command]
        if command in ("rebalance", "swap", "hedge", "run") and "--send" in args:
            assert "transactions" in document
            assert "realised" in document
    assert not (mistakes := misfits(kind, document)), (args, mistakes[:5])
