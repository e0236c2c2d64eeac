"""Keys in the keyring of the operating system, by the keyring library: kept under a service and a name, never in the clear (T18)."""

from __future__ import annotations

from agent.chain.secret import Key, Secret, key_of
from agent.errors import ConfigError

_OTHERWISE = "use a keystore file (trimtab wallet create --keystore wallet.json), or install a keyring service"
_PLAIN = ("null", "plaintext", "alt.file", "uncrypted")
"""Parts of the names of backends that keep nothing, or keep it readable."""


def load(entry: tuple[str, str]) -> Key:
    """The key under (service, name). Raises ConfigError when there is no keyring, no such entry, or it holds no key."""
    text = _read(entry)
    if text is None:
        raise ConfigError(f"wallet.keyring: {_shown(entry)} is not in the keyring", f"trimtab wallet create --keyring {_shown(entry)}")
    found = key_of(text, f"wallet.keyring: {_shown(entry)}")
    if isinstance(found, ConfigError):
        raise found
    return found


def require_room(entry: tuple[str, str]) -> None:
    """Raises ConfigError when there is no keyring, or it has that entry already: a key is never written over."""
    if _read(entry) is not None:
        raise ConfigError(f"keyring: {_shown(entry)} is taken; nothing was changed", "choose another name, such as trimtab/second")


def store(entry: tuple[str, str], key: Key) -> None:
    """Puts the key under (service, name), where nothing may be, and reads it back. Raises ConfigError."""
    require_room(entry)
    failed = _write(entry, key)
    if failed is not None:
        raise failed
    if load(entry).address != key.address:
        raise ConfigError(f"keyring: {_shown(entry)} does not come back as it was written", "use a keystore file")


def require_backend() -> str:
    """Name of the keyring that would be used. Raises ConfigError when there is none that keeps secrets."""
    import keyring
    from keyring.backends import fail

    try:
        backend = keyring.get_keyring()
    except Exception as error:  # whatever a backend raises while it is looked for
        raise ConfigError(f"keyring: none can be opened ({type(error).__name__})", _OTHERWISE) from None
    each = getattr(backend, "backends", [backend])
    if isinstance(backend, fail.Keyring) or not each:
        raise ConfigError("keyring: this system offers none", _OTHERWISE)
    for one in each:
        name = f"{type(one).__module__}.{type(one).__name__}"
        if any(part in name.lower() for part in _PLAIN):
            raise ConfigError(f"keyring: {name} keeps what it is given readable, or not at all", _OTHERWISE)
    return f"{type(backend).__module__}.{type(backend).__name__}"


def _read(entry: tuple[str, str]) -> Secret | None:
    import keyring

    require_backend()
    try:
        text = keyring.get_password(*entry)
    except Exception as error:  # a locked keyring, a missing service, a refused prompt: each backend has errors of its own
        failed = _failed("read", entry, error)
    else:
        return None if text is None else Secret(text)
    raise failed


def _write(entry: tuple[str, str], key: Key) -> ConfigError | None:
    """An error is returned, not raised: the frames of a backend hold the key."""
    import keyring

    try:
        keyring.set_password(*entry, key.reveal().hex())
    except Exception as error:
        return _failed("write", entry, error)
    return None


def _failed(what: str, entry: tuple[str, str], error: Exception) -> ConfigError:
    return ConfigError(
        f"keyring: cannot {what} {_shown(entry)} ({type(error).__name__})", f"unlock the keyring and try again, or {_OTHERWISE}"
    )


def _shown(entry: tuple[str, str]) -> str:
    return "/".join(entry)
