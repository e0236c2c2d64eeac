"""The venue's budget of requests: the weight of each, and what this process has spent of a minute.
Source: "Rate limits and user limits" of the venue's API documentation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from agent.codec import json_field
from agent.ports import Clock

WEIGHT_PER_MINUTE = 1_200
"""Weight that the venue allows an IP address in a minute."""
RESERVED_WEIGHT = 400
"""Weight that reads which can wait leave to account, prices and orders."""
WINDOW_S = 61
"""Seconds after which a request no longer counts: a minute, and the second that a clock of whole
seconds cannot see.
"""
_DEFAULT_INFO_WEIGHT = 20
_INFO_WEIGHTS = {
    "allMids": 2,
    "clearinghouseState": 2,
    "l2Book": 2,
    "orderStatus": 2,
    "userRole": 60,
}
_ROWS_PER_WEIGHT = {
    "candleSnapshot": 60,
    "fundingHistory": 20,
    "userFillsByTime": 20,
    "userFunding": 20,
    "userNonFundingLedgerUpdates": 20,
}
"""Rows of an answer that add 1 to the weight of its request."""
_ACTIONS_PER_WEIGHT = 40


def request_weight(path: str, request_body: Mapping[str, object]) -> int:
    """Return the weight of a request to `info` or `exchange`, without that of its answer's rows."""
    if path == "info":
        return _INFO_WEIGHTS.get(str(request_body.get("type")), _DEFAULT_INFO_WEIGHT)
    action = request_body.get("action")
    batch = json_field(action, "orders") or json_field(action, "cancels") or ()
    return 1 + len(batch) // _ACTIONS_PER_WEIGHT


def answer_weight(request_body: Mapping[str, object], answer: object) -> int:
    """Return the weight that the rows of an answer add."""
    rows_per_weight = _ROWS_PER_WEIGHT.get(str(request_body.get("type")))
    if rows_per_weight is None or not isinstance(answer, list):
        return 0
    return len(answer) // rows_per_weight


class RequestBudget:
    """What this process has spent of the venue's budget in the last minute. Other programs at the
    same IP address share the budget; the venue then answers with status 429.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._spent: deque[tuple[int, int]] = deque()

    def left(self) -> int:
        """Return the weight that may be spent now."""
        now_s = self._clock.now_s()
        while self._spent and not 0 <= now_s - self._spent[0][0] < WINDOW_S:
            self._spent.popleft()
        return WEIGHT_PER_MINUTE - sum(weight for _, weight in self._spent)

    def spend(self, weight: int) -> None:
        """Count a request or the rows of its answer."""
        self._spent.append((self._clock.now_s(), weight))

    def wait_for(self, weight: int) -> None:
        """Wait until a request of this weight fits, for a minute at most."""
        while self._spent and self.left() < weight:
            oldest_s, _ = self._spent[0]
            self._clock.sleep(max(1, oldest_s + WINDOW_S - self._clock.now_s()))

    def pause(self, seconds: float) -> None:
        """Wait because the venue has limited the requests."""
        self._clock.sleep(seconds)
