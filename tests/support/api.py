"""The API as a program calls it, with a token."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.support.dashboards import Served


@dataclass(frozen=True)
class Reply:
    """Status, headers by lower-case name, and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Code of a problem, after a check of its form."""
        assert self.headers["content-type"] == "application/problem+json"
        problem = self.json
        assert problem.keys() == {"type", "title", "status", "detail", "code", "remedy"}
        assert problem["status"] == self.status
        return str(problem["code"])


@dataclass
class Client:
    """Client of a served API, with the token unless another Authorization is given."""

    served: Served
    token: str = ""

    def ask(self, path: str, method: str = "GET", body: str | None = None, **headers: str) -> Reply:
        all_headers = ({"Authorization": f"Bearer {self.token}"} if self.token else {}) | headers
        return Reply(
            *self.served.ask(path, method, body, **({"Content_Type": "application/json"} if body is not None else {}), **all_headers)
        )
