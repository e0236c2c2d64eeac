"""The public Python API: one typed call per command. `open_agent` keeps a connection open, which
functions of an Agent use; every other function opens and closes its own.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the single list of public names, used by type checkers and by __getattr__
    from agent.app.agent import Agent as Agent
    from agent.app.agent import open_agent as open_agent
    from agent.app.agent import plan as plan
    from agent.app.agent import quote as quote
    from agent.app.agent import snapshot as snapshot
    from agent.app.agent import step as step
    from agent.app.alert_channels import alerts as alerts
    from agent.app.alert_channels import send_test_alerts as send_test_alerts
    from agent.app.controls.queue import find_control as find_control
    from agent.app.controls.queue import list_controls as list_controls
    from agent.app.controls.queue import submit_control as submit_control
    from agent.app.controls.runner import ControlRunner as ControlRunner
    from agent.app.controls.shown_plans import preview_control as preview_control
    from agent.app.controls.telegram import serve_telegram as serve_telegram
    from agent.app.documents.past.step_history import explain as explain
    from agent.app.documents.past.step_history import history as history
    from agent.app.documents.past.waiting import (
        cancel_order_or_execution as cancel_order_or_execution,
    )
    from agent.app.documents.past.waiting import limit_price_text as limit_price_text
    from agent.app.documents.past.waiting import order_document as order_document
    from agent.app.documents.past.waiting import orders_and_executions as orders_and_executions
    from agent.app.documents.plans import limit_prices as limit_prices
    from agent.app.documents.research import FuturesWhatIfDocument as FuturesWhatIfDocument
    from agent.app.documents.status import PortfolioStatus as PortfolioStatus
    from agent.app.local import DEMO_BANNER as DEMO_BANNER
    from agent.app.local import DEMO_CRASHES as DEMO_CRASHES
    from agent.app.local import MarketMove as MarketMove
    from agent.app.local import base_demo_world as base_demo_world
    from agent.app.local import demo_world as demo_world
    from agent.app.local import futures_demo_world as futures_demo_world
    from agent.app.local import live_demo as live_demo
    from agent.app.local import move_market as move_market
    from agent.app.local import serve_localchain as serve_localchain
    from agent.app.money.deployment import deploy_rebalancer as deploy_rebalancer
    from agent.app.money.deployment import rebalancer_deployment as rebalancer_deployment
    from agent.app.money.hard_pause import HardPauseReport as HardPauseReport
    from agent.app.money.hard_pause import pause_hard as pause_hard
    from agent.app.money.proposal_execution import execute_proposal as execute_proposal
    from agent.app.money.proposal_files import read_proposal_file as read_proposal_file
    from agent.app.money.proposals import collect_from_service as collect_from_service
    from agent.app.money.proposals import collect_signatures as collect_signatures
    from agent.app.money.proposals import export_proposal as export_proposal
    from agent.app.money.proposals import list_proposals as list_proposals
    from agent.app.money.proposals import proposal_typed_data as proposal_typed_data
    from agent.app.money.proposals import sign_proposal as sign_proposal
    from agent.app.money.rehearsal import rehearse_trade as rehearse_trade
    from agent.app.money.revocation import revoke as revoke
    from agent.app.money.shutdown import stop as stop
    from agent.app.money.transfers import classify_transfers as classify_transfers
    from agent.app.money.transfers import invest as invest
    from agent.app.money.transfers import list_transfers as list_transfers
    from agent.app.money.transfers import withdraw as withdraw
    from agent.app.paper import PaperStart as PaperStart
    from agent.app.paper import always_confirm as always_confirm
    from agent.app.paper import open_paper as open_paper
    from agent.app.paper import paper_config as paper_config
    from agent.app.positions.futures import FuturesOptions as FuturesOptions
    from agent.app.positions.futures import current_futures_report as current_futures_report
    from agent.app.positions.futures import futures_funding as futures_funding
    from agent.app.positions.futures import what_if_futures as what_if_futures
    from agent.app.positions.holdings import LiquidityReport as LiquidityReport
    from agent.app.positions.holdings import adopt_position as adopt_position
    from agent.app.positions.holdings import forget_position as forget_position
    from agent.app.positions.holdings import read_liquidity_report as read_liquidity_report
    from agent.app.positions.holdings import reconcile_strategies as reconcile_strategies
    from agent.app.positions.holdings import route_transfers as route_transfers
    from agent.app.positions.holdings import strategies as strategies
    from agent.app.positions.orders import LimitOrderRequest as LimitOrderRequest
    from agent.app.positions.orders import arm_orders as arm_orders
    from agent.app.positions.orders import disarm_orders as disarm_orders
    from agent.app.positions.orders import set_orders as set_orders
    from agent.app.positions.orders import standing_orders as standing_orders
    from agent.app.positions.orders import swap_at_limit as swap_at_limit
    from agent.app.positions.shocked_futures import shocked_futures as shocked_futures
    from agent.app.records.exports import export as export
    from agent.app.records.kill_switch import pause as pause
    from agent.app.records.kill_switch import resume as resume
    from agent.app.records.ledger import check_books as check_books
    from agent.app.records.ledger import compare_with_chain as compare_with_chain
    from agent.app.records.ledger import list_entries as list_entries
    from agent.app.records.ledger import open_new_book as open_new_book
    from agent.app.records.ledger import pnl as pnl
    from agent.app.records.ledger import refresh_ledger as refresh_ledger
    from agent.app.records.lots import tax_lots as tax_lots
    from agent.app.records.maintenance import backup_store as backup_store
    from agent.app.records.maintenance import cancel as cancel
    from agent.app.records.maintenance import check_store as check_store
    from agent.app.records.maintenance import pending_transactions as pending_transactions
    from agent.app.records.maintenance import reconcile as reconcile
    from agent.app.records.maintenance import restore_store as restore_store
    from agent.app.records.maintenance import transactions as transactions
    from agent.app.records.oracle import observations as observations
    from agent.app.records.oracle import raise_observations as raise_observations
    from agent.app.records.oracle import weights as weights
    from agent.app.records.price_history import fetch_prices as fetch_prices
    from agent.app.records.price_history import forget_prices as forget_prices
    from agent.app.records.price_history import import_prices as import_prices
    from agent.app.records.price_history import recorded_price_spans as recorded_price_spans
    from agent.app.records.run_report import run_health as run_health
    from agent.app.records.store_copy import copy_store as copy_store
    from agent.app.research.backtests import MarketOptions as MarketOptions
    from agent.app.research.backtests import PortfolioOptions as PortfolioOptions
    from agent.app.research.backtests import backtest as backtest
    from agent.app.research.backtests import prices_file as prices_file
    from agent.app.research.backtests import sample_files as sample_files
    from agent.app.research.futures_backtests import FuturesBookOptions as FuturesBookOptions
    from agent.app.research.futures_backtests import backtest_document as backtest_document
    from agent.app.research.futures_backtests import backtest_futures as backtest_futures
    from agent.app.research.futures_backtests import has_futures as has_futures
    from agent.app.research.futures_backtests import (
        prepare_futures_stress as prepare_futures_stress,
    )
    from agent.app.research.futures_backtests import refuse_spot_options as refuse_spot_options
    from agent.app.research.futures_backtests import stress_futures as stress_futures
    from agent.app.research.kept_reports import new_report_path as new_report_path
    from agent.app.research.offline import input_text as input_text
    from agent.app.research.offline import plan_saved_input as plan_saved_input
    from agent.app.research.offline import replay as replay
    from agent.app.research.report_files import check_report_path as check_report_path
    from agent.app.research.report_files import write_report as write_report
    from agent.app.research.report_files import write_stress_report as write_stress_report
    from agent.app.research.report_files import write_tune_report as write_tune_report
    from agent.app.research.trials import PreparedStressTest as PreparedStressTest
    from agent.app.research.trials import StressOptions as StressOptions
    from agent.app.research.trials import TuneOptions as TuneOptions
    from agent.app.research.trials import prepare_stress as prepare_stress
    from agent.app.research.trials import prepare_tune as prepare_tune
    from agent.app.research.trials import run_stress as run_stress
    from agent.app.research.trials import run_tune as run_tune
    from agent.app.research.trials import with_shocks as with_shocks
    from agent.app.research.whatif import WhatIf as WhatIf
    from agent.app.research.whatif import WhatIfOptions as WhatIfOptions
    from agent.app.research.whatif import what_if as what_if
    from agent.app.service import RunEventHandler as RunEventHandler
    from agent.app.service import SingleStopClock as SingleStopClock
    from agent.app.service import StoppableClock as StoppableClock
    from agent.app.service import StopRequested as StopRequested
    from agent.app.service import report_run as report_run
    from agent.app.settings.editing import edit as edit
    from agent.app.settings.profiles import PastResultPrices as PastResultPrices
    from agent.app.settings.profiles import ProfileSource as ProfileSource
    from agent.app.settings.profiles import export_profile as export_profile
    from agent.app.settings.profiles import import_profile as import_profile
    from agent.app.settings.users import add_user as add_user
    from agent.app.settings.users import end_token_access as end_token_access
    from agent.app.settings.users import list_users as list_users
    from agent.app.settings.users import record_token_added as record_token_added
    from agent.app.settings.users import remove_user as remove_user
    from agent.app.settings.users import user_log as user_log
    from agent.app.start.doctor.checks import doctor as doctor
    from agent.app.start.guide import InitAnswers as InitAnswers
    from agent.app.start.guide import baskets as baskets
    from agent.app.start.past_prices import needed_past_prices as needed_past_prices
    from agent.app.start.past_prices import read_first_prices as read_first_prices
    from agent.app.start.past_prices import read_past_prices as read_past_prices
    from agent.app.start.past_results import OTHER_YEARS_BASIS as OTHER_YEARS_BASIS
    from agent.app.start.past_results import PAST_BASIS as PAST_BASIS
    from agent.app.start.questions import QUESTION_BY_FIELD as QUESTION_BY_FIELD
    from agent.app.start.questions import QUESTIONS as QUESTIONS
    from agent.app.start.setup import FuturesStart as FuturesStart
    from agent.app.start.setup import existing_config_error as existing_config_error
    from agent.app.start.setup import local_start as local_start
    from agent.app.start.setup import require_endpoints as require_endpoints
    from agent.app.start.templates import templates as templates
    from agent.app.start.trust import trust as trust
    from agent.app.start.units import UnitOptions as UnitOptions
    from agent.app.start.units import install_units as install_units
    from agent.app.start.units import remove_units as remove_units
    from agent.app.start.wallet import PasswordSource as PasswordSource
    from agent.app.start.wallet import change_password as change_password
    from agent.app.start.wallet import create_wallet as create_wallet
    from agent.app.start.wallet import import_wallet as import_wallet
    from agent.app.start.wallet import wallet_address as wallet_address
    from agent.backtest.stress.run import stress_document as stress_document
    from agent.backtest.tune.report import tune_document as tune_document
    from agent.backtest.workers import check_scheduler_address as check_scheduler_address
    from agent.config.load import load_config as load_config
    from agent.execution.approvals import PendingAndAllowances as PendingAndAllowances
    from agent.execution.step_context import OutcomeKind as OutcomeKind
    from agent.execution.step_context import StepOutcome as StepOutcome


@cache
def _home_modules() -> dict[str, str]:
    """Return the module of each public name, from the imports above."""
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {
        alias.asname: str(node.module) for node in imports for alias in node.names if alias.asname
    }


def __dir__() -> list[str]:
    """Return all names for completion, those that are loaded on first use too."""
    return sorted({*globals(), *_home_modules()})


def __getattr__(name: str) -> Any:
    """Import a name's module on its first use, so that pausing does not import web3."""
    if module_name := _home_modules().get(name):
        return getattr(import_module(module_name), name)
    raise AttributeError(f"module 'agent.app' has no attribute {name!r}")
