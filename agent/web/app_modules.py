"""The modules of agent.app and agent.fleet whose functions reading processes call. Type checkers see the modules;
the process that serves pages loads none of them, and has the names of their functions.
"""

# mypy: implicit-reexport

from __future__ import annotations

from typing import TYPE_CHECKING


class AppFunction:
    """A function by its module and name, which a reading process loads. It cannot be called here."""

    def __init__(self, module_name: str, function_name: str) -> None:
        self.__module__ = module_name
        self.__name__ = function_name


class AppModule:
    """A module by its name; its attributes are functions by theirs."""

    def __init__(self, module_name: str) -> None:
        self.__name__ = module_name

    def __getattr__(self, function_name: str) -> AppFunction:
        """Return a function of the module, always the same object."""
        function = AppFunction(self.__name__, function_name)
        setattr(self, function_name, function)
        return function


if TYPE_CHECKING:
    from agent.app import alert_channels, dashboard
    from agent.app.controls import queue, shown_plans
    from agent.app.documents.past import step_history
    from agent.app.records import exports, kill_switch, ledger, run_report
    from agent.app.research import edit_backtests, kept_reports
    from agent.app.settings import new_portfolios, profiles, shown, users
    from agent.app.start import guide
    from agent.fleet import paper_run, practice
else:
    alert_channels = AppModule("agent.app.alert_channels")
    dashboard = AppModule("agent.app.dashboard")
    queue = AppModule("agent.app.controls.queue")
    shown_plans = AppModule("agent.app.controls.shown_plans")
    exports = AppModule("agent.app.records.exports")
    kill_switch = AppModule("agent.app.records.kill_switch")
    ledger = AppModule("agent.app.records.ledger")
    run_report = AppModule("agent.app.records.run_report")
    step_history = AppModule("agent.app.documents.past.step_history")
    edit_backtests = AppModule("agent.app.research.edit_backtests")
    kept_reports = AppModule("agent.app.research.kept_reports")
    new_portfolios = AppModule("agent.app.settings.new_portfolios")
    profiles = AppModule("agent.app.settings.profiles")
    shown = AppModule("agent.app.settings.shown")
    users = AppModule("agent.app.settings.users")
    guide = AppModule("agent.app.start.guide")
    practice = AppModule("agent.fleet.practice")
    paper_run = AppModule("agent.fleet.paper_run")
