"""Corrections under way over time, and orders that wait: what began them is written once, how far they are the receipts say.

A round is written down before anything of it is sent, with the draw for the round after it. It is done once a swap of its step
is in a block; a reorganisation that takes the block takes the round back, and a restart finds both as they were.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from agent import codec
from agent.errors import ConfigError, OperatorNeeded, Refused
from agent.model import Campaign, Draw, History, Intent, IntentKind, LimitOrder, Purchase, Spent, Underway
from agent.policy.campaign import taken
from agent.policy.pacing import wait_s
from agent.store import records
from agent.store.database import Database
from agent.store.tables import CampaignRow, IntentRow, Meta, RoundRow
from agent.store.transitions import CONSUMED
from agent.units import NATIVE

T = TypeVar("T")
DRAWN = "draw"
"""Key of the draw for the first round of a campaign that has not begun."""
CAMPAIGN, ORDER = "campaign", "order"
NEWEST = 20
"""Campaigns that ended, of which the newest that was no top-up starts the cooldown."""
OPEN = "open"
_CONSUMED = tuple(state.value for state in CONSUMED)


@dataclass(frozen=True, slots=True)
class PastCampaign:
    """A campaign as it stands or ended, for people; `state` is "open" or "ended", with the reason in `why`."""

    underway: Underway
    state: str
    why: str
    ended_s: int | None


class Campaigns(Database):
    """Each method is a transaction of its own."""

    def draw_ahead(self, draw: Draw) -> None:
        """Remembers the draw for the first round of the next campaign, unless there is one already."""
        with self._write("write a draw down") as session:
            if session.get(Meta, DRAWN) is None:
                session.add(Meta(key=DRAWN, value=f"{draw.size_ppm} {draw.wait_ppm}"))

    def begin_campaign(self, campaign: Campaign) -> str:
        """Writes a campaign down and returns its id; its first draw is used up. Raises OperatorNeeded while another is open, unless
        a purchase takes its place: what is left of a purchase before is part of it.
        """
        with self._write("write a campaign down") as session:
            if campaign.purchase is not None:
                for row in _open(session, CAMPAIGN):
                    row.state, row.why, row.ended_s = "ended", f"a {campaign.purchase.value} goes first", campaign.began_s
                session.flush()
            if _open(session, CAMPAIGN):
                raise OperatorNeeded("another correction is under way already", "let it end, or end it: trimtab limit --cancel ID")
            if (drawn := session.get(Meta, DRAWN)) is not None:
                session.delete(drawn)
            return _add(session, CAMPAIGN, campaign.began_s, codec.dumps(campaign))

    def begin_round(self, campaign_id: str, number: int, step_id: str, at_s: int, draw: Draw) -> None:
        """Writes a round, or a try at it, down before it is sent; `draw` is for the round after it, drawn once for all tries.

        `at_s` is the chain time it is planned at. Raises Refused for a campaign or order that is not open: it was ended meanwhile.
        """
        with self._write("write a round down") as session:
            if campaign_id not in [row.id for row in _open(session)]:
                raise Refused("what was to be carried out was ended meanwhile", remedy="look again; see trimtab limit")
            tries = select(RoundRow).where(RoundRow.campaign_id == campaign_id, RoundRow.number == number).order_by(RoundRow.seq)
            first = session.scalar(tries.limit(1))
            used = draw if first is None else Draw(first.size_ppm, first.wait_ppm)
            session.add(
                RoundRow(campaign_id=campaign_id, number=number, step_id=step_id, at_s=at_s, size_ppm=used.size_ppm, wait_ppm=used.wait_ppm)
            )

    def end_campaign(self, campaign_id: str, state: str, why: str, chain_s: int) -> bool:
        """Ends a campaign or an order by name; False when none of that id is open."""
        with self._write("write the end of a campaign") as session:
            rows = [row for row in _open(session) if row.id == campaign_id]
            for row in rows:
                row.state, row.why, row.ended_s = state, why, chain_s
            return bool(rows)

    def campaigns(self, limit: int = 20) -> tuple[PastCampaign, ...]:
        """The newest campaigns, newest first."""
        query = select(CampaignRow).where(CampaignRow.kind == CAMPAIGN).order_by(CampaignRow.seq.desc()).limit(limit)
        with self._read("read the campaigns") as session:
            return tuple(
                PastCampaign(_underway(session, row, self.wallet, self.coin), row.state, row.why, row.ended_s)
                for row in session.scalars(query)
            )

    def round_of(self, step_id: str) -> tuple[str, int] | None:
        """Campaign or order, and number, of the round that a step tried; None where it was none."""
        with self._read("read the rounds") as session:
            row = session.scalar(select(RoundRow).where(RoundRow.step_id == step_id).limit(1))
            return None if row is None else (row.campaign_id, row.number)

    # orders
    def add_order(self, order: LimitOrder) -> LimitOrder:
        """Writes an order down; it comes back with its id."""
        with self._write("write an order down") as session:
            return replace(order, id=_add(session, ORDER, order.begun_s, codec.dumps(replace(order, id=""))))

    def orders(self, limit: int = 1000) -> tuple[LimitOrder, ...]:
        """The newest orders that wait for their price, ended ones too, oldest first. One whose swap is in a block is filled."""
        query = select(CampaignRow).where(CampaignRow.kind == ORDER).order_by(CampaignRow.seq.desc()).limit(limit)
        with self._read("read the orders") as session:
            return tuple(reversed([_order(session, row) for row in session.scalars(query)]))


def remembered(session: Session, wallet: str, coin: str, history: History, chain_now_s: int) -> History:
    """The history with the campaign that is under way, when the last one ended, what it leaves to the next, and the draw that waits."""
    rows = _open(session, CAMPAIGN)
    drawn = session.get(Meta, DRAWN)
    over = select(CampaignRow).where(CampaignRow.kind == CAMPAIGN, CampaignRow.ended_s.is_not(None)).order_by(CampaignRow.seq.desc())
    ended = (row.ended_s for row in session.scalars(over.limit(NEWEST)) if _loaded(Campaign, row).purchase is not Purchase.TOP_UP)
    return replace(
        history,
        campaign=_underway(session, rows[0], wallet, coin) if rows else None,
        campaign_ended_s=next(ended, None),
        draw=None if drawn is None else _draw(drawn.value),
        spent=None if rows else _left_to_the_next(session, wallet, coin, chain_now_s),
    )


def _left_to_the_next(session: Session, wallet: str, coin: str, chain_now_s: int) -> Spent | None:
    """What the newest campaign that ended has taken of the budget that the next shares with it; None once that time is over."""
    ended = select(CampaignRow).where(CampaignRow.kind == CAMPAIGN, CampaignRow.state != OPEN).order_by(CampaignRow.seq.desc())
    row = session.scalar(ended.limit(1))
    if row is None:
        return None
    campaign = _loaded(Campaign, row)
    if campaign.purchase is not None:
        return None
    until_s = campaign.expires_s if campaign.before is None else campaign.before.until_s
    return taken(_underway(session, row, wallet, coin), row.why) if chain_now_s < until_s else None


def _underway(session: Session, row: CampaignRow, wallet: str, coin: str) -> Underway:
    """How far a campaign is: rounds by the swaps that a block has, value and loss by the receipts of all its transactions."""
    campaign = _loaded(Campaign, row)
    rounds = list(session.scalars(select(RoundRow).where(RoundRow.campaign_id == row.id).order_by(RoundRow.seq)))
    mined = _mined(session, [one.step_id for one in rounds])
    swapped = {intent.step_id for intent in mined if intent.kind is IntentKind.SWAP and intent.succeeded}
    done = {one.number: one for one in rounds if one.step_id in swapped}
    newest = done[max(done)] if done else None
    prices = dict(campaign.arrival) | {NATIVE: dict(campaign.arrival).get(coin, Fraction(0))}
    draw = campaign.first if newest is None else Draw(newest.size_ppm, newest.wait_ppm)
    return Underway(
        id=row.id,
        campaign=campaign,
        done=len(done),
        moved=sum((_moved(intent, wallet, prices) for intent in mined if intent.step_id in swapped), Fraction(0)),
        spent=-sum((_worth(intent.changes(wallet, coin), prices) for intent in mined), Fraction(0)),
        next_s=campaign.began_s if newest is None else newest.at_s + wait_s(campaign, draw),
        draw=draw,
        sold=_sold([intent for intent in mined if intent.step_id in swapped], wallet, coin) if campaign.purchase is not None else (),
    )


def _sold(intents: Sequence[Intent], wallet: str, coin: str) -> tuple[tuple[str, int], ...]:
    """What the wallet gave, base units by token, native coin as its wrapped token."""
    given: dict[str, int] = {}
    for intent in intents:
        for token, raw in intent.changes(wallet, coin).items():
            known = coin if token == NATIVE else token
            given[known] = given.get(known, 0) - raw
    return tuple(sorted((token, raw) for token, raw in given.items() if raw > 0))


def _moved(intent: Intent, wallet: str, prices: dict[str, Fraction]) -> Fraction:
    net = {} if intent.receipt is None else intent.receipt.net(wallet)
    return _worth({token: abs(raw) for token, raw in net.items()}, prices) / 2


def _worth(changes: dict[str, int], prices: dict[str, Fraction]) -> Fraction:
    return sum((raw * prices.get(token, Fraction(0)) for token, raw in changes.items()), Fraction(0))


def _mined(session: Session, steps: Iterable[str]) -> Sequence[Intent]:
    query = select(IntentRow).where(IntentRow.step_id.in_(list(steps)), IntentRow.state.in_(_CONSUMED)).order_by(IntentRow.seq)
    return [records.intent(row) for row in session.scalars(query)]


def _open(session: Session, kind: str | None = None) -> list[CampaignRow]:
    query = select(CampaignRow).where(CampaignRow.state == OPEN).order_by(CampaignRow.seq)
    return list(session.scalars(query if kind is None else query.where(CampaignRow.kind == kind)))


def _add(session: Session, kind: str, begun_s: int, body: str) -> str:
    made = uuid.uuid4().hex[:12]
    session.add(CampaignRow(id=made, kind=kind, begun_s=begun_s, body_json=body, state=OPEN, why=""))
    return made


def _order(session: Session, row: CampaignRow) -> LimitOrder:
    order = replace(_loaded(LimitOrder, row), id=row.id, state=row.state, why=row.why)
    steps = session.scalars(select(RoundRow.step_id).where(RoundRow.campaign_id == row.id))
    filled = [one for one in _mined(session, steps) if one.kind is IntentKind.SWAP and one.succeeded]
    return replace(order, state="filled", why=f"by {filled[-1].tx_hash}") if filled else order


def _draw(text: str) -> Draw:
    try:
        size, wait = map(int, text.split())
    except ValueError as error:
        raise OperatorNeeded(f"store: a draw is damaged: {error}", "restore a backup, compare it with the chain") from None
    return Draw(size, wait)


def _loaded(cls: type[T], row: CampaignRow) -> T:
    try:
        return codec.loads(cls, row.body_json)
    except ConfigError as error:
        raise OperatorNeeded(f"store: {row.kind} {row.id} is damaged: {error.message}", "restore a backup") from None
