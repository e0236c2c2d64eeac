"""The public Python API: one typed call per command. `open_agent` keeps a connection open; the other names are one call each."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.app.agent import Agent, OpenExposure, PortfolioStatus, open_agent, plan, quote, snapshot, step, swap_at_limit
    from agent.app.alerting import alerts, try_targets
    from agent.app.backtests import (
        MarketOptions,
        PreparedStressTest,
        StressOptions,
        TuneOptions,
        backtest,
        backtest_figures,
        check_report_path,
        prepare_stress,
        prepare_tune,
        prices_file,
        run_stress,
        run_tune,
        sample,
        stress_figures,
        tune_document,
        write_report,
        write_stress_report,
        write_tune_report,
    )
    from agent.app.describe import limit_prices
    from agent.app.local import demo_world, move_market, serve_localchain
    from agent.app.money.deposits import confirm_transfers, invest, list_transfers
    from agent.app.money.emergency import HardPauseReport, pause_hard, revoke
    from agent.app.money.rehearsal import rehearse_trade
    from agent.app.money.shutdown import stop
    from agent.app.money.withdrawals import withdraw
    from agent.app.offline import WhatIf, input_text, plan_from_input, replay, what_if
    from agent.app.oracle import observations, raise_observations
    from agent.app.paper import PaperStart, always_confirm, on_paper, open_paper
    from agent.app.positions.liquidity import LiquidityReport, forget_position, liquidity, take_position
    from agent.app.positions.orders import arm_orders, disarm_orders, set_orders, standing_orders
    from agent.app.positions.strategies import route_transfers, strategies, take_over_strategies
    from agent.app.records.ledger import check_books, compare_with_chain, export, list_entries, open_books, pnl, refresh_ledger
    from agent.app.records.price_history import fetch_prices, forget_prices, import_prices, prices, weights
    from agent.app.records.step_history import (
        at_price,
        cancel_waiting,
        explain,
        history,
        order_document,
        pause,
        resume,
        waiting_orders,
    )
    from agent.app.records.store_files import backup_store, check_store, restore_store, upgrade_store
    from agent.app.records.tx_journal import cancel, pending_transactions, reconcile, transactions
    from agent.app.service import Service, StoppableClock, StopRequested, serve
    from agent.app.settings.editing import edit
    from agent.app.settings.profiles import export_profile, import_profile
    from agent.app.start.checks import doctor
    from agent.app.start.setup import initialise, templates, trust
    from agent.app.start.wallet import Password, change_password, create_wallet, import_wallet, wallet_address
    from agent.config.load import load_config
    from agent.execution.step_context import OutcomeKind, StepOutcome


_HOMES = {
    "agent.app.agent": (
        "Agent",
        "PortfolioStatus",
        "open_agent",
        "plan",
        "quote",
        "snapshot",
        "step",
        "OpenExposure",
        "swap_at_limit",
    ),
    "agent.app.alerting": (
        "alerts",
        "try_targets",
    ),
    "agent.app.records.step_history": (
        "explain",
        "history",
        "pause",
        "resume",
        "at_price",
        "cancel_waiting",
        "order_document",
        "waiting_orders",
    ),
    "agent.app.local": (
        "demo_world",
        "move_market",
        "serve_localchain",
    ),
    "agent.app.describe": ("limit_prices",),
    "agent.app.settings.editing": ("edit",),
    "agent.app.money.shutdown": ("stop",),
    "agent.app.money.deposits": (
        "invest",
        "confirm_transfers",
        "list_transfers",
    ),
    "agent.app.money.rehearsal": ("rehearse_trade",),
    "agent.app.offline": (
        "replay",
        "input_text",
        "plan_from_input",
        "WhatIf",
        "what_if",
    ),
    "agent.app.money.emergency": (
        "revoke",
        "HardPauseReport",
        "pause_hard",
    ),
    "agent.app.money.withdrawals": ("withdraw",),
    "agent.app.settings.profiles": (
        "export_profile",
        "import_profile",
    ),
    "agent.app.start.setup": (
        "templates",
        "initialise",
        "trust",
    ),
    "agent.app.backtests": (
        "backtest_figures",
        "check_report_path",
        "write_report",
        "PreparedStressTest",
        "StressOptions",
        "prepare_stress",
        "run_stress",
        "stress_figures",
        "write_stress_report",
        "TuneOptions",
        "prepare_tune",
        "run_tune",
        "tune_document",
        "write_tune_report",
        "MarketOptions",
        "backtest",
        "prices_file",
        "sample",
    ),
    "agent.app.start.checks": ("doctor",),
    "agent.app.records.ledger": (
        "export",
        "compare_with_chain",
        "check_books",
        "list_entries",
        "open_books",
        "pnl",
        "refresh_ledger",
    ),
    "agent.app.oracle": (
        "observations",
        "raise_observations",
    ),
    "agent.app.positions.orders": (
        "arm_orders",
        "disarm_orders",
        "set_orders",
        "standing_orders",
    ),
    "agent.app.records.price_history": (
        "fetch_prices",
        "forget_prices",
        "import_prices",
        "prices",
        "weights",
    ),
    "agent.app.paper": (
        "PaperStart",
        "always_confirm",
        "on_paper",
        "open_paper",
    ),
    "agent.app.positions.liquidity": (
        "LiquidityReport",
        "liquidity",
        "forget_position",
        "take_position",
    ),
    "agent.app.service": (
        "Service",
        "serve",
        "StoppableClock",
        "StopRequested",
    ),
    "agent.app.positions.strategies": (
        "route_transfers",
        "strategies",
        "take_over_strategies",
    ),
    "agent.app.records.store_files": (
        "backup_store",
        "check_store",
        "restore_store",
        "upgrade_store",
    ),
    "agent.app.records.tx_journal": (
        "cancel",
        "reconcile",
        "transactions",
        "pending_transactions",
    ),
    "agent.app.start.wallet": (
        "Password",
        "change_password",
        "create_wallet",
        "import_wallet",
        "wallet_address",
    ),
    "agent.config.load": ("load_config",),
    "agent.execution.step_context": (
        "StepOutcome",
        "OutcomeKind",
    ),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Agent",
    "HardPauseReport",
    "LiquidityReport",
    "MarketOptions",
    "OpenExposure",
    "OutcomeKind",
    "PaperStart",
    "Password",
    "PortfolioStatus",
    "PreparedStressTest",
    "Service",
    "StepOutcome",
    "StopRequested",
    "StoppableClock",
    "StressOptions",
    "TuneOptions",
    "WhatIf",
    "alerts",
    "always_confirm",
    "arm_orders",
    "at_price",
    "backtest",
    "backtest_figures",
    "backup_store",
    "cancel",
    "cancel_waiting",
    "change_password",
    "check_books",
    "check_report_path",
    "check_store",
    "compare_with_chain",
    "confirm_transfers",
    "create_wallet",
    "demo_world",
    "disarm_orders",
    "doctor",
    "edit",
    "explain",
    "export",
    "export_profile",
    "fetch_prices",
    "forget_position",
    "forget_prices",
    "history",
    "import_prices",
    "import_profile",
    "import_wallet",
    "initialise",
    "input_text",
    "invest",
    "limit_prices",
    "liquidity",
    "list_entries",
    "list_transfers",
    "load_config",
    "move_market",
    "observations",
    "on_paper",
    "open_agent",
    "open_books",
    "open_paper",
    "order_document",
    "pause",
    "pause_hard",
    "pending_transactions",
    "plan",
    "plan_from_input",
    "pnl",
    "prepare_stress",
    "prepare_tune",
    "prices",
    "prices_file",
    "quote",
    "raise_observations",
    "reconcile",
    "refresh_ledger",
    "rehearse_trade",
    "replay",
    "restore_store",
    "resume",
    "revoke",
    "route_transfers",
    "run_stress",
    "run_tune",
    "sample",
    "serve",
    "serve_localchain",
    "set_orders",
    "snapshot",
    "standing_orders",
    "step",
    "stop",
    "strategies",
    "stress_figures",
    "swap_at_limit",
    "take_over_strategies",
    "take_position",
    "templates",
    "transactions",
    "trust",
    "try_targets",
    "tune_document",
    "upgrade_store",
    "waiting_orders",
    "wallet_address",
    "weights",
    "what_if",
    "withdraw",
    "write_report",
    "write_stress_report",
    "write_tune_report",
]


def __getattr__(name: str) -> Any:
    """Load a name's module on its first use: pausing loads no web3."""
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'agent.app' has no attribute {name!r}")
