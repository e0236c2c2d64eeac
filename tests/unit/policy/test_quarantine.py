"""Tests of agent/policy/quarantine.py: what is in quarantine, the targets of the others, and that no plan touches it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import codec
from agent.amm.v3.pool import V3Pool
from agent.amm.v3.uniswap_v4 import V4NativePool, V4Pool
from agent.errors import Refused
from agent.execution.step_context import propose_screened
from agent.guards.safety import moved_tokens
from agent.model import (
    PORTFOLIO_SUBJECT,
    CodeHash,
    ConditionalOrder,
    Evidence,
    FailedPool,
    Halt,
    HaltCode,
    Hold,
    OrderKind,
    OrderStage,
    Plan,
    ProxyImplementation,
    Rebalance,
    ScreenedToken,
    ScreenSubject,
    StepInput,
    TokenFinding,
    TokenRefusal,
)
from agent.planning import proposals
from agent.planning.requests import propose_selling_everything
from agent.policy.decide import decide
from agent.policy.quarantine import (
    FIRST_APPROVAL_WAIT_S,
    LONGEST_APPROVAL_WAIT_S,
    UNREADABLE_WAIT_S,
    exclude_unpriced_assets,
    format_quarantine,
    ignored_approval,
    quarantine_ignored_approvals,
    quarantine_pools,
    quarantine_tokens,
    quarantine_unreadable_assets,
    tokens_with_changed_code,
    unreadable_assets,
    unreadable_since_s,
)
from agent.units import BPS, UINT256_MAX
from tests.support.builders import (
    NOW_S,
    address,
    price_of,
    raw,
    step_input,
    token,
    v2_pool,
    v3_pool,
    with_history,
    with_limits,
    with_snapshot,
    without_feed,
)
from tests.support.fakes.evidence import FakeEvidenceSource
from tests.support.lp_worlds import lp_target, planned, world
from tests.support.plans import Swap, evidence, plan_of, sell_weth, verdict
from tests.support.text import mentions, raises_code

WETH, USDC, WBTC, LINK = (token(symbol).address for symbol in ("WETH", "USDC", "WBTC", "LINK"))
PAUSED = ScreenedToken(WETH, TokenFinding.PAUSED, "paused() returns true")
SHARES = {"WETH": 4_000, "WBTC": 2_500, "USDC": 2_000, "LINK": 1_001, "USDT": 499}
"""Shares that no factor fits."""
THREE = {"WETH": 5_000, "WBTC": 2_000, "USDC": 3_000}


def five_asset_step() -> StepInput:
    return step_input(SHARES, {**SHARES, "WBTC": 9_000})


def with_quarantine(step: StepInput, *tokens: str) -> StepInput:
    return quarantine_tokens(step, [ScreenedToken(at, TokenFinding.PAUSED) for at in tokens])


def without_balance(step: StepInput, symbol: str) -> StepInput:
    return with_snapshot(step, holdings=tuple(holding for holding in step.snapshot.holdings if holding.token != token(symbol).address))


def quarantined(step: StepInput) -> list[str]:
    return [screened_token.token for screened_token in step.targets.quarantined_tokens]


# --- Tokens


@pytest.mark.parametrize(
    "screened_tokens",
    [
        pytest.param([], id="none"),
        pytest.param([ScreenedToken(WETH, TokenFinding.CLEAN), ScreenedToken(USDC, TokenFinding.NO_RETURN_VALUE)], id="accepted"),
    ],
)
def test_quarantine_of_no_token_changes_nothing(screened_tokens: list[ScreenedToken]) -> None:
    step = five_asset_step()

    assert quarantine_tokens(step, screened_tokens) is step


def test_quarantine_of_a_token_twice_changes_nothing() -> None:
    step = quarantine_tokens(five_asset_step(), [PAUSED])

    assert quarantine_tokens(step, [PAUSED]) is step


@given(st.data())
def test_quarantine_keeps_the_proportions_of_the_others(data: st.DataObject) -> None:
    step = five_asset_step()
    assets = step.portfolio.assets
    tokens = data.draw(st.sets(st.sampled_from([asset.token.address for asset in assets]), min_size=1, max_size=len(assets) - 1))

    quarantined_step = with_quarantine(step, *tokens)

    kept_assets = [
        (was, now) for was, now in zip(assets, quarantined_step.effective_assets, strict=True) if was.token.address not in tokens
    ]
    kept_bps = sum(was.target_bps for was, _ in kept_assets)
    assert sum(asset.target_bps for asset in quarantined_step.effective_assets) == (BPS if kept_bps else 0)
    assert all(abs(now.target_bps * kept_bps - was.target_bps * BPS) < kept_bps for was, now in kept_assets)
    assert all(asset.target_bps == 0 for asset in quarantined_step.effective_assets if asset.token.address in tokens)
    assert codec.loads(StepInput, codec.dumps(quarantined_step)) == quarantined_step


def test_quarantine_of_a_second_token_keeps_the_first_out() -> None:
    step = with_quarantine(with_quarantine(five_asset_step(), WBTC), WETH)

    target_bps_by_token = dict(step.targets.effective_bps)
    assert quarantined(step) == [WBTC, WETH]
    assert (target_bps_by_token[WBTC], target_bps_by_token[WETH]) == (0, 0)
    assert sum(target_bps_by_token.values()) == BPS


def test_quarantine_scales_effective_targets_and_not_configured_ones() -> None:
    step = step_input(THREE)
    effective_bps = ((WETH, 2_000), (WBTC, 2_000), (USDC, 6_000))
    step = replace(step, targets=replace(step.targets, effective_bps=effective_bps))

    assert dict(with_quarantine(step, WBTC).targets.effective_bps) == {WETH: 2_500, WBTC: 0, USDC: 7_500}


@pytest.mark.parametrize(
    ("reserve_raw", "full_reserve_raw"),
    [pytest.param(0, 20, id="the balance"), pytest.param(20, 20, id="as much"), pytest.param(21, 21, id="a larger reserve")],
)
def test_quarantine_reserves_the_whole_balance(reserve_raw: int, full_reserve_raw: int) -> None:
    step = step_input(THREE)
    holdings = tuple(replace(holding, raw=20) if holding.token == WBTC else holding for holding in step.snapshot.holdings)
    assets = tuple(replace(asset, reserve_raw=reserve_raw if asset.token.address == WBTC else 0) for asset in step.portfolio.assets)
    step = replace(with_snapshot(step, holdings=holdings), portfolio=replace(step.portfolio, assets=assets))

    (asset,) = (asset for asset in with_quarantine(step, WBTC).portfolio.assets if asset.token.address == WBTC)

    assert asset.reserve_raw == full_reserve_raw < UINT256_MAX


def test_quarantine_of_an_unknown_balance_leaves_a_hub() -> None:
    step = with_quarantine(without_balance(step_input(THREE), "WBTC"), WBTC)

    assert dict(step.targets.effective_bps).keys() == {WETH, USDC} == {asset.token.address for asset in step.portfolio.assets}
    assert [hub.address for hub in step.portfolio.hubs] == [WBTC]


@pytest.mark.parametrize(
    ("shown_tokens", "texts"),
    [
        pytest.param(None, ["WETH is in quarantine: ", "WBTC is in quarantine: "], id="all"),
        pytest.param({WBTC}, ["WBTC is in quarantine: "], id="one"),
        pytest.param(set(), [], id="none"),
    ],
)
def test_quarantine_text_names_tokens_and_reasons(shown_tokens: set[str] | None, texts: list[str]) -> None:
    step = with_quarantine(five_asset_step(), WETH, WBTC)

    text = format_quarantine(step.portfolio, step.targets.quarantined_tokens, shown_tokens)

    assert [part[: len(expected)] for part, expected in zip(text.split("; ") if text else [], texts, strict=True)] == texts


# --- Pools

MANAGER = address("manager")
FROZEN = "the pool cannot send 7 base units of it"


def failed_pools_of(token_address: str, *contracts: str) -> ScreenedToken:
    """Return a token that moves, but not through these contracts."""
    failed = tuple(FailedPool(contract, FROZEN) for contract in contracts)
    return ScreenedToken(token_address, TokenFinding.CLEAN, "", ScreenSubject.POOL, failed)


def kept_by_manager(kind: type[V4Pool], name: str, pool: V3Pool) -> V4Pool:
    """Return the pool as one of V4 under this name."""
    state = {field.name: getattr(pool, field.name) for field in fields(V3Pool)}
    return kind(**state | {"address": address(name), "manager": MANAGER})


def with_pools() -> StepInput:
    """Return a step with WETH far above its target; with USDC it has a pool of V2, one of V3, and two of V4, which share a contract."""
    weth = token("WETH")
    usdc = token("USDC")
    wbtc = token("WBTC")
    price = price_of("WETH")
    v3 = v3_pool(weth, usdc, price, 9_000_000)
    v4_pools = [
        kept_by_manager(V4Pool, name, pool)
        for name, pool in (("a", v3), ("b", replace(v3, fee_pips=3_000)), ("c", v3_pool(wbtc, weth, price_of("WBTC") / price)))
    ]
    pools = [v2_pool(weth, usdc, price, 5_000_000), v3, *v4_pools, v2_pool(wbtc, usdc, price_of("WBTC"))]
    step = step_input({"WETH": 4_000, "WBTC": 2_000, "USDC": 4_000}, {"WETH": 8_000, "WBTC": 1_000, "USDC": 1_000}, pools=pools)
    return replace(step, execution=replace(step.execution, router_kind="rebalancer"))


def pools_out(step: StepInput) -> list[tuple[str, str]]:
    """Return address and reason of each pool in quarantine."""
    return [(item.address, item.why) for item in step.snapshot.unreadable_items if item.subject == "pool"]


def test_quarantine_excludes_every_pool_of_a_failed_contract() -> None:
    step = quarantine_pools(with_pools(), [failed_pools_of(USDC, MANAGER)])

    assert pools_out(step) == [(address(name), f"USDC: {FROZEN}") for name in "ab"]
    assert quarantined(step) == []
    assert codec.loads(StepInput, codec.dumps(step)) == step


def test_quarantine_of_the_same_pools_changes_nothing() -> None:
    step = quarantine_pools(with_pools(), [failed_pools_of(USDC, MANAGER)])

    assert quarantine_pools(step, [failed_pools_of(USDC, MANAGER)]) is step


def test_quarantine_adds_pools_that_fail_for_another_token() -> None:
    step = quarantine_pools(with_pools(), [failed_pools_of(USDC, MANAGER)])

    both = quarantine_pools(step, [failed_pools_of(WETH, MANAGER)])

    assert pools_out(both) == [*((address(name), f"USDC: {FROZEN}") for name in "ab"), (address("c"), f"WETH: {FROZEN}")]


def test_quarantine_of_a_pool_for_two_tokens_names_the_first() -> None:
    step = with_pools()
    pair = step.snapshot.pools[0]

    step = quarantine_pools(step, [failed_pools_of(WETH, pair.contract), failed_pools_of(USDC, pair.contract)])

    assert pools_out(step) == [(pair.address, f"WETH: {FROZEN}")]


# --- Unreadable balances


def unread_for(seconds: int, symbol: str = "WBTC") -> StepInput:
    """Return a step without the balance of an asset, which was last read so many seconds ago."""
    step = without_balance(step_input(THREE), symbol)
    return with_history(step, unread_since_s_by_token=((token(symbol).address, NOW_S - seconds),))


@pytest.mark.parametrize(
    ("seconds", "tokens"), [(UNREADABLE_WAIT_S, [WBTC]), (UNREADABLE_WAIT_S - 1, [])], ids=["for an hour", "a second less"]
)
def test_unreadable_asset_is_quarantined_after_an_hour(seconds: int, tokens: list[str]) -> None:
    step = unread_for(seconds)

    assert [screened_token.token for screened_token in unreadable_assets(step)] == tokens
    assert quarantined(quarantine_unreadable_assets(step)) == tokens


def test_unreadable_asset_in_quarantine_is_named_and_remembered() -> None:
    step = unread_for(UNREADABLE_WAIT_S)

    quarantined_step = quarantine_unreadable_assets(step)

    targets_bps = {asset.token.symbol: asset.target_bps for asset in quarantined_step.effective_assets}
    assert targets_bps == {"WETH": 6_250, "USDC": 3_750}
    text = format_quarantine(quarantined_step.portfolio, quarantined_step.targets.quarantined_tokens)
    assert mentions(text, "WBTC", "quarantine", "1 h")
    assert unreadable_since_s(quarantined_step) == step.history.unread_since_s_by_token


@pytest.mark.parametrize(
    ("step", "since_s"),
    [
        pytest.param(step_input(THREE), (), id="all read"),
        pytest.param(without_balance(step_input(THREE), "WBTC"), ((WBTC, NOW_S),), id="for the first time"),
        pytest.param(unread_for(5), ((WBTC, NOW_S - 5),), id="since the first time"),
    ],
)
def test_unreadable_since_is_the_first_failure(step: StepInput, since_s: tuple[tuple[str, int], ...]) -> None:
    assert unreadable_since_s(step) == since_s


@pytest.mark.parametrize("symbol", ["USDC", "WETH"], ids=["numeraire", "gas coin"])
def test_unreadable_numeraire_and_gas_coin_are_never_quarantined(symbol: str) -> None:
    step = unread_for(10 * UNREADABLE_WAIT_S, symbol)

    assert unreadable_since_s(step)
    assert unreadable_assets(step) == []


# --- Ignored approvals


def with_ignored_approval(at_s: int, count: int = 1, token_address: str = LINK) -> StepInput:
    """Return a step whose token ignored its approvals so often, at last at `at_s`."""
    return with_history(five_asset_step(), ignored_approvals=(TokenRefusal(token_address, at_s, count, "no allowance"),))


@pytest.mark.parametrize(
    ("count", "wait_s"),
    [
        pytest.param(1, FIRST_APPROVAL_WAIT_S, id="once"),
        pytest.param(2, 2 * FIRST_APPROVAL_WAIT_S, id="twice"),
        pytest.param(7, 64 * FIRST_APPROVAL_WAIT_S, id="seven times"),
        pytest.param(8, LONGEST_APPROVAL_WAIT_S, id="eight times"),
        pytest.param(1_000, LONGEST_APPROVAL_WAIT_S, id="a thousand times"),
    ],
)
def test_ignored_approval_waits_longer_after_each_attempt(count: int, wait_s: int) -> None:
    assert ignored_approval(with_ignored_approval(NOW_S - wait_s, count), LINK) is None

    screened_token = ignored_approval(with_ignored_approval(NOW_S - wait_s + 1, count), LINK)

    assert screened_token.finding is TokenFinding.APPROVAL_IGNORED
    assert mentions(screened_token.detail, "no allowance", "once" if count == 1 else f"{count} times", "tried again at")


@pytest.mark.parametrize(("at_s", "token_address"), [(NOW_S + 1, LINK), (NOW_S, WBTC)], ids=["of a later block", "of another token"])
def test_ignored_approval_is_past_and_of_the_token(at_s: int, token_address: str) -> None:
    assert ignored_approval(with_ignored_approval(at_s, token_address=token_address), LINK) is None


def with_fired_stop(step: StepInput, token_address: str, stage: OrderStage = OrderStage.FIRED) -> StepInput:
    stop = ConditionalOrder(token_address, OrderKind.STOP_LOSS, stage, None, 1, price_of("WETH"), None, price_of("WETH"))  # type: ignore[arg-type]  # no terms
    return with_history(step, states=(stop,))


@pytest.mark.parametrize(
    ("step", "tokens"),
    [
        pytest.param(with_ignored_approval(NOW_S), [LINK], id="no exit"),
        pytest.param(with_ignored_approval(NOW_S - FIRST_APPROVAL_WAIT_S), [], id="wait is over"),
        pytest.param(with_fired_stop(with_ignored_approval(NOW_S), WBTC), [LINK], id="exit of another token"),
        pytest.param(with_fired_stop(with_ignored_approval(NOW_S), LINK, OrderStage.DONE), [LINK], id="exit is done"),
        pytest.param(with_fired_stop(with_ignored_approval(NOW_S), LINK), [], id="exit of the token"),
        pytest.param(with_fired_stop(with_ignored_approval(NOW_S), PORTFOLIO_SUBJECT), [], id="exit of the portfolio"),
    ],
)
def test_ignored_approvals_are_quarantined_unless_an_exit_needs_it(step: StepInput, tokens: list[str]) -> None:
    assert quarantined(quarantine_ignored_approvals(step)) == tokens


# --- Exits alone


@pytest.mark.parametrize(
    ("step", "quarantined_tokens", "reason"),
    [
        pytest.param(without_feed(five_asset_step(), "LINK"), [], "no reference price", id="unpriced"),
        pytest.param(without_balance(five_asset_step(), "LINK"), [LINK], "balance", id="unread"),
        pytest.param(without_balance(with_quarantine(five_asset_step(), LINK), "LINK"), [LINK], "balance", id="unread, in quarantine"),
    ],
)
def test_exits_go_on_without_an_unpriced_or_unread_asset(step: StepInput, quarantined_tokens: list[str], reason: str) -> None:
    exits = exclude_unpriced_assets(step)

    tokens = {asset.token.address for asset in exits.portfolio.assets}
    assert LINK not in tokens
    assert LINK in [hub.address for hub in exits.portfolio.hubs]
    assert dict(exits.targets.effective_bps).keys() == tokens
    assert sum(dict(exits.targets.effective_bps).values()) == BPS
    assert quarantined(exits) == quarantined_tokens
    assert mentions(exits.exclusions.exits_only_reason, "LINK", reason)


def provided_step() -> StepInput:
    """Return a step with a target of liquidity in WBTC, whose balance is unknown."""
    step = without_balance(step_input(THREE), "WBTC")
    return replace(step, portfolio=replace(step.portfolio, lp_targets=(replace(lp_target(1_000), token0=WBTC),)))


@pytest.mark.parametrize(
    "step",
    [
        pytest.param(step_input(THREE), id="all known"),
        *(pytest.param(without_balance(step_input(), symbol), id=f"{symbol} unread") for symbol in ("USDC", "WETH")),
        *(pytest.param(without_feed(step_input(), symbol), id=f"{symbol} unpriced") for symbol in ("USDC", "WETH")),
        pytest.param(provided_step(), id="token of a liquidity target"),
        pytest.param(without_balance(step_input({"LINK": 10_000, "USDC": 0}), "LINK"), id="no other target"),
    ],
)
def test_exits_never_go_on_without_an_indispensable_asset(step: StepInput) -> None:
    assert exclude_unpriced_assets(step) is step


# --- Changed code

CODE = "0x" + "aa" * 32
OTHER_CODE = "0x" + "bb" * 32
PLACE = address("place")
ELSEWHERE = address("elsewhere")
UNREAD_PLACE = address("code that was not read")
NO_ADDRESS = "0x" + "0" * 40
CHANGED = TokenFinding.IMPLEMENTATION_CHANGED


@pytest.mark.parametrize(
    ("code", "implementations", "pins", "pinned_implementations", "finding"),
    [
        pytest.param(CODE, [], {WETH: CODE}, {}, None, id="pinned code"),
        pytest.param(CODE, [], {}, {}, None, id="no pin"),
        pytest.param(OTHER_CODE, [], {}, {}, None, id="other code without a pin"),
        pytest.param(OTHER_CODE, [], {WETH: CODE}, {}, TokenFinding.CODE_CHANGED, id="other code"),
        pytest.param(None, [], {WETH: CODE}, {}, None, id="unread code"),
        pytest.param(CODE, [PLACE], {WETH: CODE}, {WETH: (PLACE, CODE)}, None, id="pinned implementation"),
        pytest.param(CODE, [PLACE], {WETH: CODE}, {}, CHANGED, id="implementation without a pin"),
        pytest.param(CODE, [ELSEWHERE], {WETH: CODE}, {WETH: (PLACE, CODE)}, CHANGED, id="another implementation"),
        pytest.param(CODE, [PLACE], {WETH: CODE}, {WETH: (PLACE, OTHER_CODE)}, CHANGED, id="other code of the implementation"),
        pytest.param(CODE, [], {WETH: CODE}, {WETH: (PLACE, CODE)}, CHANGED, id="no implementation left"),
        pytest.param(CODE, [PLACE, ELSEWHERE], {WETH: CODE}, {WETH: (PLACE, CODE)}, CHANGED, id="two implementations"),
        pytest.param(
            CODE,
            [UNREAD_PLACE],
            {WETH: CODE},
            {WETH: (UNREAD_PLACE, CODE)},
            TokenFinding.CODE_UNREAD,
            id="unread code of the implementation",
        ),
        pytest.param(CODE, [NO_ADDRESS], {WETH: CODE}, {WETH: (PLACE, CODE)}, TokenFinding.CODE_UNREAD, id="unread implementation"),
        pytest.param(CODE, [UNREAD_PLACE], {WETH: CODE}, {WETH: (PLACE, CODE)}, CHANGED, id="another implementation, its code unread"),
        pytest.param(CODE, [PLACE], {}, {WETH: (ELSEWHERE, CODE)}, None, id="implementation pinned alone"),
    ],
)
def test_changed_code_is_named_by_its_pin(
    code: str | None,
    implementations: list[str],
    pins: dict[str, str],
    pinned_implementations: dict[str, tuple[str, str]],
    finding: TokenFinding | None,
) -> None:
    codes = {WETH: code, PLACE: CODE, ELSEWHERE: CODE}
    snapshot = replace(
        five_asset_step().snapshot,
        code_hashes=tuple(CodeHash(at, code_hash) for at, code_hash in codes.items() if code_hash is not None),
        implementations=tuple(ProxyImplementation(WETH, place) for place in implementations),
    )

    screened_tokens = tokens_with_changed_code(snapshot, [WETH, USDC], pins, pinned_implementations)

    assert [screened_token.finding for screened_token in screened_tokens] == ([] if finding is None else [finding])


# --- Plans around a quarantine


Screen = Callable[[Plan], Mapping[str, ScreenedToken]]


def evidence_source(screen: Screen | None) -> FakeEvidenceSource:
    """Return a source with these findings by token in place of clean ones; None: nothing is screened."""
    if screen is None:
        return FakeEvidenceSource(screened_tokens=None)

    def with_findings(plan: Plan, plain: Evidence) -> Evidence:
        findings = screen(plan)
        return replace(plain, screened_tokens=tuple(findings.get(screened.token, screened) for screened in plain.screened_tokens or ()))

    return FakeEvidenceSource(with_findings)


def test_quarantined_balance_does_not_count_and_is_named() -> None:
    step = quarantine_tokens(five_asset_step(), [PAUSED])
    decision_result = decide(step)
    assert isinstance(decision_result.decision, Rebalance), "WBTC is far above its share of what is left"
    assert next(drift for drift in decision_result.drifts if drift.token == WETH).value == 0
    assert mentions(decision_result.decision.reason, "WETH", "quarantine", "paused()")
    plan = proposals.propose_rebalance(step).plan
    assert WETH not in moved_tokens(plan)
    assert ("token WETH", f"in quarantine: {PAUSED.why}; {PAUSED.finding.remedy}") in [(item.subject, item.why) for item in plan.skipped]


def test_fewer_than_two_tokens_halt() -> None:
    step = five_asset_step()
    decision_result = decide(with_quarantine(step, *(asset.token.address for asset in step.portfolio.assets[1:])))
    assert isinstance(decision_result.decision, Halt)
    assert decision_result.decision.codes == (HaltCode.QUARANTINE,)
    assert "2" in decision_result.decision.reason


def test_manual_swap_of_a_quarantined_token_is_refused() -> None:
    step = quarantine_tokens(five_asset_step(), [PAUSED])
    with raises_code(Refused, "token_screen", "WETH") as refusal:
        proposals.manual_swap_proposer(WETH, USDC, 10**17)(step)
    assert refusal.value.verdicts[0].guard == "token_screen"


def test_token_screen_refuses_bad_and_unscreened_tokens() -> None:
    step = five_asset_step()
    plan = sell_weth(step)
    assert verdict("token_screen", step, plan).passed
    all_screens = evidence(step, plan).screened_tokens or ()
    assert {screened.token for screened in all_screens} == set(moved_tokens(plan))
    for screens in (
        None,
        (),
        all_screens[:1],
        (PAUSED, *all_screens[1:]),
        (replace(PAUSED, finding=TokenFinding.UNKNOWN), *all_screens[1:]),
    ):
        assert not verdict("token_screen", step, plan, evidence(step, plan, screened_tokens=screens)).passed
    assert not verdict("token_screen", replace(step, targets=replace(step.targets, quarantined_tokens=(PAUSED,))), plan).passed


def test_token_that_fails_the_screen_is_planned_around() -> None:
    step = with_limits(step_input(SHARES, {**SHARES, "WBTC": 9_000, "LINK": 3_000}), plan_cost_bps=100)
    wbtc = token("WBTC").address
    link = token("LINK").address
    source = evidence_source(lambda _plan: {wbtc: ScreenedToken(wbtc, TokenFinding.PAUSED)})
    quarantined_step, proposal, gathered = propose_screened(step, proposals.propose_rebalance, source)
    assert [screen.token for screen in quarantined_step.targets.quarantined_tokens] == [wbtc]
    assert isinstance(proposal, proposals.Proposal)
    assert proposal.plan is not None
    assert wbtc not in moved_tokens(proposal.plan)
    assert link in moved_tokens(proposal.plan)
    first, second = source.plans
    assert wbtc in moved_tokens(first)
    assert second == proposal.plan
    assert gathered == source.gather(quarantined_step, proposal.plan), "the guards judge by the screen of this plan, not of the first"


@pytest.mark.parametrize("screen", [lambda _plan: {}, None], ids=["all are clean", "nothing is screened"])
def test_plan_of_clean_tokens_is_the_first_plan(screen: Screen | None) -> None:
    step = step_input(SHARES, {**SHARES, "WBTC": 9_000})
    source = evidence_source(screen)
    same, proposal, gathered = propose_screened(step, proposals.propose_rebalance, source)
    assert isinstance(proposal, proposals.Proposal)
    assert source.plans == [proposal.plan]
    assert same.targets.quarantined_tokens == ()
    assert gathered is not None


@pytest.mark.parametrize("count", [1, 2, 3])
def test_failed_pools_are_excluded_and_the_next_is_used(count: int) -> None:
    step = with_pools()
    contracts = (step.snapshot.pools[1].contract, MANAGER, step.snapshot.pools[0].contract)[:count]
    contract_by_pool = {pool.address: pool.contract for pool in step.snapshot.pools}

    def screen(plan: Plan) -> dict[str, ScreenedToken]:
        used = {contract_by_pool[leg.pool] for leg in plan.legs if USDC in (leg.token_in, leg.token_out)} & {*contracts}
        return {USDC: failed_pools_of(USDC, *(contract for contract in contracts if contract in used))} if used else {}

    source = evidence_source(screen)
    screened_step, proposal, gathered = propose_screened(step, proposals.propose_rebalance, source)
    assert screened_step.targets.quarantined_tokens == ()
    assert isinstance(proposal, proposals.Proposal)
    if proposal.plan is None:  # every pool of WETH and USDC fails: WBTC is left, and no third token is bought in its place
        assert count == 3
        return
    assert gathered is not None
    assert verdict("token_screen", screened_step, proposal.plan, gathered).passed
    used = {leg.pool for leg in proposal.plan.legs if USDC in (leg.token_in, leg.token_out)}
    excluded = {pool.address for pool in step.snapshot.pools if pool.contract in contracts and USDC in (pool.token0, pool.token1)}
    assert not used & excluded
    assert any(item.subject.endswith(pool) and FROZEN in item.why for item in proposal.plan.skipped for pool in excluded)


def test_allowlist_pins_the_contract_of_a_pool() -> None:
    step = with_pools()
    _, _, pool, *_ = step.snapshot.pools
    codes = tuple(CodeHash(MANAGER, code.hash) if code.address == pool.address else code for code in step.snapshot.code_hashes)
    pinned = with_snapshot(step, code_hashes=codes)
    plan = plan_of(pinned, [Swap(pool, WETH, 10**15)])
    assert verdict("allowlist", pinned, plan).passed
    assert f"code at {MANAGER} was not read" in verdict("allowlist", step, plan).measured_text


def test_selling_everything_names_what_stays_in_quarantine() -> None:
    step = step_input({"WETH": 5_000, "USDC": 5_000})
    quarantined_step = with_quarantine(step, WETH)
    decision = propose_selling_everything(quarantined_step).decision_result.decision
    assert isinstance(decision, Hold)
    assert mentions(decision.reason, "WETH stays", "quarantine")
    empty = with_snapshot(quarantined_step, holdings=tuple(replace(holding, raw=0) for holding in quarantined_step.snapshot.holdings))
    assert "stays" not in propose_selling_everything(empty).decision_result.decision.reason


def test_token_screen_refuses_a_failed_pool_of_its_token() -> None:
    step = step_input(SHARES, {**SHARES, "WBTC": 9_000})
    plan = sell_weth(step)
    (contract,) = {pool.contract for pool in step.snapshot.pools if pool.address == plan.legs[0].pool}
    usual_screens = evidence(step, plan).screened_tokens or ()
    for failed, passes in (((USDC, contract), False), ((USDC, MANAGER), True), ((token("LINK").address, contract), True)):
        screens = (*(screen for screen in usual_screens if screen.token != failed[0]), failed_pools_of(*failed))
        assert verdict("token_screen", step, plan, evidence(step, plan, screened_tokens=screens)).passed is passes


def with_native_pool() -> tuple[StepInput, Plan]:
    """A step with a pool of V3 and one of native coin for WETH and WBTC, and one of USDC and WETH that shares the latter's contract; a sale
    of a WETH for native coin's WBTC.
    """
    weth = token("WETH")
    wbtc = token("WBTC")
    v3 = v3_pool(weth, wbtc, price_of("WETH") / price_of("WBTC"), 100)
    native = kept_by_manager(V4NativePool, "native", v3)
    other = kept_by_manager(V4Pool, "other", v3_pool(weth, token("USDC"), price_of("WETH")))
    step = step_input(SHARES, {"WETH": 8_000, "WBTC": 1_000, "USDC": 1_000}, pools=[v3, native, other])
    return step, plan_of(step, [Swap(native, WETH, raw(1, weth))])


def test_provision_to_a_failed_pool_is_refused() -> None:
    step = world((), [lp_target(2_500)])
    provision = planned(step)
    pool = step.snapshot.pools[-1]
    assert [action.pool for action in provision.layer_actions] == [pool.address]
    for contract, passes in ((pool.contract, False), (MANAGER, True)):
        screens = [screen for screen in evidence(step, provision).screened_tokens or () if screen.token != USDC]
        plan_evidence = evidence(step, provision, screened_tokens=(*screens, failed_pools_of(USDC, contract)))
        assert verdict("token_screen", step, provision, plan_evidence).passed is passes


@pytest.mark.parametrize(
    ("failed_token", "left_out", "passes"),
    [pytest.param(WETH, "other", True, id="wrapped coin"), pytest.param(WBTC, "native", False, id="the other coin")],
)
def test_native_pool_stays_if_its_manager_fails_wrapped_coin(failed_token: str, left_out: str, passes: bool) -> None:
    step, sale = with_native_pool()
    screened_step = quarantine_pools(step, [failed_pools_of(failed_token, MANAGER)])
    assert [item.address for item in screened_step.snapshot.unreadable_items] == [address(left_out)]
    screens = [screen for screen in evidence(step, sale).screened_tokens or () if screen.token != failed_token]
    plan_evidence = evidence(step, sale, screened_tokens=(*screens, failed_pools_of(failed_token, MANAGER)))
    assert verdict("token_screen", step, sale, plan_evidence).passed is passes
