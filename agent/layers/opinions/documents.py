"""Second opinions on a plan's trades, as keys of its document."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, NotRequired

from typing_extensions import TypedDict

from agent.app.documents import DecimalText, Raw
from agent.layers.opinions.services import SERVICES, Sale, ask_services
from agent.model import LegPlace, Plan, Portfolio
from agent.units import BPS, ceil_int, decimal_text

if TYPE_CHECKING:
    from agent.execution.step_context import StepOutcome
    from agent.layers.config import LayerTables


class AnswerDocument(TypedDict):
    """What a service would pay for a trade, and how much more that is than the plan's amount, in
    bps, rounded up; None if unknown, and `text` says why.
    """

    service: str
    amount_raw: Raw | None
    more_bps: DecimalText | None
    text: str


class SecondOpinionDocument(TypedDict):
    """Answers about one token that a plan buys: base units that it sells for it, by symbol, and
    that it buys.
    """

    sell: dict[str, Raw]
    buy: str
    planned_raw: Raw
    answers: list[AnswerDocument]
    text: str


class LivePlanKeys(TypedDict):
    """Keys of this layer in the document of a plan that is shown."""

    second_opinions: NotRequired[list[SecondOpinionDocument]]


def live_plan_keys(tables: LayerTables, outcome: StepOutcome) -> LivePlanKeys:
    """Return what the services of [second_opinions] would pay for the plan's trades; nothing
    without the table or without trades.
    """
    opinions_table = tables.second_opinions
    plan = outcome.plan
    portfolio = outcome.step_input.portfolio
    if opinions_table is None or plan is None or not (trades := trades_of(plan, portfolio)):
        return {}
    sales = [
        Sale(token, bought_token, sold_raw)
        for bought_token, (sold_raw_by_token, _) in trades.items()
        for token, sold_raw in sold_raw_by_token.items()
    ]
    api_key = opinions_table.variable(opinions_table.zero_x_env)
    answers = iter(
        ask_services(
            opinions_table.services, api_key, outcome.step_input.snapshot.head.chain_id, sales
        )
    )
    opinion_documents: list[SecondOpinionDocument] = []
    for bought_token, (sold_raw_by_token, planned_raw) in trades.items():
        answers_of_trade = [next(answers) for _ in sold_raw_by_token]
        answer_documents = [
            _answer_document(
                service_name,
                planned_raw,
                [sale_answers[service_name] for sale_answers in answers_of_trade],
            )
            for service_name in opinions_table.services
        ]
        sold_raw_by_symbol = {
            portfolio.token(token).label: str(sold_raw)
            for token, sold_raw in sold_raw_by_token.items()
        }
        bought_symbol = portfolio.token(bought_token).label
        answer_texts = [answer_document["text"] for answer_document in answer_documents]
        opinion_documents.append(
            {
                "sell": sold_raw_by_symbol,
                "buy": bought_symbol,
                "planned_raw": str(planned_raw),
                "answers": answer_documents,
                "text": f"Elsewhere, {' and '.join(sold_raw_by_symbol)} to {bought_symbol}: {', '.join(answer_texts)}; before gas",
            }
        )
    return {"second_opinions": opinion_documents}


def trades_of(plan: Plan, portfolio: Portfolio) -> dict[str, tuple[Counter[str], int]]:
    """Return for each token that the plan buys what it sells for it, in base units by token, and
    the base units that it buys. Native coin counts as its wrapped token. What legs collect in the
    router is followed to the leg that spends it, which spends all of it.
    """
    sold_raw_by_router_token: defaultdict[str, Counter[str]] = defaultdict(Counter)
    trades: dict[str, tuple[Counter[str], int]] = {}
    for leg in plan.legs:
        sold_token, bought_token = map(portfolio.pricing_token, (leg.token_in, leg.token_out))
        spent_raw_by_token = Counter({sold_token: leg.amount_in_raw})
        if leg.source is LegPlace.ROUTER:
            spent_raw_by_token = sold_raw_by_router_token.pop(sold_token, Counter[str]())
        if leg.sink is LegPlace.ROUTER:
            sold_raw_by_router_token[bought_token].update(spent_raw_by_token)
        elif bought_token not in spent_raw_by_token:  # else it only wraps or unwraps
            spent_before_raw_by_token, bought_before_raw = trades.get(
                bought_token, (Counter[str](), 0)
            )
            trades[bought_token] = (
                spent_before_raw_by_token + spent_raw_by_token,
                bought_before_raw + leg.amount_out_raw,
            )
    return trades


def _answer_document(
    service_name: str, planned_raw: int, answers: Sequence[int | str]
) -> AnswerDocument:
    """Return the document of one service's answers to the sales of a trade, summed."""
    service_label = SERVICES[service_name].label
    total_raw = 0
    for answer in answers:
        if isinstance(answer, str):
            text = f"{answer} ({service_label})"
            return {"service": service_label, "amount_raw": None, "more_bps": None, "text": text}
        total_raw += answer
    more_bps = decimal_text(ceil_int(Fraction(total_raw - planned_raw, planned_raw) * BPS * 10), 1)
    sign = "" if more_bps.startswith("-") else "+"
    text = f"{sign}{more_bps} bps ({service_label})"
    return {
        "service": service_label,
        "amount_raw": str(total_raw),
        "more_bps": more_bps,
        "text": text,
    }
