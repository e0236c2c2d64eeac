"""Connections to endpoints, with what the environment says of them."""

from __future__ import annotations

from typing import NoReturn

import requests


class Connection:
    """Posts to one URL. What requests makes of the URL, headers, proxies and credentials is worked out once, not at every request."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = _opened(url)
        self._prepared: requests.PreparedRequest | None = None

    def __repr__(self) -> str:
        return "Connection(hidden)"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a connection is not pickled or copied: its URL is a secret")

    def post(self, body: bytes, timeout_s: float) -> requests.Response:
        """The answer, its body still to be read; redirects are not followed. Raises what requests raises, a bad URL included."""
        if self._prepared is None:
            self._prepared = self._session.prepare_request(requests.Request("POST", self._url))
        asked = self._prepared.copy()
        asked.prepare_body(body, None)
        if self._session.cookies:
            asked.prepare_cookies(self._session.cookies)
        return self._session.send(asked, timeout=timeout_s, stream=True, allow_redirects=False, proxies=self._session.proxies)


def _opened(url: str) -> requests.Session:
    """Proxies, certificates and credentials that the environment has for this URL are read once: requests would at every request."""
    session = requests.Session()
    found = session.merge_environment_settings(url, {}, None, None, None)
    session.proxies, session.verify, session.auth = found["proxies"], found["verify"], requests.utils.get_netrc_auth(url)
    session.trust_env = False
    session.headers.update({"Content-Type": "application/json", "Accept": "application/json"})
    return session
