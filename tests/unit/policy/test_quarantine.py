"""A token in quarantine: what is wanted of the others, what is said of it, and that nothing may touch it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import codec
from agent.amm.v3.pool import V3Pool
from agent.amm.v3.uniswap_v4 import V4NativePool, V4Pool
from agent.chain.screening.moves import TokenMove, plan_token_moves, pool_moves, screening_moves
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
    Pool,
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


def whole() -> StepInput:
    """Five assets, shares that no factor fits."""
    return step_input(SHARES, {**SHARES, "WBTC": 9_000})


def shut(step: StepInput, *tokens: str) -> StepInput:
    return quarantine_tokens(step, [ScreenedToken(one, TokenFinding.PAUSED) for one in tokens])


def test_what_is_accepted_or_shut_out_already_changes_nothing() -> None:
    step = whole()
    assert quarantine_tokens(step, [ScreenedToken(WETH, TokenFinding.CLEAN), ScreenedToken(USDC, TokenFinding.NO_RETURN_VALUE)]) is step
    once = quarantine_tokens(step, [PAUSED])
    assert quarantine_tokens(once, [PAUSED]) is once


@given(st.data())
def test_targets_of_the_others_keep_their_proportions_and_sum_to_the_whole(data: st.DataObject) -> None:
    step = whole()
    assets = step.portfolio.assets
    out = data.draw(st.sets(st.sampled_from([asset.token.address for asset in assets]), min_size=1, max_size=len(assets) - 1))
    left = shut(step, *out)
    kept = [(was, now) for was, now in zip(assets, left.effective_assets, strict=True) if was.token.address not in out]
    kept_bps = sum(was.target_bps for was, _ in kept)
    assert sum(asset.target_bps for asset in left.effective_assets) == (BPS if kept_bps else 0)
    assert all(abs(now.target_bps * kept_bps - was.target_bps * BPS) < kept_bps for was, now in kept)
    assert all(asset.target_bps == 0 for asset in left.effective_assets if asset.token.address in out)
    assert codec.loads(StepInput, codec.dumps(left)) == left


def test_what_is_held_of_it_does_not_count_and_every_decision_names_it() -> None:
    step = quarantine_tokens(whole(), [PAUSED])
    decided = decide(step)
    assert isinstance(decided.decision, Rebalance), "WBTC is far above its share of what is left"
    assert next(drift for drift in decided.drifts if drift.token == WETH).value == 0
    assert mentions(decided.decision.reason, "WETH", "quarantine", "paused()")
    plan = proposals.propose_rebalance(step).plan
    assert plan is not None
    assert WETH not in moved_tokens(plan)
    assert ("token WETH", f"in quarantine: {PAUSED.why}; {PAUSED.finding.remedy}") in [(item.subject, item.why) for item in plan.skipped]


def test_fewer_than_two_tokens_left_halt() -> None:
    step = whole()
    decided = decide(shut(step, *(asset.token.address for asset in step.portfolio.assets[1:])))
    assert isinstance(decided.decision, Halt)
    assert decided.decision.codes == (HaltCode.QUARANTINE,)
    assert "2" in decided.decision.reason


def test_a_swap_by_hand_of_it_is_refused_and_says_why() -> None:
    step = quarantine_tokens(whole(), [PAUSED])
    with raises_code(Refused, "token_screen", "WETH") as refusal:
        proposals.manual_swap_proposer(WETH, USDC, 10**17)(step)
    assert refusal.value.verdicts[0].guard == "token_screen"


def test_no_plan_passes_that_moves_it_or_whose_tokens_were_not_tried() -> None:
    step = whole()
    plan = sell_weth(step)
    assert verdict("token_screen", step, plan).passed
    tried = evidence(step, plan).screened_tokens or ()
    assert {one.token for one in tried} == set(moved_tokens(plan))
    for seen in (None, (), tried[:1], (PAUSED, *tried[1:]), (replace(PAUSED, finding=TokenFinding.UNKNOWN), *tried[1:])):
        assert not verdict("token_screen", step, plan, evidence(step, plan, screened_tokens=seen)).passed
    assert not verdict("token_screen", replace(step, targets=replace(step.targets, quarantined_tokens=(PAUSED,))), plan).passed


@dataclass
class Screens:
    """Evidence whose screen finds these tokens bad; None: nothing was screened. `plans` are those that were screened."""

    bad: tuple[ScreenedToken, ...] | None
    plans: list[Plan] = field(default_factory=list)

    def gather(self, step: StepInput, plan: Plan) -> Evidence:
        self.plans.append(plan)
        seen = evidence(step, plan)
        if self.bad is None:
            return replace(seen, screened_tokens=None)
        bad = {screen.token: screen for screen in self.bad}
        return replace(seen, screened_tokens=tuple(bad.get(screen.token, screen) for screen in seen.screened_tokens or ()))


def test_a_token_that_fails_the_screen_is_left_alone_and_the_rest_is_planned_and_screened_again() -> None:
    step = with_limits(step_input(SHARES, {**SHARES, "WBTC": 9_000, "LINK": 3_000}), plan_cost_bps=100)
    wbtc, link = token("WBTC").address, token("LINK").address
    source = Screens((ScreenedToken(wbtc, TokenFinding.PAUSED),))
    left, proposal, gathered = propose_screened(step, proposals.propose_rebalance, source)
    assert [screen.token for screen in left.targets.quarantined_tokens] == [wbtc]
    assert isinstance(proposal, proposals.Proposal)
    assert proposal.plan is not None
    assert wbtc not in moved_tokens(proposal.plan)
    assert link in moved_tokens(proposal.plan)
    first, second = source.plans
    assert wbtc in moved_tokens(first)
    assert second == proposal.plan
    assert gathered == source.gather(left, proposal.plan), "the guards judge by the screen of this plan, not of the first"


@pytest.mark.parametrize("bad", [(), None], ids=["all are clean", "nothing is screened"])
def test_a_plan_whose_tokens_are_not_found_bad_is_the_first_one(bad: tuple[ScreenedToken, ...] | None) -> None:
    step, source = step_input(SHARES, {**SHARES, "WBTC": 9_000}), Screens(bad)
    same, proposal, gathered = propose_screened(step, proposals.propose_rebalance, source)
    assert isinstance(proposal, proposals.Proposal)
    assert source.plans == [proposal.plan]
    assert same.targets.quarantined_tokens == ()
    assert gathered is not None


MANAGER, FROZEN = address("manager"), "the pool cannot send 7 base units of it"


def kept_by_manager(kind: type[V4Pool], name: str, pool: V3Pool) -> V4Pool:
    """The pool as one of V4 under this name."""
    state = {field.name: getattr(pool, field.name) for field in fields(V3Pool)}
    return kind(**state | {"address": address(name), "manager": MANAGER})


def with_pools() -> StepInput:
    """WETH far above its target; with USDC it has a pool of V2, one of V3, and two of V4, which share a contract."""
    weth, usdc, wbtc = token("WETH"), token("USDC"), token("WBTC")
    price = price_of("WETH")
    v3 = v3_pool(weth, usdc, price, 9_000_000)
    v4_pools = [
        kept_by_manager(V4Pool, name, pool)
        for name, pool in (("a", v3), ("b", replace(v3, fee_pips=3_000)), ("c", v3_pool(wbtc, weth, price_of("WBTC") / price)))
    ]
    pools = [v2_pool(weth, usdc, price, 5_000_000), v3, *v4_pools, v2_pool(wbtc, usdc, price_of("WBTC"))]
    step = step_input({"WETH": 4_000, "WBTC": 2_000, "USDC": 4_000}, {"WETH": 8_000, "WBTC": 1_000, "USDC": 1_000}, pools=pools)
    return replace(step, execution=replace(step.execution, router_kind="rebalancer"))


def failing(token_address: str, *contracts: str) -> ScreenedToken:
    """A token that moves, but not through these contracts."""
    failed = tuple(FailedPool(contract, FROZEN) for contract in contracts)
    return ScreenedToken(token_address, TokenFinding.CLEAN, "", ScreenSubject.POOL, failed)


def test_every_pool_of_a_failed_contract_is_left_out() -> None:
    step = with_pools()
    screened_step = quarantine_pools(step, [failing(USDC, MANAGER)])
    assert [(item.subject, item.address) for item in screened_step.snapshot.unreadable_items] == [
        ("pool", address("a")),
        ("pool", address("b")),
    ]
    assert screened_step.snapshot.unreadable_items[0].why == f"USDC: {FROZEN}"
    assert screened_step.targets.quarantined_tokens == ()
    assert codec.loads(StepInput, codec.dumps(screened_step)) == screened_step
    assert quarantine_pools(screened_step, [failing(USDC, MANAGER)]) is screened_step, "nothing new"
    both = quarantine_pools(screened_step, [failing(WETH, MANAGER)])
    assert [item.address for item in both.snapshot.unreadable_items] == [address(name) for name in "abc"]


def test_a_pool_that_failed_for_two_tokens_names_the_first() -> None:
    step = with_pools()
    pair = step.snapshot.pools[0]
    [item] = quarantine_pools(step, [failing(WETH, pair.contract), failing(USDC, pair.contract)]).snapshot.unreadable_items
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
        failed = failing(USDC, *(contract for contract in self.contracts if contract in used))
        screened_tokens = tuple(
            failed if screened_token.token == USDC and failed.failed_pools else screened_token
            for screened_token in usual.screened_tokens or ()
        )
        return replace(usual, screened_tokens=screened_tokens)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_pools_that_fail_are_left_out_and_the_next_is_used(count: int) -> None:
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


def test_of_a_pool_its_contract_is_pinned_not_its_identifier() -> None:
    step = with_pools()
    _, _, pool, *_ = step.snapshot.pools
    codes = tuple(CodeHash(MANAGER, code.hash) if code.address == pool.address else code for code in step.snapshot.code_hashes)
    pinned = with_snapshot(step, code_hashes=codes)
    plan = plan_of(pinned, [Swap(pool, WETH, 10**15)])
    assert verdict("allowlist", pinned, plan).passed
    assert f"code at {MANAGER} was not read" in verdict("allowlist", step, plan).measured_text


def test_doctor_tests_each_pool_and_a_contract_once() -> None:
    step = with_pools()
    usdc_pools = [pool.address for pool in step.snapshot.pools if USDC in (pool.token0, pool.token1)]
    moves = screening_moves(step)
    assert sorted(move.pool.address for move in moves if move.token == USDC) == sorted(usdc_pools)
    assert len(pool_moves(moves, USDC)) == len(usdc_pools) - 1, "the manager keeps two of them"
    screened_step = quarantine_pools(step, [failing(USDC, MANAGER)])
    assert {move.pool.contract for move in screening_moves(screened_step) if move.token == USDC}.isdisjoint({MANAGER})


def test_each_contract_is_tested_at_its_largest_transfer() -> None:
    step = with_pools()
    v2, v3, *_ = step.snapshot.pools
    small, large, other = TokenMove(USDC, v2, 10), TokenMove(USDC, v2, 30), TokenMove(USDC, v3, 20)
    assert pool_moves((small, other, large), USDC) == [large, other]


def test_a_sale_of_everything_names_what_stays_in_quarantine() -> None:
    step = step_input({"WETH": 5_000, "USDC": 5_000})
    quarantined_step = shut(step, WETH)
    decision = propose_selling_everything(quarantined_step).decision_result.decision
    assert isinstance(decision, Hold)
    assert mentions(decision.reason, "WETH stays", "quarantine")
    empty = with_snapshot(quarantined_step, holdings=tuple(replace(holding, raw=0) for holding in quarantined_step.snapshot.holdings))
    assert "stays" not in propose_selling_everything(empty).decision_result.decision.reason


def test_no_plan_passes_that_uses_a_pool_that_failed_for_its_token() -> None:
    step = step_input(SHARES, {**SHARES, "WBTC": 9_000})
    plan = sell_weth(step)
    (contract,) = {pool.contract for pool in step.snapshot.pools if pool.address == plan.legs[0].pool}
    usual_screens = evidence(step, plan).screened_tokens or ()
    for failed, passes in (((USDC, contract), False), ((USDC, MANAGER), True), ((token("LINK").address, contract), True)):
        screens = (*(screen for screen in usual_screens if screen.token != failed[0]), failing(*failed))
        assert verdict("token_screen", step, plan, evidence(step, plan, screened_tokens=screens)).passed is passes


def with_native_pool() -> tuple[StepInput, Plan]:
    """A step with a pool of V3 and one of native coin for WETH and WBTC, and one of USDC and WETH that shares the latter's contract; a sale
    of a WETH for native coin's WBTC.
    """
    weth, wbtc = token("WETH"), token("WBTC")
    v3 = v3_pool(weth, wbtc, price_of("WETH") / price_of("WBTC"), 100)
    native = kept_by_manager(V4NativePool, "native", v3)
    other = kept_by_manager(V4Pool, "other", v3_pool(weth, token("USDC"), price_of("WETH")))
    step = step_input(SHARES, {"WETH": 8_000, "WBTC": 1_000, "USDC": 1_000}, pools=[v3, native, other])
    return step, plan_of(step, [Swap(native, WETH, raw(1, weth))])


def test_no_liquidity_is_provided_to_a_pool_that_failed_for_its_token() -> None:
    step = world((), [wanted(2_500)])
    provision = planned(step)
    pool = step.snapshot.pools[-1]
    assert [action.pool for action in provision.layer_actions] == [pool.address]
    for contract, passes in ((pool.contract, False), (MANAGER, True)):
        screens = [screen for screen in evidence(step, provision).screened_tokens or () if screen.token != USDC]
        plan_evidence = evidence(step, provision, screened_tokens=(*screens, failing(USDC, contract)))
        assert verdict("token_screen", step, provision, plan_evidence).passed is passes


@pytest.mark.parametrize(("failed_token", "left_out", "passes"), [(WETH, "other", True), (WBTC, "native", False)])
def test_native_pool__stays_if_its_manager_fails_for_wrapped_coin(failed_token: str, left_out: str, passes: bool) -> None:
    step, sale = with_native_pool()
    screened_step = quarantine_pools(step, [failing(failed_token, MANAGER)])
    assert [item.address for item in screened_step.snapshot.unreadable_items] == [address(left_out)]
    screens = [screen for screen in evidence(step, sale).screened_tokens or () if screen.token != failed_token]
    plan_evidence = evidence(step, sale, screened_tokens=(*screens, failing(failed_token, MANAGER)))
    assert verdict("token_screen", step, sale, plan_evidence).passed is passes


def test_native_pool__has_a_lender_that_failed_for_its_other_token() -> None:
    """Without a lender of WETH its sale would be refused as not tested."""
    step, sale = with_native_pool()
    v3, native, other = step.snapshot.pools

    def lender(snapshot_pools: tuple[Pool, ...], *failed_contracts: str) -> Pool:
        screened_step = quarantine_pools(with_snapshot(step, pools=snapshot_pools), [failing(WBTC, *failed_contracts)])
        (move,) = (move for move in plan_token_moves(screened_step, sale) if move.token == WETH)
        assert move.raw == sale.legs[0].amount_in_raw
        return move.pool

    assert lender((v3, native)) == v3
    assert lender((v3, native), v3.contract) == v3
    assert lender((v3, native, other), v3.contract) == other, "one that is not in quarantine comes first"


def test_native_pool__another_lends_at_most_half_of_what_it_has() -> None:
    step, sale = with_native_pool()
    v3, *_ = step.snapshot.pools
    for amount_raw in (v3.depth(WETH) // 4, v3.depth(WETH)):
        large_sale = replace(sale, legs=(replace(sale.legs[0], amount_in_raw=amount_raw),))
        (move,) = (move for move in plan_token_moves(step, large_sale) if move.token == WETH)
        assert move.raw == min(amount_raw, move.pool.depth(WETH) // 2)


CODE, OTHER, PLACE, ELSEWHERE = "0x" + "aa" * 32, "0x" + "bb" * 32, address("place"), address("elsewhere")
UNREAD = address("code that was not read")


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
        (CODE, [UNREAD], {WETH: CODE}, {WETH: (UNREAD, CODE)}, TokenFinding.IMPLEMENTATION_CHANGED),
        (CODE, [PLACE], {}, {WETH: (ELSEWHERE, CODE)}, None),
    ],
)
def test_what_differs_from_the_pins_is_named(
    code: str, now: list[str], pins: dict[str, str], backing: dict[str, tuple[str, str]], finding: TokenFinding | None
) -> None:
    snapshot = replace(
        whole().snapshot,
        code_hashes=(CodeHash(WETH, code), CodeHash(PLACE, CODE), CodeHash(ELSEWHERE, CODE)),
        implementations=tuple(ProxyImplementation(WETH, place) for place in now),
    )
    found = tokens_with_changed_code(snapshot, [WETH, USDC], pins, backing)
    assert [one.finding for one in found] == ([] if finding is None else [finding])


def test_code_that_was_not_read_has_not_changed() -> None:
    snapshot = replace(whole().snapshot, code_hashes=(), implementations=())
    assert tokens_with_changed_code(snapshot, [WETH], {WETH: CODE}, {}) == []


def test_a_token_whose_balance_is_not_known_keeps_no_target() -> None:
    step = shut(without_balance(step_input(THREE), "WBTC"), WBTC)
    assert dict(step.targets.effective_bps).keys() == {WETH, USDC}


def test_a_second_token_joins_the_first_in_quarantine() -> None:
    once = shut(whole(), WBTC)
    twice = shut(once, WETH)
    assert [screened.token for screened in twice.targets.quarantined_tokens] == [WBTC, WETH]
    target_bps_by_token = dict(twice.targets.effective_bps)
    assert (target_bps_by_token[WBTC], target_bps_by_token[WETH]) == (0, 0)
    assert sum(target_bps_by_token.values()) == BPS


def test_an_asset_that_is_silent_for_an_hour_is_left_alone_and_the_rest_keeps_its_proportions() -> None:
    step = silent_for(3_600)
    found = quarantine_tokens(step, unreadable_assets(step))
    assert {a.token.symbol: a.target_bps for a in found.effective_assets} == {"WETH": 6_250, "USDC": 3_750}
    assert mentions(format_quarantine(found.portfolio, found.targets.quarantined_tokens), "WBTC", "quarantine", "1 h")
    assert unreadable_since_s(found) == step.history.unread_since_s_by_token, "what is left alone is still remembered as unread"


def test_before_the_hour_is_over_nothing_is_left_alone() -> None:
    assert not unreadable_assets(silent_for(3_599))
    assert unreadable_since_s(without_balance(step_input(THREE), "WBTC"))[0][1] == step_input().snapshot.head.timestamp_s


def test_the_numeraire_and_the_coin_that_pays_for_gas_are_never_left_alone() -> None:
    for symbol in ("USDC", "WETH"):
        step = without_balance(step_input(THREE), symbol)
        step = replace(step, history=replace(step.history, unread_since_s_by_token=((token(symbol).address, 0),)))
        assert unreadable_since_s(step)
        assert not unreadable_assets(step)


LINK = token("LINK").address


@pytest.mark.parametrize("is_read", [True, False])
def test_exits_go_on_without_an_asset_that_is_unpriced_or_unread(is_read: bool) -> None:
    """Only one whose balance is not known is in quarantine, too."""
    step = without_feed(whole(), "LINK") if is_read else without_balance(whole(), "LINK")
    exits = exclude_unpriced_assets(step)
    assert LINK not in [asset.token.address for asset in exits.portfolio.assets]
    assert LINK in [hub.address for hub in exits.portfolio.hubs]
    assert dict(exits.targets.effective_bps).keys() == {asset.token.address for asset in exits.portfolio.assets}
    assert sum(dict(exits.targets.effective_bps).values()) == BPS
    assert [screened.token for screened in exits.targets.quarantined_tokens] == ([] if is_read else [LINK])
    assert mentions(exits.exclusions.exits_only_reason, "LINK", "no reference price" if is_read else "balance")


def test_an_unread_asset_in_quarantine_is_there_once() -> None:
    exits = exclude_unpriced_assets(without_balance(shut(whole(), LINK), "LINK"))
    assert [screened.token for screened in exits.targets.quarantined_tokens] == [LINK]
    assert "LINK" in exits.exclusions.exits_only_reason


@pytest.mark.parametrize("symbol", ["USDC", "WETH"])
def test_no_exit_goes_on_without_numeraire_or_wrapped_coin(symbol: str) -> None:
    for step in (without_balance(step_input(), symbol), without_feed(step_input(), symbol)):
        assert exclude_unpriced_assets(step) is step


def test_no_exit_goes_on_without_a_token_of_liquidity() -> None:
    step = without_balance(step_input(THREE), "WBTC")
    assert exclude_unpriced_assets(step) is not step
    target = replace(wanted(1_000), token0=WBTC)
    provided = replace(step, portfolio=replace(step.portfolio, lp_targets=(target,)))
    assert exclude_unpriced_assets(provided) is provided


def test_no_exit_goes_on_where_nothing_left_has_a_target() -> None:
    step = without_balance(step_input({"LINK": 10_000, "USDC": 0}), "LINK")
    assert exclude_unpriced_assets(step) is step


THREE = {"WETH": 5_000, "WBTC": 2_000, "USDC": 3_000}


def without_balance(step: StepInput, symbol: str) -> StepInput:
    left = tuple(held for held in step.snapshot.holdings if held.token != token(symbol).address)
    return with_snapshot(step, holdings=left)


def silent_for(seconds: int) -> StepInput:
    step = without_balance(step_input(THREE), "WBTC")
    since = ((token("WBTC").address, step.snapshot.head.timestamp_s - seconds),)
    return replace(step, history=replace(step.history, unread_since_s_by_token=since))
