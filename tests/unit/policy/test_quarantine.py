"""A token in quarantine: what is wanted of the others, what is said of it, and that nothing may touch it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

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
    CodeHash,
    Evidence,
    FailedPool,
    Halt,
    HaltCode,
    Hold,
    Plan,
    ProxyImplementation,
    Rebalance,
    ScreenedToken,
    ScreenSubject,
    StepInput,
    TokenFinding,
)
from agent.planning import proposals
from agent.planning.requests import propose_selling_everything
from agent.policy.decide import decide
from agent.policy.quarantine import (
    exclude_unpriced_assets,
    format_quarantine,
    quarantine_pools,
    quarantine_tokens,
    tokens_with_changed_code,
    unreadable_assets,
    unreadable_since_s,
)
from agent.units import BPS
from tests.support.builders import address, price_of, raw, step_input, token, v2_pool, v3_pool, with_limits, with_snapshot, without_feed
from tests.support.lp_worlds import planned, wanted, world
from tests.support.plans import Swap, evidence, plan_of, sell_weth, verdict
from tests.support.text import mentions, raises_code

WETH, USDC, WBTC = (token(symbol).address for symbol in ("WETH", "USDC", "WBTC"))
PAUSED = ScreenedToken(WETH, TokenFinding.PAUSED, "paused() returns true")


SHARES = {"WETH": 4_000, "WBTC": 2_500, "USDC": 2_000, "LINK": 1_001, "USDT": 499}


def five_asset_step() -> StepInput:
    """Five assets, shares that no factor fits."""
    return step_input(SHARES, {**SHARES, "WBTC": 9_000})


def with_quarantine(step: StepInput, *tokens: str) -> StepInput:
    return quarantine_tokens(step, [ScreenedToken(address, TokenFinding.PAUSED) for address in tokens])


def test_quarantine_of_an_accepted_token_changes_nothing() -> None:
    step = five_asset_step()
    assert quarantine_tokens(step, [ScreenedToken(WETH, TokenFinding.CLEAN), ScreenedToken(USDC, TokenFinding.NO_RETURN_VALUE)]) is step
    once = quarantine_tokens(step, [PAUSED])
    assert quarantine_tokens(once, [PAUSED]) is once


@given(st.data())
def test_targets_of_the_others_keep_their_proportions(data: st.DataObject) -> None:
    step = five_asset_step()
    assets = step.portfolio.assets
    out = data.draw(st.sets(st.sampled_from([asset.token.address for asset in assets]), min_size=1, max_size=len(assets) - 1))
    quarantined_step = with_quarantine(step, *out)
    kept_assets = [(was, now) for was, now in zip(assets, quarantined_step.effective_assets, strict=True) if was.token.address not in out]
    kept_bps = sum(was.target_bps for was, _ in kept_assets)
    assert sum(asset.target_bps for asset in quarantined_step.effective_assets) == (BPS if kept_bps else 0)
    assert all(abs(now.target_bps * kept_bps - was.target_bps * BPS) < kept_bps for was, now in kept_assets)
    assert all(asset.target_bps == 0 for asset in quarantined_step.effective_assets if asset.token.address in out)
    assert codec.loads(StepInput, codec.dumps(quarantined_step)) == quarantined_step


def test_quarantined_balance_does_not_count_and_is_named() -> None:
    step = quarantine_tokens(five_asset_step(), [PAUSED])
    decision_result = decide(step)
    assert isinstance(decision_result.decision, Rebalance), "WBTC is far above its share of what is left"
    assert next(drift for drift in decision_result.drifts if drift.token == WETH).value == 0
    assert mentions(decision_result.decision.reason, "WETH", "quarantine", "paused()")
    plan = proposals.propose_rebalance(step).plan
    assert plan is not None
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


@dataclass
class Screens:
    """Evidence whose screen finds these tokens bad; None: nothing was screened. `plans` are those that were screened."""

    bad: tuple[ScreenedToken, ...] | None
    plans: list[Plan] = field(default_factory=list)

    def gather(self, step: StepInput, plan: Plan) -> Evidence:
        self.plans.append(plan)
        usual = evidence(step, plan)
        if self.bad is None:
            return replace(usual, screened_tokens=None)
        bad = {screen.token: screen for screen in self.bad}
        return replace(usual, screened_tokens=tuple(bad.get(screen.token, screen) for screen in usual.screened_tokens or ()))


def test_token_that_fails_the_screen_is_planned_around() -> None:
    step = with_limits(step_input(SHARES, {**SHARES, "WBTC": 9_000, "LINK": 3_000}), plan_cost_bps=100)
    wbtc = token("WBTC").address
    link = token("LINK").address
    source = Screens((ScreenedToken(wbtc, TokenFinding.PAUSED),))
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


@pytest.mark.parametrize("bad", [(), None], ids=["all are clean", "nothing is screened"])
def test_plan_of_clean_tokens_is_the_first_plan(bad: tuple[ScreenedToken, ...] | None) -> None:
    step = step_input(SHARES, {**SHARES, "WBTC": 9_000})
    source = Screens(bad)
    same, proposal, gathered = propose_screened(step, proposals.propose_rebalance, source)
    assert isinstance(proposal, proposals.Proposal)
    assert source.plans == [proposal.plan]
    assert same.targets.quarantined_tokens == ()
    assert gathered is not None


MANAGER = address("manager")
FROZEN = "the pool cannot send 7 base units of it"


def kept_by_manager(kind: type[V4Pool], name: str, pool: V3Pool) -> V4Pool:
    """The pool as one of V4 under this name."""
    state = {field.name: getattr(pool, field.name) for field in fields(V3Pool)}
    return kind(**state | {"address": address(name), "manager": MANAGER})


def with_pools() -> StepInput:
    """WETH far above its target; with USDC it has a pool of V2, one of V3, and two of V4, which share a contract."""
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


def failed_pools_of(token_address: str, *contracts: str) -> ScreenedToken:
    """A token that moves, but not through these contracts."""
    failed = tuple(FailedPool(contract, FROZEN) for contract in contracts)
    return ScreenedToken(token_address, TokenFinding.CLEAN, "", ScreenSubject.POOL, failed)


def test_quarantine_excludes_every_pool_of_a_failed_contract() -> None:
    step = with_pools()
    screened_step = quarantine_pools(step, [failed_pools_of(USDC, MANAGER)])
    assert [(item.subject, item.address) for item in screened_step.snapshot.unreadable_items] == [
        ("pool", address("a")),
        ("pool", address("b")),
    ]
    assert screened_step.snapshot.unreadable_items[0].why == f"USDC: {FROZEN}"
    assert screened_step.targets.quarantined_tokens == ()
    assert codec.loads(StepInput, codec.dumps(screened_step)) == screened_step
    assert quarantine_pools(screened_step, [failed_pools_of(USDC, MANAGER)]) is screened_step, "nothing new"
    both = quarantine_pools(screened_step, [failed_pools_of(WETH, MANAGER)])
    assert [item.address for item in both.snapshot.unreadable_items] == [address(name) for name in "abc"]


def test_pool_that_failed_for_two_tokens_names_the_first() -> None:
    step = with_pools()
    pair = step.snapshot.pools[0]
    [item] = quarantine_pools(step, [failed_pools_of(WETH, pair.contract), failed_pools_of(USDC, pair.contract)]).snapshot.unreadable_items
    assert (item.address, item.why) == (pair.address, f"WETH: {FROZEN}")


@dataclass
class FakePoolScreen:
    """Evidence in which these contracts fail for USDC whenever a plan uses them."""

    contracts: tuple[str, ...]
    plans: list[Plan] = field(default_factory=list)

    def gather(self, step: StepInput, plan: Plan) -> Evidence:
        self.plans.append(plan)
        contract_by_pool = {pool.address: pool.contract for pool in step.snapshot.pools}
        used = {contract_by_pool[leg.pool] for leg in plan.legs if USDC in (leg.token_in, leg.token_out)}
        usual = evidence(step, plan)
        failed = failed_pools_of(USDC, *(contract for contract in self.contracts if contract in used))
        screened_tokens = tuple(
            failed if screened_token.token == USDC and failed.failed_pools else screened_token
            for screened_token in usual.screened_tokens or ()
        )
        return replace(usual, screened_tokens=screened_tokens)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_failed_pools_are_excluded_and_the_next_is_used(count: int) -> None:
    step = with_pools()
    contracts = (step.snapshot.pools[1].contract, MANAGER, step.snapshot.pools[0].contract)[:count]
    source = FakePoolScreen(contracts)
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
    step = world((), [wanted(2_500)])
    provision = planned(step)
    pool = step.snapshot.pools[-1]
    assert [action.pool for action in provision.layer_actions] == [pool.address]
    for contract, passes in ((pool.contract, False), (MANAGER, True)):
        screens = [screen for screen in evidence(step, provision).screened_tokens or () if screen.token != USDC]
        plan_evidence = evidence(step, provision, screened_tokens=(*screens, failed_pools_of(USDC, contract)))
        assert verdict("token_screen", step, provision, plan_evidence).passed is passes


@pytest.mark.parametrize(("failed_token", "left_out", "passes"), [(WETH, "other", True), (WBTC, "native", False)])
def test_native_pool_stays_if_its_manager_fails_wrapped_coin(failed_token: str, left_out: str, passes: bool) -> None:
    step, sale = with_native_pool()
    screened_step = quarantine_pools(step, [failed_pools_of(failed_token, MANAGER)])
    assert [item.address for item in screened_step.snapshot.unreadable_items] == [address(left_out)]
    screens = [screen for screen in evidence(step, sale).screened_tokens or () if screen.token != failed_token]
    plan_evidence = evidence(step, sale, screened_tokens=(*screens, failed_pools_of(failed_token, MANAGER)))
    assert verdict("token_screen", step, sale, plan_evidence).passed is passes


CODE = "0x" + "aa" * 32
OTHER = "0x" + "bb" * 32
PLACE = address("place")
ELSEWHERE = address("elsewhere")
UNREAD = address("code that was not read")
NO_ADDRESS = "0x" + "0" * 40


@pytest.mark.parametrize(
    ("code", "now", "pins", "backing", "finding"),
    [
        (CODE, [], {WETH: CODE}, {}, None),
        (CODE, [], {}, {}, None),
        (OTHER, [], {WETH: CODE}, {}, TokenFinding.CODE_CHANGED),
        (CODE, [PLACE], {WETH: CODE}, {WETH: (PLACE, CODE)}, None),
        (CODE, [PLACE], {WETH: CODE}, {}, TokenFinding.IMPLEMENTATION_CHANGED),
        (CODE, [ELSEWHERE], {WETH: CODE}, {WETH: (PLACE, CODE)}, TokenFinding.IMPLEMENTATION_CHANGED),
        (CODE, [PLACE], {WETH: CODE}, {WETH: (PLACE, OTHER)}, TokenFinding.IMPLEMENTATION_CHANGED),
        (CODE, [], {WETH: CODE}, {WETH: (PLACE, CODE)}, TokenFinding.IMPLEMENTATION_CHANGED),
        (CODE, [PLACE, ELSEWHERE], {WETH: CODE}, {WETH: (PLACE, CODE)}, TokenFinding.IMPLEMENTATION_CHANGED),
        (CODE, [UNREAD], {WETH: CODE}, {WETH: (UNREAD, CODE)}, TokenFinding.CODE_UNREAD),
        (CODE, [NO_ADDRESS], {WETH: CODE}, {WETH: (PLACE, CODE)}, TokenFinding.CODE_UNREAD),
        (CODE, [UNREAD], {WETH: CODE}, {WETH: (PLACE, CODE)}, TokenFinding.IMPLEMENTATION_CHANGED),
        (CODE, [PLACE], {}, {WETH: (ELSEWHERE, CODE)}, None),
    ],
)
def test_changed_code_is_named_by_its_pin(
    code: str, now: list[str], pins: dict[str, str], backing: dict[str, tuple[str, str]], finding: TokenFinding | None
) -> None:
    snapshot = replace(
        five_asset_step().snapshot,
        code_hashes=(CodeHash(WETH, code), CodeHash(PLACE, CODE), CodeHash(ELSEWHERE, CODE)),
        implementations=tuple(ProxyImplementation(WETH, place) for place in now),
    )
    screened_tokens = tokens_with_changed_code(snapshot, [WETH, USDC], pins, backing)
    assert [screened.finding for screened in screened_tokens] == ([] if finding is None else [finding])


def test_unread_code_has_not_changed() -> None:
    snapshot = replace(five_asset_step().snapshot, code_hashes=(), implementations=())
    assert tokens_with_changed_code(snapshot, [WETH], {WETH: CODE}, {}) == []


def test_token_with_an_unknown_balance_has_no_target() -> None:
    step = with_quarantine(without_balance(step_input(THREE), "WBTC"), WBTC)
    assert dict(step.targets.effective_bps).keys() == {WETH, USDC}


def test_second_token_joins_the_first_in_quarantine() -> None:
    once = with_quarantine(five_asset_step(), WBTC)
    twice = with_quarantine(once, WETH)
    assert [screened.token for screened in twice.targets.quarantined_tokens] == [WBTC, WETH]
    target_bps_by_token = dict(twice.targets.effective_bps)
    assert (target_bps_by_token[WBTC], target_bps_by_token[WETH]) == (0, 0)
    assert sum(target_bps_by_token.values()) == BPS


def test_asset_silent_for_an_hour_is_quarantined() -> None:
    step = step_with_silent_asset(3_600)
    quarantined_step = quarantine_tokens(step, unreadable_assets(step))
    assert {a.token.symbol: a.target_bps for a in quarantined_step.effective_assets} == {"WETH": 6_250, "USDC": 3_750}
    assert mentions(format_quarantine(quarantined_step.portfolio, quarantined_step.targets.quarantined_tokens), "WBTC", "quarantine", "1 h")
    assert unreadable_since_s(quarantined_step) == step.history.unread_since_s_by_token, "what is left alone is still remembered as unread"


def test_asset_silent_a_second_less_is_not_quarantined() -> None:
    assert not unreadable_assets(step_with_silent_asset(3_599))
    assert unreadable_since_s(without_balance(step_input(THREE), "WBTC"))[0][1] == step_input().snapshot.head.timestamp_s


def test_numeraire_and_gas_coin_are_never_quarantined() -> None:
    for symbol in ("USDC", "WETH"):
        step = without_balance(step_input(THREE), symbol)
        step = replace(step, history=replace(step.history, unread_since_s_by_token=((token(symbol).address, 0),)))
        assert unreadable_since_s(step)
        assert not unreadable_assets(step)


LINK = token("LINK").address


@pytest.mark.parametrize("is_read", [True, False])
def test_exits_go_on_without_an_unpriced_or_unread_asset(is_read: bool) -> None:
    """Only one whose balance is not known is in quarantine, too."""
    step = without_feed(five_asset_step(), "LINK") if is_read else without_balance(five_asset_step(), "LINK")
    exits = exclude_unpriced_assets(step)
    assert LINK not in [asset.token.address for asset in exits.portfolio.assets]
    assert LINK in [hub.address for hub in exits.portfolio.hubs]
    assert dict(exits.targets.effective_bps).keys() == {asset.token.address for asset in exits.portfolio.assets}
    assert sum(dict(exits.targets.effective_bps).values()) == BPS
    assert [screened.token for screened in exits.targets.quarantined_tokens] == ([] if is_read else [LINK])
    assert mentions(exits.exclusions.exits_only_reason, "LINK", "no reference price" if is_read else "balance")


def test_unread_asset_in_quarantine_is_listed_once() -> None:
    exits = exclude_unpriced_assets(without_balance(with_quarantine(five_asset_step(), LINK), "LINK"))
    assert [screened.token for screened in exits.targets.quarantined_tokens] == [LINK]
    assert "LINK" in exits.exclusions.exits_only_reason


@pytest.mark.parametrize("symbol", ["USDC", "WETH"])
def test_exits_need_numeraire_and_wrapped_coin(symbol: str) -> None:
    for step in (without_balance(step_input(), symbol), without_feed(step_input(), symbol)):
        assert exclude_unpriced_assets(step) is step


def test_exits_need_the_tokens_of_liquidity_targets() -> None:
    step = without_balance(step_input(THREE), "WBTC")
    assert exclude_unpriced_assets(step) is not step
    target = replace(wanted(1_000), token0=WBTC)
    provided = replace(step, portfolio=replace(step.portfolio, lp_targets=(target,)))
    assert exclude_unpriced_assets(provided) is provided


def test_exits_need_another_asset_with_a_target() -> None:
    step = without_balance(step_input({"LINK": 10_000, "USDC": 0}), "LINK")
    assert exclude_unpriced_assets(step) is step


THREE = {"WETH": 5_000, "WBTC": 2_000, "USDC": 3_000}


def without_balance(step: StepInput, symbol: str) -> StepInput:
    holdings = tuple(holding for holding in step.snapshot.holdings if holding.token != token(symbol).address)
    return with_snapshot(step, holdings=holdings)


def step_with_silent_asset(seconds: int) -> StepInput:
    step = without_balance(step_input(THREE), "WBTC")
    since = ((token("WBTC").address, step.snapshot.head.timestamp_s - seconds),)
    return replace(step, history=replace(step.history, unread_since_s_by_token=since))
