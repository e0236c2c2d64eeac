"""Paper trading for a page: begin it, and run it in a process of the server. No key is read, and
nothing is signed or sent.
"""

from __future__ import annotations

from contextlib import closing, suppress

from agent import wiring
from agent.app.controls.runner import ControlRunner
from agent.app.paper import PaperStart, always_confirm, open_paper, paper_config
from agent.app.service import StoppableClock, StopRequested, report_run
from agent.app.settings.users import users_place
from agent.app.start.amounts import paper_capital
from agent.app.start.trust import trust
from agent.config.load import load_config
from agent.errors import ConfigError, ErrorCode
from agent.ports.paper import PaperConfig
from agent.ports.users import UsersPlace

CYCLE_INTERVAL = "10m"
"""Interval between cycles, that of `trimtab paper`."""
LOCAL_CYCLE_INTERVAL = "1m"
"""The same on a local chain, whose prices the owner moves."""


def paper_books(config: str) -> tuple[str, UsersPlace]:
    """Return the file of the paper store, and where its users are. Raises ConfigError without a
    paper store.
    """
    loaded_config = paper_config(config)
    return str(wiring.store_file(loaded_config)), users_place(loaded_config)


def begin_on_paper(config: str) -> None:
    """Pin the contracts of a config for paper alone, and open its paper ledger with the cash of the
    config in the numeraire, unless it is open already. Raises ConfigError, Refused and Retryable.
    """
    paper_source = PaperConfig(config)
    portfolio = load_config(paper_source).config.portfolio
    capital = paper_capital(portfolio.use_cash, portfolio.max_live_value, portfolio.numeraire)
    if not capital:
        raise ConfigError(
            f"portfolio.use_cash: missing, and there is no max_live_value: no amount of"
            f" {portfolio.numeraire} to begin with on paper",
            "write one of them, or give it once: trimtab paper --value",
        )
    trust(paper_source, lambda _: True, is_unreviewed=True)
    try:
        with open_paper(paper_source, PaperStart(amounts=f"{portfolio.numeraire}={capital}")):
            pass
    except ConfigError as error:
        if error.code != ErrorCode.PAPER_STARTED:
            raise


def run_on_paper(config: str) -> None:
    """Run paper cycles, as `trimtab paper` does, until a control or a signal stops them. Raises the
    error that ends the run.
    """
    clock = StoppableClock()
    is_local = load_config(config).config.chain.is_local
    interval = LOCAL_CYCLE_INTERVAL if is_local else CYCLE_INTERVAL
    with (
        suppress(StopRequested),
        clock.listening(),
        open_paper(PaperConfig(config), clock=clock) as agent,
        report_run(agent, clock, interval, sends=True, once=False) as service,
    ):
        controls = ControlRunner(agent)
        cycle_results = agent.run(
            send=True,
            confirm=always_confirm,
            every=interval,
            progress=service.on_stage,
            controls=controls,
        )
        with closing(cycle_results):
            for cycle_result in cycle_results:
                service.on_cycle(cycle_result)
        service.report_controls()
        service.stopped_by = controls.stopped_by
