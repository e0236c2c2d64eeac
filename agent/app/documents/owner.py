"""Documents of owner requests (invest, withdraw, edit, stop, revoke, rehearse, pause --hard), and of
set-up and monitoring (init, templates, wallet keys, doctor, trust, alerts, localchain, demo).
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from agent.accounting.export import format_utc
from agent.app.documents import (
    Address,
    Amount,
    ConvertedBy,
    Count,
    DecimalText,
    FromAttributes,
    Hash,
    Money,
    Number,
    PriceText,
    Raw,
    SmallMoney,
    StartDate,
    TokenAddress,
    TokenSymbol,
    TotalReturn,
    TxHash,
    fill,
    one_of,
    shown,
)
from agent.app.documents.decisions import BlockNumber, Transfers
from agent.app.documents.executions import ProgressDocument, purchase_progress_document
from agent.app.documents.futures import FundingDocument, FuturesPositionsDocument, MarginDocument
from agent.app.documents.plans import (
    EndpointDocument,
    OutcomeDocument,
    PlanDocument,
    RebalanceDocument,
    SentTransactionDocument,
    TransactionDocument,
    VerdictDocument,
    plan_document,
)
from agent.app.documents.status import MinimumTotalDocument, StatusDocument
from agent.app.withdrawals.withdrawal_run import format_parts
from agent.policy.cash_flows.cash_limit import unused_cash_text

HANDED_OVER_ADVICE = (
    "a running trimtab run cancels and revokes them next; without a run, repeat this once the"
    " wallet is free"
)
"""Advice while another process holds the wallet: a run, or a command that ends soon."""

UnusedCash = Annotated[
    str,
    ConvertedBy(lambda step, _: unused_cash_text(step.portfolio, step.history.cash_flows)),
    FromAttributes("step_input"),
]
"""The numeraire above portfolio.use_cash; empty without that limit."""


class WithdrawalPartsDocument(TypedDict):
    """Progress of a withdrawal in parts; times in chain seconds."""

    count: Annotated[int, FromAttributes("part_count")]
    done: Annotated[int, FromAttributes("parts_done")]
    next_s: int
    until_s: int
    text: str


TO_PARTS = ConvertedBy(
    lambda progress, _: fill(WithdrawalPartsDocument, progress, text=format_parts(progress))
)


class PaymentDocument(TypedDict):
    symbol: TokenSymbol
    address: TokenAddress
    raw: Raw
    amount: Amount
    native: bool


class WithdrawalDocument(TypedDict):
    """A withdrawal; `sale` precedes the payments, None if the balance suffices. `repeats` names an equal
    withdrawal that is open or was paid within the hour, empty without one.
    """

    state: str
    reason: str
    request: Annotated[int | None, FromAttributes("request_id")]
    to: Annotated[Address | None, FromAttributes("payout_address")]
    payments: list[PaymentDocument]
    sale: OutcomeDocument | None
    verdicts: list[VerdictDocument]
    remedies: list[str]
    transactions: list[SentTransactionDocument]
    excluded: UnusedCash
    repeats: str
    block: BlockNumber


class RequestedPaymentDocument(PaymentDocument):
    """A payment of a withdrawal; `paid_in` is the transaction that paid it, empty while unpaid.
    `state` is unpaid, proposed, pending or paid, or how its newest transaction ended: cancelled,
    rejected, expired, replaced or failed.
    """

    paid_in: TxHash
    state: str


class WithdrawalRequestDocument(TypedDict):
    """A withdrawal as recorded; a released one may be paid partly, or have been paid since."""

    number: Annotated[int, FromAttributes("id")]
    state: str
    to: Address | None
    payments: list[RequestedPaymentDocument]
    requested_s: Annotated[int, FromAttributes("asked_s")]
    parts: Annotated[
        Annotated[WithdrawalPartsDocument, TO_PARTS] | None, FromAttributes("progress")
    ]


class InvestmentDocument(TypedDict):
    """Deposits to invest and those not to invest (`uninvested`), and the plan; `recorded` is True once
    they are recorded as deposits.
    """

    wallet: Address
    chain_id: Annotated[int, FromAttributes("step_input.snapshot.head.chain_id")]
    deposits: Transfers
    uninvested: Annotated[Transfers, FromAttributes("uninvested_deposits")]
    recorded: Annotated[bool, FromAttributes("is_recorded")]
    outcome: str
    purchase: Annotated[
        ProgressDocument | None,
        ConvertedBy(purchase_progress_document),
        FromAttributes("open_top_up"),
    ]
    reason: str
    plan: RebalanceDocument | PlanDocument | None
    transactions: list[SentTransactionDocument]


class AllowanceDocument(TypedDict):
    token: Address
    symbol: Annotated[str, FromAttributes("token_label")]
    spender: Address
    holder: Annotated[str, FromAttributes("spender_role")]


class OpenAllowanceDocument(AllowanceDocument):
    """An allowance with its amount; `raw` is None if the token returns no valid amount."""

    raw: Raw | None


class RevocationDocument(TypedDict):
    state: str
    reason: str
    allowances: list[OpenAllowanceDocument]
    transactions: list[SentTransactionDocument]


class DeploymentDocument(TypedDict):
    """Address of the Rebalancer on every chain, whether its code is there, and the transaction that
    any account can send to deploy it. `most_gas_native` and `most_data_fee_native` are the most
    that it costs the wallet, known once it is composed. `reason` says that another account
    deployed it meanwhile, else it is empty.
    """

    chain_id: int
    address: str
    deployed: bool
    to: str
    value_wei: str
    data: str
    most_gas_native: DecimalText | None
    most_data_fee_native: DecimalText | None
    outcome: Annotated[str, one_of("planned", "hold", "done", "declined", "failed")]
    reason: str
    transactions: list[TransactionDocument]


class CancelAndRevokeDocument(TypedDict):
    cancel: Annotated[list[SentTransactionDocument], FromAttributes("pending_intents")]
    revoke: Annotated[list[AllowanceDocument], FromAttributes("open_allowances")]


class PauseDocument(TypedDict):
    """The kill switch. If the store could not be opened, `store` has the reason, and the pause file
    beside it is used instead. `signed` says which waiting proposals have signatures, which a pause
    does not take back, and `rejected` which proposals still wait for their rejection after its end.
    """

    paused: bool
    hard: bool
    reason: str
    store: NotRequired[str]
    rejected: NotRequired[list[str]]
    signed: NotRequired[list[str]]


class HardPauseDocument(TypedDict):
    """A hard pause; `outcome`: planned, declined, clear (nothing left), unknown (an allowance cannot
    be read), done, failed, unfinished (a rejection awaits its signatures), or handed over to a
    running agent.
    """

    paused: bool
    hard: Annotated[bool, FromAttributes("is_hard")]
    reason: str
    outcome: str
    message: str
    cancel: list[SentTransactionDocument]
    revoke: list[AllowanceDocument]
    transactions: list[SentTransactionDocument]


TO_FIRST_PLAN = ConvertedBy(lambda outcomes, _: plan_document(outcomes[0]) if outcomes else None)


class SalesTotalDocument(TypedDict):
    """All sales of a stop together; `worst_case` is null if that of a sale is unknown. The weights
    are those after the sales and before any payment.
    """

    turnover: Money
    cost: Annotated[SmallMoney, shown("expected cost")]
    worst_case: SmallMoney | None
    weights_after_bps: Annotated[
        dict[str, int],
        ConvertedBy(
            lambda weights, portfolio: {
                portfolio.token(token).label: weight_bps for token, weight_bps in weights
            }
        ),
    ]


class ShutdownDocument(TypedDict):
    """A shutdown; `sale` is the first of `sales`, `sales_total` all of them together, null if
    nothing is sold. `remaining` are holdings that could not be sold or paid, `unsold` says what was
    not sold and why, `unrevoked` which allowances stay, `futures` warns about positions and margin
    that stay at the futures venue.
    """

    state: str
    reason: str
    to_stable: bool
    to: Annotated[Address | None, FromAttributes("payout_address")]
    cancel: Annotated[list[SentTransactionDocument], FromAttributes("pending_intents")]
    revoke: Annotated[list[AllowanceDocument], FromAttributes("open_allowances")]
    sale: Annotated[PlanDocument | None, TO_FIRST_PLAN, FromAttributes("sale_outcomes")]
    sales: Annotated[list[OutcomeDocument], FromAttributes("sale_outcomes")]
    sales_total: SalesTotalDocument | None
    payments: list[PaymentDocument]
    verdicts: list[VerdictDocument]
    remedies: list[str]
    transactions: list[SentTransactionDocument]
    remaining: Annotated[list[str], FromAttributes("unpaid_holding_texts")]
    unsold: Annotated[str, FromAttributes("unsold_text")]
    unrevoked: Annotated[str, FromAttributes("unrevoked_text")]
    excluded: UnusedCash
    block: BlockNumber
    futures: Annotated[str, FromAttributes("futures_warning")]


class RehearsalLegDocument(TypedDict):
    token_in: Annotated[str, FromAttributes("token_in.label")]
    token_out: Annotated[str, FromAttributes("token_out.label")]
    amount_in_raw: Raw
    predicted_raw: Raw
    realised_raw: Annotated[Raw, FromAttributes("received_raw")]
    slippage_bps: Number
    gas_predicted: int
    gas_used: int
    gas_value: Money


class RehearsalDocument(TypedDict):
    state: str
    verdict: str
    numeraire: str
    plan: PlanDocument
    legs: list[RehearsalLegDocument]
    cost: Money
    predicted_cost: Money
    transactions: list[SentTransactionDocument]


class ContractDocument(TypedDict):
    """A contract with its code hash; in an edit also with the liquidity of the new tokens' pools in
    it, empty if it has none.
    """

    role: str
    address: Address
    code_hash: Hash
    state: Annotated[str, one_of("new", "unchanged", "CHANGED")]
    liquidity: NotRequired[str]


class EditDocument(TypedDict):
    """An edit of the config; `token_notes` has lines about new tokens, `earlier_edits` manual
    changes that the confirmation covers too. `rebalance_count` is the number of rebalances within
    limits.turnover that the transition takes, `first_rebalance` the plan of the first. `restart`
    are the changed tables that a run reads only at start.
    """

    state: str
    changes: list[str]
    earlier_edits: list[str]
    transition: OutcomeDocument | None
    first_rebalance: OutcomeDocument | None
    rebalance_count: int
    warnings: list[str]
    next: Annotated[list[str], FromAttributes("next_commands")]
    token_notes: Annotated[list[str], FromAttributes("new_tokens.notes")]
    contracts: Annotated[list[ContractDocument], FromAttributes("new_tokens.contracts")]
    restart: Annotated[list[str], FromAttributes("restart_tables")]
    backup: str | None
    reason: str
    transactions: list[SentTransactionDocument]


IsoTime = Annotated[str, ConvertedBy(lambda at_s, _: format_utc(at_s))]
AddressOrNative = Annotated[str, Field(pattern=r"^(native|0x[0-9a-fA-F]{40})$")]
"""Address of a token, or "native"."""


class MarketNumberDocument(TypedDict):
    """The number of a market of an off-chain futures venue: configured, renumbered, or new there."""

    market: str
    number: int
    state: Annotated[str, one_of("new", "unchanged", "CHANGED")]


class TrustDocument(TypedDict):
    """Contracts, and the market numbers of an off-chain futures venue, with their pins."""

    block: int
    pinned: bool
    contracts: list[ContractDocument]
    markets: NotRequired[list[MarketNumberDocument]]
    past_prices: NotRequired[list[str]]


class QuietHoursDocument(TypedDict):
    hours: str
    timezone: str | None
    urgent: list[str]


class NewAssetDocument(TypedDict):
    symbol: str
    address: str
    target: str
    feed: Address | None


class PolicyLossDocument(TypedDict):
    """A trigger with about its loss, the sum of costs, drift and tax (None: none is simulated), and
    the same if all gains are sold after the years simulated: bps of the portfolio a year.
    Rebalances a year.
    """

    policy: str
    loss_bps: DecimalText
    costs_bps: DecimalText
    drift_bps: DecimalText
    tax_bps: DecimalText | None
    loss_if_sold_bps: DecimalText | None
    trades_a_year: DecimalText


class TrackingLossDocument(TypedDict):
    """About what a portfolio of `value` coins of the numeraire loses a year behind one that is
    always on target at no cost or tax: `own` by its policy (None: no estimate), `money` in
    coins, `wild_year_bps` with prices that move 1.6 times as much and without tax, `others` by
    other triggers. `lines` has all of it in words: the policy, the others, the assumptions, and
    those of a tax; `warnings` says if gas is dear for the portfolio.
    """

    value: DecimalText
    unit: str
    own: PolicyLossDocument | None
    money: DecimalText | None
    wild_year_bps: DecimalText | None
    others: list[PolicyLossDocument]
    lines: list[str]
    warnings: list[str]


class InitDocument(TypedDict):
    """A new config. `ceiling` is its portfolio.max_live_value; `year_costs` has the rebalances and cost of a
    year with the cash to use, or with the ceiling, and the lines of `tracking_loss`, None without
    either.
    """

    config: str
    chain_id: int
    token_list_sha256: str | None
    template: str | None
    numeraire: str
    numeraire_usd: DecimalText
    ceiling: DecimalText | None
    least_total: list[MinimumTotalDocument]
    assets: list[NewAssetDocument]
    warnings: list[str]
    next: list[str]
    year_costs: list[str]
    tracking_loss: TrackingLossDocument | None
    past_prices: NotRequired[list[str]]


class WorstMonthDocument(TypedDict):
    worst_month: str
    worst_month_return: str
    worst_month_return_of_holding: str


class PastResultDocument(StartDate, TotalReturn, TypedDict):
    """Backtest of a basket, with `value` coins of the numeraire at the beginning: ratios as decimal
    strings, `costs` in the numeraire, `basis` the prices. It says nothing about the future.
    """

    until: str
    value: str
    return_of_holding: str
    max_drawdown: str
    max_drawdown_of_holding: str
    worst_month: str
    worst_month_return: str
    worst_month_return_of_holding: str
    rebalances: int
    costs: str
    basis: str


class TemplateTokenDocument(TypedDict):
    symbol: str
    address: AddressOrNative
    target: str


class TemplateDocument(TypedDict):
    """A portfolio template; policy, limits and weights are config tables. `minimum_capitals` are in the
    numeraire by network, on an ordinary day, empty if no total works.
    """

    name: str
    about: str
    shares_bps: dict[str, int]
    tokens: list[TemplateTokenDocument]
    policy: dict[str, Any]
    limits: dict[str, Any]
    weights: dict[str, Any] | None
    futures_notional: str | None
    past: PastResultDocument | None
    other_years: list[PastResultDocument]
    minimum_capitals: dict[str, str]
    tracking_loss: TrackingLossDocument | None


class TemplatesDocument(TypedDict):
    """`past` of each template is that on `network` on the packaged prices, `other_years` are those on
    prices that cannot be packaged; `gas_gwei` is the gas price of an ordinary day by
    network.
    """

    network: str
    chain_id: int
    templates: list[TemplateDocument]
    futures: str
    gas_gwei: dict[str, str]


class NewKeyDocument(TypedDict):
    """Places where a new key is stored, and the config lines that refer to it."""

    address: Address
    keystore: str | None
    keyring: str | None
    warnings: list[str]
    config: list[str]


class AgentApprovalDocument(TypedDict):
    """Approval of an agent's key at a futures venue: `agent` is None until the key is created, `key` is
    its location, `until` the end of the approval in UTC, `replaces` the agent that currently has the
    name, `kept` the file that an older key was moved to.
    """

    outcome: Annotated[str, one_of("planned", "declined", "done")]
    account: Address
    network: str
    name: str
    agent: Address | None
    key: str
    until: str
    replaces: Address | None
    kept: str | None


class KeyAddressDocument(TypedDict):
    address: Address
    verified: bool
    keystore: NotRequired[str]
    keyring: NotRequired[str]
    config: NotRequired[str]


class NewPasswordDocument(TypedDict):
    address: Address
    keystore: str
    warnings: list[str]


class ProbedEndpointDocument(EndpointDocument):
    """Record of an endpoint with its head, None if the probe failed or the endpoint lags."""

    head: int | None


OK = "ok"
WARN = "warn"
FAIL = "fail"
CheckLine = tuple[str, str, str, str]
"""(check, state, finding, remedy)."""


class CheckDocument(TypedDict):
    """A check; `addresses` are those that its finding shortens, if any."""

    check: str
    state: Annotated[str, one_of(OK, WARN, FAIL)]
    finding: str
    remedy: str
    addresses: NotRequired[list[Address]]


class DoctorDocument(TypedDict):
    """All checks; `exit` is the exit code of the first that fails."""

    endpoints: list[ProbedEndpointDocument]
    checks: list[CheckDocument]
    exit: int


class AssetAlertDocument(TypedDict):
    symbol: Annotated[str, shown("asset")]
    price: PriceText | None
    alert_low: Annotated[PriceText | None, shown("leaves band below")]
    alert_high: Annotated[PriceText | None, shown("leaves band above")]
    to_low_bps: Annotated[int | None, shown("distance below", "percent+")]
    to_high_bps: Annotated[int | None, shown("distance above", "percent+")]
    weight_bps: int
    band_bps: list[int]
    side: Annotated[str, shown("weight")]


class AlertTargetDocument(TypedDict):
    name: str
    ready: bool
    url_env: str
    events: list[str]
    delivered: Annotated[IsoTime | None, FromAttributes("delivered_s"), shown("last delivered")]
    failed: Annotated[IsoTime | None, FromAttributes("failed_s"), shown("last failed")]
    failures_in_row: Annotated[int, FromAttributes("failures")]
    why: str
    waiting: Annotated[int, shown("pending", "number"), FromAttributes("queued_count")]
    lost: Annotated[Count, FromAttributes("dropped_count")]


class AlertDocument(TypedDict):
    key: str
    event: Annotated[str, FromAttributes("kind")]
    text: str
    since: Annotated[IsoTime | None, FromAttributes("since_s")]
    sent: Annotated[IsoTime | None, FromAttributes("last_sent_s")]
    pending: Annotated[
        bool, ConvertedBy(lambda untold, _: untold > 0), FromAttributes("unsent_count")
    ]


class AlertsDocument(TypedDict):
    block: int
    assets: list[AssetAlertDocument]
    events: list[str]
    quiet: QuietHoursDocument | None
    cooldown_s: int
    targets: list[AlertTargetDocument]
    forgotten_targets: list[str]
    open: list[AlertDocument]
    last: list[AlertDocument]


class AlertTestResultDocument(TypedDict):
    name: str
    delivered: bool
    why: str


class AlertTestDocument(TypedDict):
    reached: bool
    targets: list[AlertTestResultDocument]


class LocalChainDocument(TypedDict):
    """A local chain; `owners` are the test accounts that own the wallet, a Safe, by number."""

    chain_id: int
    url: str | None
    wallet: Address
    owners: dict[str, Address]
    tokens: dict[str, Address]
    pools: dict[str, Address]
    feeds: dict[str, Address]
    config: str | None


class SystemdUnitDocument(TypedDict):
    path: str
    text: str


class SystemdUnitsDocument(TypedDict):
    """Units of systemd that are installed or removed, with the commands for it; `done` is False if they
    were only shown.
    """

    units: list[SystemdUnitDocument]
    commands: list[str]
    done: bool


class LiveDemoDocument(TypedDict):
    """Address of the dashboard of `trimtab demo --serve`, and the config for other commands."""

    url: str
    config: str


class NewUserDocument(TypedDict):
    """A new user of the dashboard with the secret of its one-time codes, which is shown once."""

    user: str
    read_only: bool
    secret: str
    otpauth: str


class UserDocument(TypedDict):
    user: str
    read_only: bool
    created: str
    locked_s: int


class UsersDocument(TypedDict):
    users: list[UserDocument]


class RemovedUserDocument(TypedDict):
    removed: str
    remaining: int


class UserEventDocument(TypedDict):
    time: str
    event: str
    user: str
    address: str
    detail: str


class UserLogDocument(TypedDict):
    events: list[UserEventDocument]


class DemoDocument(TypedDict):
    """`year` is the measured cost of a year, with --network."""

    before: StatusDocument
    moves: dict[str, str]
    drifted: StatusDocument
    plan: PlanDocument
    rebalance: RebalanceDocument
    after: StatusDocument
    next: PlanDocument
    year: NotRequired[str]


class UnreducedPositionsDocument(TypedDict):
    """The initial positions as if none had been reduced: their leverage, and whether they could be
    liquidated.
    """

    leverage: DecimalText | None
    is_liquidated: bool


class CrashDocument(TypedDict):
    moves: dict[str, str]
    margin: MarginDocument
    rebalance: RebalanceDocument
    after: MarginDocument
    untouched: UnreducedPositionsDocument


class FuturesDemoDocument(TypedDict):
    before: StatusDocument
    opened: RebalanceDocument
    positions: FuturesPositionsDocument
    crashes: list[CrashDocument]
    funding: FundingDocument
    final: StatusDocument
    remaining: FuturesPositionsDocument
