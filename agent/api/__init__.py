"""The public Python surface: what the commands do, typed. `open_agent` holds a connection; the other names are one call each."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from agent.api.agent import Agent, Standing
    from agent.api.announcing import alerts, try_targets
    from agent.api.backtesting import Market, backtest, prices_file, sample
    from agent.api.balances import confirm_flows, flows
    from agent.api.books import explain, history, pause, resume
    from agent.api.checkup import doctor
    from agent.api.corrections import at_price, cancel_waiting, limit_prices, order_document, waiting_orders
    from agent.api.demo import demo_world
    from agent.api.editing import edit
    from agent.api.ending import stop
    from agent.api.exports import export
    from agent.api.halting import Halted, pause_hard
    from agent.api.investing import invest
    from agent.api.ledgers import against_chain, check_books, journal_of_books, open_books, pnl, refresh
    from agent.api.local import move_market, serve_localchain
    from agent.api.offline import input_text, plan_from_input
    from agent.api.opening import open_agent, plan, quote, snapshot, step
    from agent.api.oracle import observations, raise_observations
    from agent.api.orders import arm_orders, disarm_orders, set_orders, standing_orders
    from agent.api.papers import Start, agreed, on_paper, open_paper
    from agent.api.positions import Liquidity, liquidity
    from agent.api.pricing import fetch_prices, forget_prices, import_prices, prices
    from agent.api.profiles import export_profile, import_profile
    from agent.api.ready import templates
    from agent.api.rehearsing import rehearse
    from agent.api.replaying import replay
    from agent.api.reporting import backtest_figures, check_report_path, write_report
    from agent.api.retreat import TakenBack
    from agent.api.revoking import revoke
    from agent.api.rounds import swap_at
    from agent.api.service import Service, serve
    from agent.api.setup import initialise, trust
    from agent.api.sleeves import route_flows, strategies, take_over_strategies
    from agent.api.stopping import StoppableClock, Stopped
    from agent.api.stores import backup_store, check_store, restore_store, upgrade_store
    from agent.api.stressing import Prepared, Shocks, prepare_stress, run_stress, stress_figures, write_stress_report
    from agent.api.taking import forget_position, take_position
    from agent.api.tuning import Grids, prepare_tune, run_tune, tune_document, write_tune_report
    from agent.api.txs import cancel, reconcile, transactions, waiting
    from agent.api.wallet import Password, change_password, create_wallet, import_wallet, wallet_address
    from agent.api.weighing import weights
    from agent.api.whatif import WhatIf, what_if
    from agent.api.withdrawing import withdraw
    from agent.config.load import load_config
    from agent.execution.outcome import Outcome, OutcomeKind

_HOMES = {
    "agent.api.agent": ("Agent", "Standing"),
    "agent.api.announcing": ("alerts", "try_targets"),
    "agent.api.opening": ("open_agent", "plan", "quote", "snapshot", "step"),
    "agent.api.books": ("explain", "history", "pause", "resume"),
    "agent.api.demo": ("demo_world",),
    "agent.api.editing": ("edit",),
    "agent.api.ending": ("stop",),
    "agent.api.investing": ("invest",),
    "agent.api.rehearsing": ("rehearse",),
    "agent.api.replaying": ("replay",),
    "agent.api.revoking": ("revoke",),
    "agent.api.withdrawing": ("withdraw",),
    "agent.api.halting": ("Halted", "pause_hard"),
    "agent.api.profiles": ("export_profile", "import_profile"),
    "agent.api.ready": ("templates",),
    "agent.api.reporting": ("backtest_figures", "check_report_path", "write_report"),
    "agent.api.retreat": ("TakenBack",),
    "agent.api.checkup": ("doctor",),
    "agent.api.balances": ("confirm_flows", "flows"),
    "agent.api.exports": ("export",),
    "agent.api.ledgers": ("against_chain", "check_books", "journal_of_books", "open_books", "pnl", "refresh"),
    "agent.api.local": ("move_market", "serve_localchain"),
    "agent.api.oracle": ("observations", "raise_observations"),
    "agent.api.offline": ("input_text", "plan_from_input"),
    "agent.api.orders": ("arm_orders", "disarm_orders", "set_orders", "standing_orders"),
    "agent.api.pricing": ("fetch_prices", "forget_prices", "import_prices", "prices"),
    "agent.api.weighing": ("weights",),
    "agent.api.papers": ("Start", "agreed", "on_paper", "open_paper"),
    "agent.api.positions": ("Liquidity", "liquidity"),
    "agent.api.service": ("Service", "serve"),
    "agent.api.setup": ("initialise", "trust"),
    "agent.api.sleeves": ("route_flows", "strategies", "take_over_strategies"),
    "agent.api.stressing": ("Prepared", "Shocks", "prepare_stress", "run_stress", "stress_figures", "write_stress_report"),
    "agent.api.stores": ("backup_store", "check_store", "restore_store", "upgrade_store"),
    "agent.api.stopping": ("StoppableClock", "Stopped"),
    "agent.api.taking": ("forget_position", "take_position"),
    "agent.api.tuning": ("Grids", "prepare_tune", "run_tune", "tune_document", "write_tune_report"),
    "agent.api.txs": ("cancel", "reconcile", "transactions", "waiting"),
    "agent.api.corrections": ("at_price", "cancel_waiting", "limit_prices", "order_document", "waiting_orders"),
    "agent.api.rounds": ("swap_at",),
    "agent.api.wallet": ("Password", "change_password", "create_wallet", "import_wallet", "wallet_address"),
    "agent.api.whatif": ("WhatIf", "what_if"),
    "agent.api.backtesting": ("Market", "backtest", "prices_file", "sample"),
    "agent.config.load": ("load_config",),
    "agent.execution.outcome": ("Outcome", "OutcomeKind"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "Agent",
    "Grids",
    "Halted",
    "Liquidity",
    "Market",
    "Outcome",
    "OutcomeKind",
    "Password",
    "Prepared",
    "Service",
    "Shocks",
    "Standing",
    "Start",
    "StoppableClock",
    "Stopped",
    "TakenBack",
    "WhatIf",
    "against_chain",
    "agreed",
    "alerts",
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
    "confirm_flows",
    "create_wallet",
    "demo_world",
    "disarm_orders",
    "doctor",
    "edit",
    "explain",
    "export",
    "export_profile",
    "fetch_prices",
    "flows",
    "forget_position",
    "forget_prices",
    "history",
    "import_prices",
    "import_profile",
    "import_wallet",
    "initialise",
    "input_text",
    "invest",
    "journal_of_books",
    "limit_prices",
    "liquidity",
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
    "refresh",
    "rehearse",
    "replay",
    "restore_store",
    "resume",
    "revoke",
    "route_flows",
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
    "swap_at",
    "take_over_strategies",
    "take_position",
    "templates",
    "transactions",
    "trust",
    "try_targets",
    "tune_document",
    "upgrade_store",
    "waiting",
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
    """Loads the module of a name on its first use: pausing loads no web3."""
    if name in _HOME_OF:
        return getattr(import_module(_HOME_OF[name]), name)
    raise AttributeError(f"module 'agent.api' has no attribute {name!r}")
