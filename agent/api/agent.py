"""An agent connected to its chain: status, quote, plan, rebalance, swap, run."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from agent import engine, wiring
from agent.amm.errors import TicksEnd
from agent.api import least, parting, retreat, rounds, schedule, taking_up, trigger_view
from agent.api.endpoints import records
from agent.api.parameters import parameters
from agent.api.realised import realised
from agent.api.submission import Sandwich, sandwich
from agent.config import bounds
from agent.config.fields import parse_address, parse_duration_s
from agent.errors import ConfigError, Refused, Retryable, TrimtabError
from agent.execution.fresh import Further, observed
from agent.execution.outcome import Hands, Outcome
from agent.model import OwnStrategy, Portfolio, Proposed, StepInput, Swap, Verdict
from agent.planning import planner, strategies
from agent.planning.planner import Quote
from agent.policy import coin, liquidity, minimum
from agent.policy.decide import Decided, decide
from agent.policy.drift import overweight, total
from agent.store.lock import Held
from agent.store.versions import Edited
from agent.units import Token, parse_raw

Confirm = Callable[[Outcome], bool]
Progress = Callable[[str], None]
SHORTEST_LOOK_S = 1
LOOKING = "Reading the chain"


def never(_: Outcome) -> bool:
    """Confirms nothing."""
    return False


def silent(_: str) -> None:
    """Shows nothing."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a portfolio stands: `paused` tells the kill switch, `warnings` what the owner should know of its size.

    `endpoints` tells how each endpoint did so far, `hard` whether the kill switch also takes back.
    """

    step_input: StepInput
    decided: Decided
    paused: bool
    pause_reason: str
    warnings: tuple[str, ...]
    endpoints: tuple[dict[str, Any], ...] = ()
    hard: bool = False

    @property
    def native(self) -> coin.NativeView:
        """How the native coin stands beside its wrapped token."""
        return coin.view(self.step_input)

    @property
    def least(self) -> dict[str, Any] | None:
        """The least total at which all of this works, what a year costs, and what to change where the total is below it."""
        drifts = self.decided.drifts
        return least.standing(self.step_input, total(drifts)) if drifts else None

    @property
    def trigger(self) -> trigger_view.TriggerView:
        """What decides when to act, in words."""
        return trigger_view.view(self.step_input, self.decided)


class Agent:
    """What a connected agent can do. Nothing is sent unless `send` is true and `confirm` says yes."""

    def __init__(self, desk: wiring.Desk) -> None:
        self.desk = desk

    @property
    def portfolio(self) -> Portfolio:
        """Tokens and targets."""
        return self.desk.portfolio

    @property
    def on_paper(self) -> bool:
        """Whether nothing that it does reaches a chain."""
        return self.desk.loaded.paper

    def step_input(self) -> StepInput:
        """A fresh snapshot with the owner's wishes and the store's memory."""
        eyes = self.desk.eyes
        found = eyes.reader.snapshot()
        return observed(eyes, eyes.assemble(found, eyes.history(found.head.timestamp_s)))

    def status(self) -> Standing:
        """Where the portfolio stands and what would be decided now."""
        step_input = self.step_input()
        stopped = self.desk.switch.read()
        decided, paused = strategies.decision_at(step_input), stopped.paused is not False
        told = (*minimum.warnings(self.portfolio), *overweight(decided.drifts), *liquidity.warnings(step_input))
        warnings = (*told, *bounds.accepted(self.desk.config.limits))
        return Standing(step_input, decided, paused, stopped.reason, warnings, self.endpoints(), stopped.hard)

    def quote(self, token_in: str, token_out: str, amount: str, pool: str | None = None) -> tuple[StepInput, Quote]:
        """What selling `amount` whole coins of `token_in` would pay, over all pools or in one; more ticks are read where it needs them."""
        sold, bought = self.token(token_in, "--in"), self.token(token_out, "--out")
        raw = self._amount(amount, sold)
        step_input = self.step_input()
        chosen = None if pool is None else parse_address(pool, "--pool")
        try:
            return step_input, planner.quote(step_input, sold.address, bought.address, raw, chosen)
        except TicksEnd:
            deeper = Further(self.desk.eyes.reader)(step_input)
            if deeper is None:
                raise
        return deeper, planner.quote(deeper, sold.address, bought.address, raw, chosen)

    def plan(self) -> Outcome:
        """What a rebalance would do now, judged by every guard; writes nothing."""
        return engine.look(self.desk.eyes, strategies.rebalance)

    def rebalance(self, *, send: bool = False, confirm: Confirm = never, progress: Progress = silent) -> Outcome:
        """One step; under a style of rounds those that follow too, one after the other, until the correction is done."""
        if not send:
            return engine.step(self.desk.eyes, OwnStrategy(), self.desk.store, None)
        wallet = wiring.open_wallet(self.desk, rounds.asked_once(confirm), progress)
        with wallet.held() as hands:
            first = engine.step(self.desk.eyes, OwnStrategy(), self.desk.store, hands)
        return rounds.go_on(wallet, first)

    def swap(
        self, token_in: str, token_out: str, amount: str, *, send: bool = False, confirm: Confirm = never, progress: Progress = silent
    ) -> Outcome:
        """One swap by hand, under the same guards."""
        sold, bought = self.token(token_in, "--in"), self.token(token_out, "--out")
        return self._step(Swap(sold.address, bought.address, self._amount(amount, sold)), send, confirm, progress)

    def run(
        self, *, send: bool = False, confirm: Confirm = never, every: str = "10m", once: bool = False, progress: Progress = silent
    ) -> Generator[Outcome | TrimtabError, None, None]:
        """Steps on and on, yielding each outcome. What may be different at the next look is yielded too (network errors,
        refusals before sending, a wallet that another process has); what needs a person is raised. With `send` the key is held
        from first to last, the wallet during each look alone: between two looks other commands act for it, and each look begins
        with what they left in the store. With `once` it serves nobody else.

        Where the kill switch turns to hard a rest ends, and what waits is taken back instead of a step; where the bot was stopped
        it ends without another act. A version of the config that its owner confirmed meanwhile is taken up between two acts, while
        it holds the wallet, or Edited is raised (agent/api/taking_up.py). `progress` hears LOOKING before each look.
        """
        interval_s = parse_duration_s(every, "--every")
        if interval_s < SHORTEST_LOOK_S:
            raise ConfigError(f"--every: {every!r} is shorter than one second", "for example 10m")
        if send:
            self.require_not_stopped()
        with self._serving(send, confirm, progress, once) as wallet:
            turned, known, waits = [self.desk.switch.is_hard()], self.desk.store.confirmed_config(), False

            def look() -> Outcome | TrimtabError | None:
                nonlocal known, waits, wallet
                progress(LOOKING)
                try:
                    try:
                        return acted()
                    except Edited as edited:
                        if once:
                            raise
                        waits = True
                        self.desk, wallet = taking_up.taken_up(self.desk, wallet, edited)
                        known, waits = self.desk.confirmed, False
                    return acted()
                except Edited:
                    raise
                except Held as held:
                    if once:
                        raise
                    return Retryable(held.message, held.remedy)
                except (Retryable, Refused) as error:
                    return error
                finally:
                    progress(f"next look in {every}")

            def acted() -> Outcome | None:
                with nullcontext() if over() or wallet is None else wallet.held() as hands:
                    return None if over() else self._look(hands, turned)

            def over() -> bool:
                """Whether its owner has stopped the bot. Raises Edited where he has confirmed another config."""
                self.desk.store.require_present(self.desk.loaded.digest, known)
                return wallet is not None and self.desk.store.stopping() is not None

            def called() -> bool:
                """Whether a rest ends early: there is something to do, or nothing any more."""
                try:
                    return over() or (wallet is not None and self.desk.switch.is_hard() and not turned[0])
                except Edited:
                    return not waits  # for an endpoint that did not answer, or for the wallet

            for found in schedule.repeat(look, interval_s, self.desk.clock, self.desk.eyes.chance, called):
                if found is None:
                    return
                yield found
                if once:
                    return

    def _look(self, hands: Hands | None, turned: list[bool]) -> Outcome:
        """One look of a run, while it holds the wallet. `turned` remembers whether the kill switch stood at hard."""
        turned[0] = self.desk.switch.is_hard()
        self.desk.store.prune(self.desk.config.service.keep_steps)
        if turned[0] and hands is not None:
            return retreat.retreat(self.desk.eyes, self.desk.store, hands, self.desk.switch.read().reason)
        return parting.gone_on(self, hands, rounds.step(self.desk, hands))

    def _serving(
        self, send: bool, confirm: Confirm, progress: Progress, once: bool
    ) -> AbstractContextManager[wiring.Wallet] | AbstractContextManager[None]:
        if not send:
            return nullcontext()
        return nullcontext(wiring.open_wallet(self.desk, confirm, progress)) if once else wiring.open_service(self.desk, confirm, progress)

    def require_not_stopped(self) -> None:
        """Raises Refused while the bot is stopped, or being stopped: then only its owner's own commands act."""
        if (request := self.desk.store.stopping()) is not None:
            verdict = Verdict("stopped", f"by its owner, at {request.asked_s} of chain time", "running", False)
            raise Refused("the bot was stopped by its owner", (verdict,), "trimtab resume lets it go on")

    def takes_back(self) -> retreat.TakenBack:
        """What a hard pause would cancel and set to zero now."""
        return retreat.standing(self.desk.eyes, self.desk.store)

    def retreat(self, why: str, progress: Progress = silent) -> Outcome:
        """Cancels what waits and sets to zero what may still be taken, while the kill switch stands at hard."""
        with wiring.open_wallet(self.desk, never, progress).held(takes_back=True) as hands:
            return retreat.retreat(self.desk.eyes, self.desk.store, hands, why)

    def adopt(self, *, nothing_lost: bool = False) -> int:
        """Takes the chain's present nonce for ours and returns it: after the wallet was used by something else, or the store
        was restored from a backup. Raises Retryable while a transaction is pending or open.

        What the wallet did meanwhile the chain is asked at the next look, unless the owner says that `nothing_lost`.
        """
        with wiring.open_hands(self.desk, never, silent) as hands:
            nonce = hands.executor.adopt()
            self.desk.store.adopt_copy()
            if nothing_lost:
                self.desk.store.tell_day((), nonce)
            return nonce

    def _step(self, asked: Proposed, send: bool, confirm: Confirm, progress: Progress) -> Outcome:
        with self._hands(send, confirm, progress) as hands:
            return engine.step(self.desk.eyes, asked, self.desk.store, hands)

    def _hands(self, send: bool, confirm: Confirm, progress: Progress) -> AbstractContextManager[Hands | None]:
        return wiring.open_hands(self.desk, confirm, progress) if send else nullcontext()

    def token(self, name: str, field: str) -> Token:
        """The configured token with that symbol or address. Raises ConfigError listing what there is."""
        known = [*(asset.token for asset in self.portfolio.assets), *self.portfolio.hubs]
        for token in known:
            if name in (token.symbol, token.address) or name.lower() == token.address.lower():
                return token
        raise ConfigError(f"{field}: {name!r} is not a configured token", f"choose from {', '.join(t.label for t in known)}")

    def _amount(self, text: str, token: Token) -> int:
        raw = parse_raw(text, token.decimals, "--amount")
        if raw == 0:
            raise ConfigError("--amount must be above 0", "for example --amount 0.1")
        return raw

    def weights(self, step_input: StepInput) -> dict[str, int]:
        """Weights in bps by symbol."""
        return {self.portfolio.token(d.token).label: d.weight_bps for d in decide(step_input).drifts}

    def drifts(self, step_input: StepInput) -> dict[str, int]:
        """Weight less target in bps by symbol."""
        return {self.portfolio.token(d.token).label: d.drift_bps for d in decide(step_input).drifts}

    def realised(self, outcome: Outcome) -> list[dict[str, Any]]:
        """Planned against realised change of each balance by the receipts of the swap and of all actions with liquidity, base units."""
        return realised(self.desk, outcome)

    def endpoints(self) -> tuple[dict[str, Any], ...]:
        """How each endpoint did so far: operator, state, score, latency, last trouble."""
        return tuple(records(self.desk.panel))

    def sandwich(self, outcome: Outcome) -> Sandwich:
        """Who will see the plan's transaction, and what could be taken of it at most."""
        return sandwich(self.desk.config, outcome)

    def parameters(self) -> dict[str, str]:
        """Everything that binds what is about to be sent, for the owner to confirm."""
        return parameters(self.desk.config, self.desk.counted, self.desk.execution.router)
