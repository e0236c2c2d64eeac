"""Tells the owner: takes each look's alerts, writes down what is told before it leaves, hands it over, and never waits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from agent.model import Alert, AlertKind, AlertState, Delivery, Letter
from agent.observe.alerts import Rules, judge
from agent.observe.couriers import Courier, settle_all
from agent.store.alerts import Alerts

CLOSING_S = 5.0
"""How long an end waits for what is on its way; the rest goes out when the run begins again."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A target and the kinds that it hears."""

    courier: Courier
    kinds: frozenset[AlertKind]


class Announcer:
    """Called from the run's own thread alone; deliveries are in threads of their own, which touch no store.

    `failed` hears of deliveries that were given up, for the log.
    """

    def __init__(self, store: Alerts, listeners: Sequence[Listener], rules: Rules, failed: Callable[[Delivery], None]) -> None:
        self._store = store
        self._listeners = {listener.courier.name: listener for listener in listeners}
        self._rules = rules
        self._failed = failed

    def begin(self) -> None:
        """Hands over what an earlier run did not get delivered."""
        letters = self._store.letters()
        gone = {letter.target for letter in letters} - set(self._listeners)
        if gone:
            self._store.drop_letters(gone)
        self._hand_over(letter for letter in letters if letter.target not in gone)

    def looked(self, alerts: Iterable[Alert], judged: frozenset[AlertKind], now_s: int, last: bool = False) -> tuple[AlertState, ...]:
        """One look's alerts, at Unix seconds; returns what is told of them now. `judged` as in alerts.judge. What is the last of
        a run waits for no quiet hours to end: nobody would be there to tell it then.
        """
        self._settle([one for listener in self._listeners.values() for one in listener.courier.collected()])
        rules = replace(self._rules, quiet=None) if last else self._rules
        found = judge(self._store.alert_states(), alerts, judged, now_s, rules)
        letters = [(name, state) for state in found.told for name, listener in self._listeners.items() if state.kind in listener.kinds]
        if found.changed or letters:
            self._hand_over(self._store.note_alerts(found.changed, letters, now_s))
        return found.told

    def close(self, within_s: float = CLOSING_S) -> None:
        """Waits so long for what is on its way."""
        self._settle(settle_all((listener.courier for listener in self._listeners.values()), within_s))

    def cry(self, alert: Alert, now_s: int, within_s: float = CLOSING_S) -> None:
        """Tells one thing at once, and waits for it, where the process is about to end and its store may be what hangs."""
        for name, listener in self._listeners.items():
            if alert.kind in listener.kinds and alert.kind in self._rules.kinds:
                listener.courier.put(Letter(0, name, alert.kind, alert.text, now_s))
        settle_all((listener.courier for listener in self._listeners.values()), within_s)

    def _hand_over(self, letters: Iterable[Letter]) -> None:
        for letter in letters:
            self._listeners[letter.target].courier.put(letter)

    def _settle(self, found: Sequence[Delivery]) -> None:
        if not found:
            return
        self._store.settle_letters(found)
        for one in found:
            if one.why:
                self._failed(one)
