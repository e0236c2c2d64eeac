"""Two of an owner's commands at once: what one of them ends, the other does not carry on, and says so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from agent import app as api
from agent import wiring
from agent.app.agent import Agent
from agent.app.money import revocation, shutdown, transfers
from agent.config.loaded import LoadedConfig
from agent.errors import ConfigError, Retryable
from agent.localchain import LocalChain
from agent.model import RequestState
from agent.store.files.locks import LockHeld
from tests.support.agents import ROOMY, allow, allowances, fund, purse, reopened_agent, trusted_config, yes
from tests.support.fakes.clock import chain_clock
from tests.support.on_chain.withdrawing import HELD, HOME, OPEN, TARGETS, accept
from tests.support.text import mentions, raises_code


@contextmanager
def bot(chain: LocalChain, folder: Path) -> Iterator[tuple[LoadedConfig, Agent]]:
    fund(chain, HELD)
    loaded = trusted_config(chain, folder, {**ROOMY, **OPEN, "service": {"wallet_wait": "2s"}}, TARGETS)
    with reopened_agent(chain, loaded) as agent:
        yield loaded, agent


def test_released_withdrawal__pays_nothing_when_its_resume_comes(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path) as (loaded, agent), ExitStack() as exit_stack:
        number = transfers.withdraw(agent, transfers.WithdrawalRequest("100", to=None), send=True, confirm=accept).request_id
        assert number is not None
        exit_stack.enter_context(wiring.open_transactor(agent.context, yes, lambda _: None))

        def release() -> None:
            if len(clock.sleeps) == 1:
                agent.context.store.requests.end(number, RequestState.RELEASED, chain.now_s())
                exit_stack.close()

        before = purse(chain)
        clock = chain_clock(chain, on_sleep=release)
        with reopened_agent(chain, loaded, clock=clock) as other, raises_code(ConfigError, "not_open"):
            transfers.resume_withdrawal(other, number, to=HOME, send=True, confirm=accept)
        assert (purse(chain), chain.balance("USDC", HOME)) == (before, 0)


def test_withdrawal_taken_back_midway__is_not_called_paid(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path) as (_, agent):
        number = transfers.withdraw(agent, transfers.WithdrawalRequest("100", to=None), send=True, confirm=accept).request_id
        assert number is not None

        def released(_: object) -> bool:
            agent.context.store.requests.end(number, RequestState.RELEASED, chain.now_s())
            return True

        withdrawal_report = transfers.resume_withdrawal(agent, number, to=HOME, send=True, confirm=released)
        assert (withdrawal_report.state, withdrawal_report.transactions) == ("failed", ())
        assert mentions(withdrawal_report.reason, "released", "0 of")
        assert chain.balance("USDC", HOME) == 0
        assert agent.context.store.requests.newest()[-1].state is RequestState.RELEASED


def test_nothing_is_released_while_another_may_be_paying_it(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path) as (loaded, agent):
        number = transfers.withdraw(agent, transfers.WithdrawalRequest("100", to=None), send=True, confirm=accept).request_id
        assert number is not None
        requests: list[str] = []
        step_transactors = wiring.open_transactor(agent.context, yes, lambda _: None)
        other = reopened_agent(chain, loaded)
        with step_transactors, other as waits, raises_code(LockHeld, "lock", "waited 2 s"):
            transfers.release_withdrawal(waits, number, requests.append)
        assert len(set(requests)) == 1
        assert mentions(requests[0], "wallet", f"process {os.getpid()}")
        assert transfers.release_withdrawal(agent, number).state is RequestState.RELEASED


def test_an_end_that_its_owner_takes_back_sells_and_pays_no_more(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path) as (loaded, agent):
        before = purse(chain)

        def resumed(stage: str) -> None:
            if stage == "before:send":
                api.resume(loaded.path, lambda _: True)

        shutdown_report = shutdown.stop(agent, to_stable=True, send_to=HOME, send=True, confirm=lambda _: True, progress=resumed)
        assert shutdown_report.state == "unfinished"
        assert "resumed" in shutdown_report.reason
        assert agent.context.store.requests.active_stop() is None
        assert chain.balance("USDC", HOME) == 0
        assert purse(chain).nonce > before.nonce, "what had begun came to its end"
        assert not any(allowances(chain).values())


def test_allowance_another_took_back__is_not_taken_back_again(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path) as (_, agent):
        allow(chain, "WETH", raw=5)
        agent.resync_nonce()

        def quicker(_: object) -> bool:
            revocation.revoke(agent, send=True, confirm=lambda _: True)
            return True

        before = purse(chain).nonce
        done = revocation.revoke(agent, send=True, confirm=quicker)
        assert (done.state, done.transactions, purse(chain).nonce) == ("revoked", (), before + 1)


def test_look_without_the_wallet__is_reported_and_tried_again(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path) as (loaded, agent), reopened_agent(chain, loaded) as other:
        looks = agent.run(send=True, confirm=yes, every="10s")
        with wiring.open_transactor(other.context, yes, lambda _: None):
            busy = next(looks)
            assert isinstance(busy, Retryable)
            assert "already acts" in busy.message
            with raises_code(LockHeld, "lock", f"process {os.getpid()}"):
                next(agent.run(send=True, confirm=yes, once=True))
        assert not isinstance(next(looks), Exception)
        with raises_code(LockHeld, "wallet_served", f"process {os.getpid()}"):
            next(other.run(send=True, confirm=yes))
        assert not isinstance(next(other.run(send=True, confirm=yes, once=True)), Exception), "a single look serves nobody"
        looks.close()


def test_run_stopped_or_edited__acts_no_more(chain: LocalChain, tmp_path: Path) -> None:
    with bot(chain, tmp_path) as (loaded, agent), reopened_agent(chain, loaded) as other:
        looks = agent.run(send=True, confirm=yes, every="1h")
        next(looks)
        assert shutdown.stop(other, send=True, confirm=lambda _: True).state == "stopped"
        fund(chain, {"USDC": 9_000})  # much to do
        before = purse(chain)
        assert list(looks) == []
        assert purse(chain) == before
