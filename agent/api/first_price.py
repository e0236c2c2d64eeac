"""What a coin of the numeraire is worth in dollars when a config is first written: its caps are meant in dollars."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from fractions import Fraction

from agent import wiring
from agent.chain import feeds
from agent.chain.ask import ask
from agent.config.chain import RpcTable
from agent.config.template import TemplateAsset
from agent.errors import ConfigError, TrimtabError
from agent.reference.peg import is_dollar
from agent.units import Token

LONGEST_AGE_S = 90_000
"""A feed's slowest heartbeat is a day."""
MOST_APART = Fraction(101, 100)
_PRICE = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?")


def dollars_of(
    numeraire: TemplateAsset, price: str | None, rpc: Sequence[tuple[str, str]], now_s: Callable[[], float] = time.time
) -> Fraction:
    """Dollars per coin: as told, 1 for a dollar, else by the token's feed at the endpoints whose variables are set.

    `rpc` are (variable, operator) pairs. Raises ConfigError where there is no price, or where endpoints contradict each other.
    """
    if price is not None:
        if not _PRICE.fullmatch(price) or Decimal(price) == 0:
            raise ConfigError(f"--price: {price!r} is not a price in dollars", "write a plain number such as 3000")
        return Fraction(Decimal(price))
    if is_dollar(Token(numeraire.address, numeraire.symbol, 18)):
        return Fraction(1)
    found = [] if numeraire.feed is None else list(_answers(numeraire.feed, rpc, now_s()))
    if not found or max(found) > min(found) * MOST_APART:
        why = "is not known" if not found else "differs between endpoints"
        raise ConfigError(
            f"--numeraire {numeraire.symbol}: the config's caps are counted in it, and its price {why}",
            f"give dollars per {numeraire.symbol} by --price, or export {rpc[0][0] if rpc else 'the --rpc variable'} to read its feed",
        )
    return min(found)


def _answers(feed: str, rpc: Sequence[tuple[str, str]], now_s: float) -> Iterator[Fraction]:
    """Dollars by each endpoint that answers with a fresh round."""
    for variable, operator in rpc:
        try:
            line = wiring.open_transport(RpcTable(operator=operator, url_env=variable))
            found, _ = feeds.read(feed, ask(line, [item for _, item in feeds.questions(feed)]))
        except TrimtabError:
            continue
        if found is not None and found.answer > 0 and now_s - found.updated_at_s <= LONGEST_AGE_S:
            yield Fraction(found.answer, 10**found.decimals)
