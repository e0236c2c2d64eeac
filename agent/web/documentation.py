"""The documentation as a site, for browsers of this machine, with the standard library alone; and the
entries of refusals, which are made of the program's text.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from agent import errors
from agent.errors import ConfigError, ErrorCode, printable_text
from agent.guards.table import PAYOUT_REMEDIES, REMEDIES
from agent.model import ControlCode

_CODES: dict[str, type[ErrorCode] | type[ControlCode]] = {
    "ErrorCode": ErrorCode,
    "ControlCode": ControlCode,
}
_CAUSES = {
    "agent_key": "The futures venue does not accept the agent's key → trimtab delegate approves it",
    "batch": "An endpoint refuses requests of several calls → use one with JSON-RPC batches",
    "code": "A contract has no code, or other code than was confirmed → check its address, then"
    " trimtab trust",
    "config": "The config was edited since it was confirmed, or since the run started → trimtab edit"
    " --confirm, or start the run again",
    "control_edit": "A control may not permit more than the owner has confirmed → trimtab edit",
    "control_queue": "Too many controls wait → trimtab run --send takes them, or they expire",
    "expired": "A control was not taken in its time → ask for it again, while trimtab run --send runs",
    "head_time": "The chain's newest block is dated in the future → check the endpoints and this"
    " machine's clock",
    "no_answer": "A second quote could not be read → try again, or use another endpoint",
    "pool": "The venue names another pool for these tokens → trimtab trust shows the pools",
    "price": "A token has no price → name its feed, or let pools price it",
    "repeated_payment": "A withdrawal is open and pays the same, or has paid it →"
    " to continue it: trimtab withdraw --resume NUMBER; to withdraw a second time: the same with"
    " --again",
    "stopped": "The bot was stopped by its owner → trimtab resume restarts it",
}
"""Cause and remedy of names whose messages are put together elsewhere."""
REFUSALS_PAGE = "refusals.html"
"""Page with an entry for each code of an error and each guard."""


class _SiteHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


def refusal_entries() -> dict[str, list[str]]:
    """Return the lines about each guard and each code of an error, by its name: what to do about the
    guard, and the messages and remedies of the code, with … in the place of values.
    """
    remedies = {**PAYOUT_REMEDIES, **REMEDIES}
    entries: dict[str, list[str]] = {
        name: [f"Guard. What to do: {remedies[name]}."] if name in remedies else []
        for name in sorted({*remedies, *(code.value for code in ErrorCode), *_CAUSES})
    }
    package = Path(errors.__file__).parent
    texts = [path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))]
    for call in (node for text in texts for node in _error_calls(text)):
        cause_text = _cause_of(call)
        for name in _names_of(call):
            lines = entries.setdefault(name, [])
            if cause_text and cause_text not in lines:
                lines.append(cause_text)
    for name, cause_text in _CAUSES.items():
        entries[name] = entries[name] or [cause_text]
    return dict(sorted(entries.items()))


def _error_calls(text: str) -> Iterator[ast.Call]:
    """Yield all calls of a module in which one names a code of an error or a guard's verdict."""
    if not any(mark in text for mark in ("code=ErrorCode.", "Verdict(", "guard_refusal(")):
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            yield node


def _names_of(call: ast.Call) -> list[str]:
    """Return the code of an error, and the guards of the verdicts among its arguments."""
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    verdicts = [
        part
        for argument in arguments
        for part in (argument.elts if isinstance(argument, ast.Tuple | ast.List) else [argument])
        if isinstance(part, ast.Call) and _name_of_function(part) == "Verdict"
    ]
    if _name_of_function(call) == "guard_refusal":
        verdicts = [call]
    names = [_text_of(verdict.args[0]) for verdict in verdicts if verdict.args]
    code = next((keyword.value for keyword in call.keywords if keyword.arg == "code"), None)
    if isinstance(code, ast.Attribute) and ast.unparse(code.value) in _CODES:
        names.append(_CODES[ast.unparse(code.value)][code.attr].value)
    return [name for name in names if name]


def _cause_of(call: ast.Call) -> str:
    """Return message and remedy of an error, with … in the place of values; "" without them."""
    arguments = {keyword.arg: keyword.value for keyword in call.keywords}
    message_index = 3 if _name_of_function(call) == "guard_refusal" else 0
    messages = call.args[message_index : message_index + 1]
    remedies = call.args[message_index + 1 : message_index + 2]
    if any(isinstance(remedy, ast.Tuple | ast.List) for remedy in remedies):
        remedies = call.args[message_index + 2 : message_index + 3]  # after the verdicts
    remedy = arguments.get("remedy", next(iter(remedies), None))
    texts = map(_text_of, (*messages, remedy))
    return " → ".join(text for text in texts if any(map(str.isalpha, text)))


def _name_of_function(call: ast.Call) -> str:
    function = call.func
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _text_of(node: ast.expr | None) -> str:
    """Return a text of the program, with … in the place of what it fills in."""
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
        )
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def refusal_entry(code: str) -> list[str]:
    """Return the lines about an error's code or a guard. Raises ConfigError for one without an
    entry.
    """
    entries = refusal_entries()
    if code not in entries:
        similar_codes = get_close_matches(code.lower(), entries)
        raise ConfigError(
            f"CODE: {printable_text(code)!r} is neither the code of an error nor a guard",
            f"write {' or '.join(similar_codes)}"
            if similar_codes
            else f"trimtab docs shows all at {REFUSALS_PAGE}",
        )
    return entries[code]


def serve_documentation(folder: Path, port: int, on_ready: Callable[[str], None]) -> None:
    """Serve the files of `folder` on this machine only, until interrupted. Call `on_ready` with the
    address. Port 0 takes a free one. Raises ConfigError if the port is in use.
    """
    try:
        server = ThreadingHTTPServer(
            ("127.0.0.1", port), partial(_SiteHandler, directory=str(folder))
        )
    except OSError as error:
        raise ConfigError(
            f"--port {port}: {error.strerror}", "name another one; 0 takes a free one"
        ) from None
    with server:
        on_ready(f"http://127.0.0.1:{server.server_port}/")
        server.serve_forever()
