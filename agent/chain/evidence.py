"""Evidence for the guards, gathered just before a plan is judged: second quotes, pins, quorum, kill
switch, time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.chain.second_quote import Quoter, second_quotes
from agent.errors import TrimtabError
from agent.model import Evidence, Plan, ScreenedToken, SecondQuote, StepInput
from agent.ports import Clock


@dataclass(frozen=True, slots=True)
class GatheredEvidence:
    """Implements ports.EvidenceSource.

    `paused` reads the kill switch as (paused, reason), last of all; a failed read counts as paused
    (T14). `pins` reads the (address, code hash) pairs of `trimtab trust`. `quoter` is None without
    a second source: its guard then refuses unless switched off. `min_operators` must agree;
    endpoints of one operator count once (T2). `screen` tests the transfers of the plan's tokens.
    """

    paused: Callable[[], tuple[bool, str]]
    pins: Callable[[], Sequence[tuple[str, str]]]
    quoter: Quoter | None
    clock: Clock
    min_operators: int
    screen: Callable[[StepInput, Plan], tuple[ScreenedToken, ...]] | None = None

    def gather(self, step: StepInput, plan: Plan) -> Evidence:
        """Evidence for one plan. Raises what reading the pins raises."""
        screens = (
            None
            if self.screen is None or step.limits.token_screen is None
            else self.screen(step, plan)
        )
        quotes = self._second_quotes(step, plan)
        trusted = tuple(self.pins())
        paused, reason = self._kill_switch()
        return Evidence(
            paused=paused,
            pause_reason=reason,
            trusted=trusted,
            second_quotes=quotes,
            quorum=len(set(step.snapshot.operators)) >= self.min_operators,
            now_s=self.clock.now_s(),
            screens=screens,
        )

    def _second_quotes(self, step: StepInput, plan: Plan) -> tuple[SecondQuote, ...]:
        """Return second quotes; none if their guard is off."""
        if step.limits.second_quote_deviation_bps is None:
            return ()
        if self.quoter is None:
            return tuple(
                SecondQuote(number, None, "no second source is configured")
                for number in range(len(plan.legs))
            )
        return second_quotes(plan, step.snapshot.head.hash, self.quoter)

    def _kill_switch(self) -> tuple[bool | None, str]:
        try:
            return self.paused()
        except TrimtabError as error:
            return None, error.message
        except Exception as error:  # any failure to read it counts as paused
            return None, type(error).__name__
