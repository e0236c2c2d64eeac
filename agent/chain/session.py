"""Connections to endpoints, with what the environment says of them."""

from __future__ import annotations

import requests


def opened(url: str) -> requests.Session:
    """Proxies, certificates and credentials that the environment has for this URL are read once: requests would at every request."""
    session = requests.Session()
    found = session.merge_environment_settings(url, {}, None, None, None)
    session.proxies, session.verify, session.auth = found["proxies"], found["verify"], requests.utils.get_netrc_auth(url)
    session.trust_env = False
    session.headers.update({"Content-Type": "application/json", "Accept": "application/json"})
    return session
