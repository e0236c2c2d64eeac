"""The documentation as a site, for browsers of this machine, with the standard library alone; and the
entries of refusals, which are made of the program's text.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from agent import errors
from agent.errors import ConfigError, ErrorCode, printable_text
from agent.guards.table import PAYOUT_REMEDIES, REMEDIES

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
        for name in sorted({*remedies, *(code.value for code in ErrorCode)})
    }
    package = Path(errors.__file__).parent
    texts = [path.read_text(encoding="utf-8") for path in sorted(package.rglob("*.py"))]
    nodes = (
        node for text in texts if "code=ErrorCode." in text for node in ast.walk(ast.parse(text))
    )
    for call in (node for node in nodes if isinstance(node, ast.Call)):
        arguments = {keyword.arg: keyword.value for keyword in call.keywords}
        code = arguments.get("code")
        if isinstance(code, ast.Attribute) and ast.unparse(code.value) == "ErrorCode":
            remedy = arguments.get("remedy", call.args[1] if len(call.args) > 1 else None)
            cause_text = " → ".join(filter(None, map(_text_of, (*call.args[:1], remedy))))
            lines = entries[ErrorCode[code.attr].value]
            if cause_text and cause_text not in lines:
                lines.append(cause_text)
    return entries


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
    return entries[code] or ["The message has the cause."]


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
