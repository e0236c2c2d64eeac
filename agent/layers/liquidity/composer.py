"""Composes transactions of liquidity actions: contract, calldata and note."""

from __future__ import annotations

from dataclasses import dataclass

from agent.amm.lp.venues import LpVenue
from agent.chain import tokens
from agent.chain.lens import abi_encode
from agent.chain.rpc import hex_data
from agent.errors import ErrorCode, Refused
from agent.layers.liquidity.policy.minimums import minimum_amounts
from agent.layers.liquidity.policy.pools import POSITION_CONTRACT_ROLES
from agent.model import (
    Collect,
    ExecutionConfig,
    Head,
    IntentKind,
    LayerAction,
    LpAction,
    Plan,
    Portfolio,
    Provide,
    StepInput,
    Withdraw,
    as_lp_action,
)
from agent.ports import Approval
from agent.signing.liquidity import (
    ADD_LIQUIDITY,
    COLLECT,
    DECREASE_LIQUIDITY,
    INCREASE_LIQUIDITY,
    MANAGER_MULTICALL,
    MINT,
    REMOVE_LIQUIDITY,
    UINT128_MAX,
)
from agent.units import decimal_text
from agent.venues.allowances import build_approval, label_and_decimals
from agent.venues.drafts import TxDraft


@dataclass(frozen=True, slots=True)
class LiquidityComposer:
    """Implements LayerComposer for the positions of `wallet`."""

    wallet: str

    def composes(self, plan: Plan) -> bool:
        """See LayerComposer."""
        return bool(plan.layer_actions)

    def missing_approvals(self, step: StepInput, plan: Plan) -> list[Approval]:
        """See LayerComposer."""
        action = plan.layer_actions[0]
        spender = action_contract(step.execution, action)
        lacking_approvals = tokens.missing_approvals(action.spends_raw, step.snapshot, spender)
        return [
            build_approval(step, token, spender, approval_raw, action)
            for token, approval_raw in lacking_approvals
        ]

    def compose(self, step: StepInput, plan: Plan, head: Head) -> TxDraft:
        """See LayerComposer."""
        deadline_s = head.timestamp_s + step.execution.deadline_s
        return draft_action(step, plan.layer_actions[0], self.wallet, deadline_s)


def draft_action(
    step: StepInput, layer_action: LayerAction, wallet: str, deadline_s: int
) -> TxDraft:
    """Return the transaction of an action. Raises Refused if the config names no contract for it,
    or a price or position is unknown.
    """
    action = as_lp_action(layer_action)
    calldata = encode_liquidity(action, wallet, deadline_s)
    contract = action_contract(step.execution, action)
    note = action_note(step.portfolio, action)
    return TxDraft(
        contract,
        calldata,
        IntentKind.LIQUIDITY,
        note,
        deadline_s=deadline_s,
        layer_action=action,
        floors_raw=minimum_amounts(step, action),
        min_gas_units=action.gas_units,
    )


def action_contract(execution: ExecutionConfig, action: LayerAction) -> str:
    """Return the contract that an action calls. Raises Refused if the config names none, or another
    position manager.
    """
    contract = execution.position_contract(action.venue)
    if not contract or (action.venue == LpVenue.V3 and action.contract != contract):
        raise Refused(
            f"{action.name}: the config has no {POSITION_CONTRACT_ROLES.get(action.venue, action.venue)} for it",
            remedy="see [venues]",
        )
    return contract


def action_note(portfolio: Portfolio, action: LayerAction) -> str:
    """Describe an action, with its expected amounts."""
    match as_lp_action(action):
        case Withdraw() as action:
            return f"withdraw {_amounts_text(portfolio, action, action.amounts_raw)} from {action.name}"
        case Collect() as action:
            return f"collect {_amounts_text(portfolio, action, action.fees_raw)} from {action.name}"
        case Provide() as action:
            return (
                f"provide {_amounts_text(portfolio, action, action.amounts_raw)} to {action.name}"
            )


def _amounts_text(portfolio: Portfolio, action: LayerAction, amounts_raw: tuple[int, int]) -> str:
    amount_texts = []
    for token, amount_raw in zip((action.token0, action.token1), amounts_raw, strict=True):
        label, decimals = label_and_decimals(portfolio, token)
        amount_texts.append(f"{decimal_text(amount_raw, decimals)} {label}")
    return " and ".join(amount_texts)


def encode_liquidity(action: LpAction, wallet: str, deadline_s: int) -> str:
    """Return 0x-hex calldata of `action`. `wallet` receives outputs and minted positions;
    `deadline_s` is a Unix time of the chain.

    A V3 withdrawal decreases and collects in one multicall; only decreaseLiquidity has a deadline.
    Raises Refused for an unknown venue, an amount of zero, or two minimums of zero.
    """
    if deadline_s <= 0:
        raise Refused(f"deadline {deadline_s} is not a Unix time", remedy="set execution.deadline")
    match action:
        case Withdraw(venue=LpVenue.V3, token_id=int() as token_id):
            _require_nonzero(action.liquidity > 0 and max(action.min_raw) > 0, action)
            decrease_calldata = DECREASE_LIQUIDITY + abi_encode(
                ["(uint256,uint128,uint256,uint256,uint256)"],
                [(token_id, action.liquidity, *action.min_raw, deadline_s)],
            )
            return hex_data(
                MANAGER_MULTICALL
                + abi_encode(
                    ["bytes[]"], [[decrease_calldata, _collect_calldata(token_id, wallet)]]
                )
            )
        case Withdraw(venue=LpVenue.V2):
            _require_nonzero(action.liquidity > 0 and max(action.min_raw) > 0, action)
            abi_types = [
                "address",
                "address",
                "uint256",
                "uint256",
                "uint256",
                "address",
                "uint256",
            ]
            return hex_data(
                REMOVE_LIQUIDITY
                + abi_encode(
                    abi_types,
                    [
                        action.token0,
                        action.token1,
                        action.liquidity,
                        *action.min_raw,
                        wallet,
                        deadline_s,
                    ],
                )
            )
        case Collect(venue=LpVenue.V3):
            return hex_data(_collect_calldata(action.token_id, wallet))
        case Provide(venue=LpVenue.V2 | LpVenue.V3):
            _require_nonzero(max(action.desired_raw) > 0 and max(action.min_raw) > 0, action)
            return hex_data(_provide_calldata(action, wallet, deadline_s))
        case _:
            raise Refused(
                f"{action.name}: venue {action.venue!r} is not known",
                remedy=f"use {LpVenue.V2} or {LpVenue.V3}",
            )


def _provide_calldata(action: Provide, wallet: str, deadline_s: int) -> bytes:
    amount_fields = (*action.desired_raw, *action.min_raw)
    if action.venue == LpVenue.V2:
        abi_types = [
            "address",
            "address",
            "uint256",
            "uint256",
            "uint256",
            "uint256",
            "address",
            "uint256",
        ]
        return ADD_LIQUIDITY + abi_encode(
            abi_types, [action.token0, action.token1, *amount_fields, wallet, deadline_s]
        )
    if action.token_id is not None:
        return INCREASE_LIQUIDITY + abi_encode(
            ["(uint256,uint256,uint256,uint256,uint256,uint256)"],
            [(action.token_id, *amount_fields, deadline_s)],
        )
    if action.ticks is None:
        raise Refused(f"{action.name}: a new position needs its ticks")
    mint_fields = (
        action.token0,
        action.token1,
        action.fee_pips,
        *action.ticks,
        *amount_fields,
        wallet,
        deadline_s,
    )
    return MINT + abi_encode(
        ["(address,address,uint24,int24,int24,uint256,uint256,uint256,uint256,address,uint256)"],
        [mint_fields],
    )


def _collect_calldata(token_id: int, wallet: str) -> bytes:
    return COLLECT + abi_encode(
        ["(uint256,address,uint128,uint128)"], [(token_id, wallet, UINT128_MAX, UINT128_MAX)]
    )


def _require_nonzero(is_nonzero: bool, action: LpAction) -> None:
    if not is_nonzero:
        raise Refused(
            f"{action.name}: an amount of zero, or a minimum of zero for both tokens",
            remedy="raise limits.min_trade to skip dust",
            code=ErrorCode.AMOUNT,
        )
