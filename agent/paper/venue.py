"""Paper futures: the contracts of Perpetual Protocol v2 compute fills and funding by `eth_call` at
a block, which are booked on a simulated margin account.

Exchange.swap and Exchange.settleFunding are called as the clearing house calls them within
openPosition. These functions do not check margin, so an account without collateral on the chain is
quoted to the wei. The clearing house's checks of bound, deadline and margin are made here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

from agent.backtest.router import APPROVE_GAS, TransactionReverted
from agent.chain.lens import abi_decode, abi_encode
from agent.chain.rpc import CallFailed, Transport, block_ref_at_hash, parse_bytes
from agent.errors import ConfigError, kind_words
from agent.layers.futures.policy.needs import ORDER_GAS
from agent.margin import account as margin
from agent.margin.account import truncate
from agent.model import (
    Head,
    MarginAccount,
    PaperMargin,
    PaperPosition,
    PerpFill,
    PerpFunding,
    Position,
    Transfer,
    UnsignedTx,
)
from agent.signing.calldata import Approve, selector
from agent.signing.futures import FuturesCall, MarginTransfer, OpenPosition
from agent.units import DAY_S
from agent.venues.perpetual_protocol import (
    REVERT_DESCRIPTIONS,
    PerpetualProtocolAddresses,
    revert_code,
)

SWAP_SELECTOR = selector("swap((address,address,bool,bool,bool,uint256,uint160))")
SETTLE_FUNDING_SELECTOR = selector("settleFunding(address,address)")
_SWAP_PARAMS = "(address,address,bool,bool,bool,uint256,uint160)"
SWAP_WORD_COUNT = 11
FUNDING_WORD_COUNT = 3
MARGIN_TRANSFER_GAS = 250_000
"""Gas of a margin deposit or withdrawal, measured on the embedded chain."""
WORD_MODULUS = 2**256


@dataclass(frozen=True, slots=True)
class PaperVenueEffects:
    """Effects of a transaction to the venue, not applied yet: wallet balances, the vault's
    allowances by token, the margin account, and events.
    """

    balances: Mapping[str, int]
    allowances: Mapping[str, int]
    margin: PaperMargin
    gas_units: int
    transfers: tuple[Transfer, ...] = ()
    fills: tuple[PerpFill, ...] = ()
    funding: tuple[PerpFunding, ...] = ()


class PaperPerpetualProtocol:
    """Futures venue of paper trading: reads by `eth_call`, sends nothing."""

    def __init__(
        self,
        contracts: PerpetualProtocolAddresses,
        exchange: str,
        collateral: str,
        transport: Transport,
    ) -> None:
        self.contracts = contracts
        self._exchange = exchange
        self._collateral = collateral
        self._transport = transport

    def account(
        self, real_account: MarginAccount, paper_margin: PaperMargin, head: Head
    ) -> MarginAccount:
        """Return the paper account with the markets of the real one, at its block."""
        return replace(
            real_account,
            collateral_raw=paper_margin.collateral_raw,
            realised_raw=paper_margin.realised_raw,
            positions=tuple(
                Position(
                    position.market,
                    position.size_raw,
                    position.open_notional_raw,
                    funding_pending_raw=_pending_funding_raw(
                        position, self._funding_growth_x96(position.market, head)
                    ),
                )
                for position in paper_margin.positions
            ),
        )

    def opening_margin(
        self, real_account: MarginAccount | None, head: Head, deposit_raw: int | None
    ) -> PaperMargin:
        """Return the first margin account: `deposit_raw` of collateral without positions, or a copy
        of the real account with its funding settled. Raises ConfigError if the real account is
        unknown.
        """
        if real_account is None:
            raise ConfigError("the margin account cannot be read now", "try again")
        if deposit_raw is not None:
            return PaperMargin(deposit_raw * real_account.collateral_unit_raw, 0, ())
        return PaperMargin(
            real_account.collateral_raw,
            real_account.realised_raw - margin.funding_pending_raw(real_account),
            tuple(
                PaperPosition(
                    position.market,
                    position.size_raw,
                    position.open_notional_raw,
                    growth_x96=self._funding_growth_x96(position.market, head),
                )
                for position in real_account.positions
            ),
        )

    def execute(
        self,
        tx: UnsignedTx,
        call: FuturesCall | Approve,
        balances_raw: Mapping[str, int],
        allowances_raw: Mapping[str, int],
        account: MarginAccount,
        paper_margin: PaperMargin,
        head: Head,
    ) -> PaperVenueEffects:
        """Return the effects at a block. Raises TransactionReverted if the contracts would
        revert.
        """
        match call:
            case Approve(raw=raw):
                return PaperVenueEffects(
                    balances_raw, {**allowances_raw, tx.to: raw}, paper_margin, APPROVE_GAS
                )
            case OpenPosition():
                return self._fill(call, balances_raw, allowances_raw, account, paper_margin, head)
            case MarginTransfer():
                return self._transfer_margin(
                    call, balances_raw, allowances_raw, account, paper_margin
                )
            case unsupported:
                raise TransactionReverted(f"{kind_words(type(unsupported))} is not simulated")

    def _fill(
        self,
        call: OpenPosition,
        balances_raw: Mapping[str, int],
        allowances_raw: Mapping[str, int],
        account: MarginAccount,
        paper_margin: PaperMargin,
        head: Head,
    ) -> PaperVenueEffects:
        """Settle funding, then fill an order, as ClearingHouse.openPosition does."""
        market = account.market(call.market)
        if head.timestamp_s > call.deadline_s:
            raise TransactionReverted(f"{REVERT_DESCRIPTIONS['CH_TE']} (CH_TE)")
        if market.is_paused:
            raise TransactionReverted(f"{REVERT_DESCRIPTIONS['CH_MNO']} (CH_MNO)")
        quote_raw, fee_raw = self._quote(call, head)
        net_quote_raw = quote_raw - fee_raw
        if call.size_raw < 0 and net_quote_raw < call.bound_raw:
            raise TransactionReverted(f"{REVERT_DESCRIPTIONS['CH_TLRS']} (CH_TLRS)")
        if call.size_raw > 0 and -net_quote_raw > call.bound_raw:
            raise TransactionReverted(f"{REVERT_DESCRIPTIONS['CH_TMRL']} (CH_TMRL)")
        position_size_raw = account.size_raw(call.market)
        funding_paid_raw = sum(
            position.funding_pending_raw
            for position in account.positions
            if position.market == call.market
        )
        account_after = margin.with_trade(account, call.market, call.size_raw, net_quote_raw)
        is_reduction = position_size_raw * call.size_raw < 0 and abs(call.size_raw) <= abs(
            position_size_raw
        )
        if is_reduction and not margin.is_reduction_accepted(account_after):
            raise TransactionReverted(f"{REVERT_DESCRIPTIONS['CH_NEFCM']} (CH_NEFCM)")
        if not is_reduction and margin.free_margin_raw(account_after) < 0:
            raise TransactionReverted(f"{REVERT_DESCRIPTIONS['CH_NEFCI']} (CH_NEFCI)")
        growth_x96_by_market = {
            position.market: position.growth_x96 for position in paper_margin.positions
        }
        growth_x96_by_market[call.market] = self._funding_growth_x96(call.market, head)
        contracts = self.contracts
        fill = PerpFill(
            contracts.clearing_house,
            contracts.trader,
            call.market,
            size_raw=call.size_raw,
            quote_raw=quote_raw,
            fee_raw=fee_raw,
            realised_raw=account_after.realised_raw - account.realised_raw + funding_paid_raw,
        )
        funding_payment = PerpFunding(
            contracts.clearing_house, contracts.trader, call.market, funding_paid_raw
        )
        positions = tuple(
            PaperPosition(
                position.market,
                position.size_raw,
                position.open_notional_raw,
                growth_x96=growth_x96_by_market[position.market],
            )
            for position in account_after.positions
        )
        return PaperVenueEffects(
            balances_raw,
            allowances_raw,
            PaperMargin(paper_margin.collateral_raw, account_after.realised_raw, positions),
            ORDER_GAS,
            fills=(fill,),
            funding=(funding_payment,) if funding_paid_raw else (),
        )

    def _transfer_margin(
        self,
        call: MarginTransfer,
        balances_raw: Mapping[str, int],
        allowances_raw: Mapping[str, int],
        account: MarginAccount,
        paper_margin: PaperMargin,
    ) -> PaperVenueEffects:
        """Deposit or withdraw collateral as the vault does."""
        balance_raw = balances_raw.get(call.token, 0)
        allowance_raw = allowances_raw.get(call.token, 0)
        collateral_quote_raw = call.raw * account.collateral_unit_raw
        vault = self.contracts.vault
        if call.token != self._collateral:
            raise TransactionReverted("the vault uses another token")
        if call.is_deposit:
            if min(balance_raw, allowance_raw) < call.raw:
                raise TransactionReverted("STF")
            return PaperVenueEffects(
                {**balances_raw, call.token: balance_raw - call.raw},
                {**allowances_raw, call.token: allowance_raw - call.raw},
                replace(
                    paper_margin, collateral_raw=paper_margin.collateral_raw + collateral_quote_raw
                ),
                MARGIN_TRANSFER_GAS,
                (Transfer(call.token, self.contracts.trader, vault, call.raw),),
            )
        if margin.free_margin_raw(account) < collateral_quote_raw:
            raise TransactionReverted(f"{REVERT_DESCRIPTIONS['V_NEFC']} (V_NEFC)")
        return PaperVenueEffects(
            {**balances_raw, call.token: balance_raw + call.raw},
            allowances_raw,
            replace(
                paper_margin, collateral_raw=paper_margin.collateral_raw - collateral_quote_raw
            ),
            MARGIN_TRANSFER_GAS,
            (Transfer(call.token, vault, self.contracts.trader, call.raw),),
        )

    def _quote(self, call: OpenPosition, head: Head) -> tuple[int, int]:
        """Return the signed quote without the fee, and the fee, of a fill at a block."""
        is_sale = call.size_raw < 0
        swap_arguments = (
            self.contracts.trader,
            call.market,
            is_sale,
            is_sale,
            False,
            abs(call.size_raw),
            0,
        )
        return_words = self._call_exchange(
            SWAP_SELECTOR + abi_encode([_SWAP_PARAMS], [swap_arguments]), SWAP_WORD_COUNT, head
        )
        size_raw = _signed_int(return_words[2])
        quote_raw = _signed_int(return_words[3])
        fee_raw = return_words[4]
        if size_raw != call.size_raw:
            raise TransactionReverted(f"the market fills {size_raw} of {call.size_raw} base units")
        return quote_raw, fee_raw

    def _funding_growth_x96(self, market: str, head: Head) -> int:
        """Return the market's funding growth at a block (Funding.Growth.twPremiumX96)."""
        calldata_bytes = SETTLE_FUNDING_SELECTOR + abi_encode(
            ["address", "address"], [self.contracts.trader, market]
        )
        return _signed_int(self._call_exchange(calldata_bytes, FUNDING_WORD_COUNT, head)[1])

    def _call_exchange(self, calldata_bytes: bytes, word_count: int, head: Head) -> tuple[int, ...]:
        """Call the exchange as the clearing house and return the words of the answer. Raises
        TransactionReverted with the revert reason.
        """
        call_object = {
            "from": self.contracts.clearing_house,
            "to": self._exchange,
            "data": "0x" + calldata_bytes.hex(),
        }
        try:
            call_result = self._transport.call(
                "eth_call", [call_object, block_ref_at_hash(head.hash)]
            )
        except CallFailed as error:
            code = revert_code(error.fault.revert_data, error.fault.message)
            if not code:
                raise
            raise TransactionReverted(f"{REVERT_DESCRIPTIONS[code]} ({code})") from None
        answer_bytes = parse_bytes(call_result, "answer of the exchange", 32 * word_count)
        return tuple(abi_decode(["uint256"] * word_count, answer_bytes))


def _pending_funding_raw(position: PaperPosition, growth_x96: int) -> int:
    """Return the pending funding of a position
    (Funding.calcPendingFundingPaymentWithLiquidityCoefficient, with PerpMath.mulDiv).
    """
    payment_x96 = position.size_raw * (growth_x96 - position.growth_x96)
    return truncate(Fraction(truncate(Fraction(payment_x96, margin.Q96)), DAY_S))


def _signed_int(word: int) -> int:
    return word - WORD_MODULUS if word >= WORD_MODULUS // 2 else word
