"""Guards on the block a plan stands on: its age, the plan's expiry, the balances it spends, the predictions it makes."""

from __future__ import annotations

from agent.guards.case import Case, Measured
from agent.guards.replay import Flow
from agent.guards.words import seconds
from agent.model import Collect, Funding, LpAction, Provide, Withdraw
from agent.policy.coin import floor_wei
from agent.units import NATIVE

FUTURE_TOLERANCE_S = 30
"""How far a block's time may be ahead of the agent's clock: consensus lets block producers be some seconds fast."""


def head_age(case: Case, limit_s: int) -> Measured:
    """Agent's clock less the head's timestamp; a head from the future means a wrong clock or a lying endpoint."""
    age = case.evidence.now_s - case.step.snapshot.head.timestamp_s
    if age < 0:
        return Measured(f"{seconds(-age)} in the future", age >= -FUTURE_TOLERANCE_S)
    return Measured(seconds(age), age <= limit_s)


def expiry(case: Case) -> Measured:
    """The plan was made at this snapshot's block, and may be used now."""
    head = case.step.snapshot.head.number
    current = case.plan.block == head <= case.plan.expires_block
    return Measured(f"plan of block {case.plan.block}, valid to {case.plan.expires_block}, head {head}", current)


def balance(case: Case) -> Measured:
    """Every wallet-funded leg spends what is investable or was bought by the legs before it, and nothing stays in the router.

    What is provided as liquidity is investable, or surely paid by the actions before.
    """
    for action in case.actions():
        if isinstance(action.action, Provide):
            for token, raw in zip((action.action.token0, action.action.token1), action.action.desired_raw, strict=True):
                short = raw - action.before.spendable(token)
                if short > 0:
                    return Measured(f"action {action.number} provides {short} base units of {case.label(token)} too much", False)
    case.runs()
    wallet = _Wallet(case)
    for flow in case.replay.flows:
        short = wallet.run(flow)
        if short > 0:
            return Measured(f"leg {flow.number} spends {short} base units of {case.label(flow.leg.token_in)} too much", False)
    if case.replay.stranded:
        left = "; ".join(f"{raw} base units of {case.label(token)}" for token, raw in case.replay.stranded.items())
        return Measured(f"{left} stay in the router", False)
    return Measured("every leg is funded", True)


class _Wallet:
    """What legs may still spend: of each asset, and of the two forms of the native asset each for itself."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._left: dict[str, int] = {}
        self._forms: dict[str, int] = {}
        self._wrapped = next((asset.token.address for asset in case.step.portfolio.assets if asset.native), None)
        if self._wrapped is not None:
            self._forms = {NATIVE: case.balance(NATIVE) - floor_wei(case.step), self._wrapped: case.balance(self._wrapped)}

    def run(self, flow: Flow) -> int:
        """Books one leg; base units that it spends too much."""
        leg, short = flow.leg, 0
        given, got = self._asset(leg.token_in), self._asset(leg.token_out)
        turns = given == got and leg.source is leg.sink
        if leg.source is Funding.WALLET:
            short = max(0 if turns else -self._add(self._left, given, -flow.amount_in_raw), -self._form(leg.token_in, -flow.amount_in_raw))
        if leg.sink is Funding.WALLET:
            self._form(leg.token_out, flow.amount_out_raw)
            if not turns:
                self._add(self._left, got, flow.amount_out_raw)
        return short

    def _asset(self, token: str) -> str:
        return self._wrapped if token == NATIVE and self._wrapped is not None else token

    def _form(self, token: str, raw: int) -> int:
        return self._add(self._forms, token, raw) if token in self._forms else 0

    def _add(self, ledger: dict[str, int], token: str, raw: int) -> int:
        ledger[token] = (ledger[token] if token in ledger else self._spendable(token)) + raw
        return ledger[token]

    def _spendable(self, token: str) -> int:
        """Balance less reserve of an asset, negative where the reserve is not filled; of a hub nothing: it is not ours to invest."""
        for asset in self._case.step.portfolio.assets:
            if asset.token.address == token:
                return self._case.spendable(asset)
        return 0


def prediction(case: Case) -> Measured:
    """What the plan predicts is what the simulation gives: amounts of every leg, balances after."""
    case.runs()
    for run in case.replay.flows:
        if (run.leg.amount_in_raw, run.leg.amount_out_raw) != (run.amount_in_raw, run.amount_out_raw):
            return Measured(
                f"leg {run.number} gives {run.amount_out_raw} for {run.amount_in_raw}, "
                f"the plan says {run.leg.amount_out_raw} for {run.leg.amount_in_raw}",
                False,
            )
    predicted = dict(case.plan.holdings_after)
    for action in case.actions():
        found, said = (action.liquidity, action.amounts, action.fees), _said(action.action)
        if said != found:
            return Measured(f"action {action.number} moves {found}, the plan says {said}", False)
    if case.plan.actions and not isinstance(case.lp, str):
        for token, raw in predicted.items():
            if case.lp.after.held.get(token) != raw:
                ends = case.lp.after.held.get(token)
                return Measured(f"{case.label(token)} ends at {ends} base units, the plan says {raw}", False)
    if case.plan.native_after_wei is not None:
        predicted[NATIVE] = case.plan.native_after_wei
    for token, moved in case.replay.moved.items():
        after = case.balance(token) + moved if token in predicted else None
        if after != predicted.get(token):
            return Measured(f"{case.label(token)} ends at {after} base units, the plan says {predicted.get(token)}", False)
    return Measured("as simulated", True)


def _said(action: LpAction) -> tuple[int, tuple[int, int], tuple[int, int]]:
    """Liquidity, amounts and fees that an action predicts."""
    match action:
        case Withdraw():
            return action.liquidity, action.amounts_raw, action.fees_raw
        case Collect():
            return 0, (0, 0), action.fees_raw
        case Provide():
            return action.liquidity, action.amounts_raw, (0, 0)
