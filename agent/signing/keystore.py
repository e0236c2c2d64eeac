"""Keystore files of version 3 and keyring entries: read, written and re-encrypted, readable by the
owner alone (T18).
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.errors import ConfigError
from agent.files import sync_folder
from agent.signing.secret import PrivateKey, Secret, parse_private_key

MAX_KEYSTORE_BYTES = 64 * 1024
SCRYPT_N = 2**18
"""Work factor of scrypt (with r = 8, p = 1 it takes 256 MB and about a second to try one password):
that of geth."""
MIN_PASSWORD_LENGTH = 12
MIN_DISTINCT_CHARACTERS = 6
"""Minimum number of different characters in a password: a repeated letter is long but easily
guessed.
"""
_COMMON = (
    "password",
    "passwort",
    "qwertyuiop",
    "1234567890",
    "abcdefghij",
    "letmein",
    "iloveyou",
    "changeme",
    "trimtab",
)
_NO_HARD_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)


def read_private_file(path: Path) -> bytes:
    """Return the file's bytes if only its owner may read it. The check applies to the opened
    file.
    """
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise ConfigError(
                    f"wallet.keystore: {path} is not a file", "name the keystore file itself"
                )
            if state.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigError(
                    f"wallet.keystore: others than its owner may use {path} (mode"
                    f" {stat.S_IMODE(state.st_mode):04o})",
                    f"run: chmod 600 {path}",
                )
            if state.st_uid not in (os.geteuid(), 0):
                raise ConfigError(
                    f"wallet.keystore: {path} belongs to another user (uid {state.st_uid}), who can"
                    " read and change it",
                    "run as that user, or make a copy of your own",
                )
            return file.read(MAX_KEYSTORE_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"wallet.keystore: {path} cannot be read ({error.strerror})", "check the path"
        ) from None


def open_keystore(raw: bytes, password: Secret, path: Path) -> PrivateKey | ConfigError:
    """The key inside; an error is returned, not raised, so that the frames that saw the key are
    gone when it is shown.
    """
    from eth_account import Account
    from eth_keyfile.keyfile import decode_keyfile_json

    try:
        sheet = json.loads(raw) if len(raw) <= MAX_KEYSTORE_BYTES else None
    except ValueError:
        sheet = None
    if not isinstance(sheet, dict) or sheet.get("version") != 3:
        return ConfigError(
            f"wallet.keystore: {path} is not a version 3 keystore",
            "write one with: trimtab wallet create",
        )
    try:
        utf8: Any = (
            password.reveal().encode()
        )  # eth-keyfile 0.8 is typed for text, which it would read as Latin-1
        return PrivateKey(Account.from_key(decode_keyfile_json(sheet, utf8)))
    except ValueError as error:
        if "MAC mismatch" in str(error):
            return ConfigError(
                f"wallet.keystore: wrong password for {path}",
                "type the password that it was written with",
            )
    except Exception:  # noqa: S110 the library raises various errors for a malformed file; reported below without its frames
        pass
    return ConfigError(f"wallet.keystore: {path} is damaged", "restore it from its backup")


def require_strong(password: Secret) -> None:
    """Raise ConfigError for a password that is empty or easy to guess; the message does not repeat
    it.
    """
    text = password.reveal()
    remedy = (
        f"take at least {MIN_PASSWORD_LENGTH} characters that are hard to guess: four random words,"
        " or one of a password manager"
    )
    if not text.strip():
        raise ConfigError("the password is empty", remedy)
    if len(text) < MIN_PASSWORD_LENGTH:
        raise ConfigError(f"the password has fewer than {MIN_PASSWORD_LENGTH} characters", remedy)
    if len(set(text)) < MIN_DISTINCT_CHARACTERS:
        raise ConfigError(
            f"the password has fewer than {MIN_DISTINCT_CHARACTERS} different characters", remedy
        )
    left = text.lower()
    for common in _COMMON:
        left = left.replace(common, "")
    if len(left) < MIN_PASSWORD_LENGTH // 2:
        raise ConfigError("the password is one of the first that are tried", remedy)


def require_free_path(path: Path) -> None:
    """Raise ConfigError if `path` exists, or its folder is missing; before any prompt."""
    if os.path.lexists(path):
        raise ConfigError(
            f"{path} exists already; nothing was changed",
            "name another file, or move that one away",
        )
    if not path.parent.is_dir():
        raise ConfigError(
            f"{path}: folder {path.parent} does not exist", "create it, or name another file"
        )


def write_keystore(path: Path, key: PrivateKey, password: Secret) -> None:
    """Write a new keystore at `path`, mode 0600, atomically, never over an existing file. It is
    verified by decrypting once. Raises ConfigError naming the error.
    """
    require_strong(password)
    require_free_path(path)
    draft = _draft(path, key, password)
    try:
        _link_into_place(draft, path)
    except FileExistsError:
        raise ConfigError(
            f"{path} exists already; nothing was changed",
            "name another file, or move that one away",
        ) from None
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror})", "choose a folder that you may write to"
        ) from None
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()
    sync_folder(path.parent)


def change_password(path: Path, old: Secret, new: Secret) -> PrivateKey:
    """Re-encrypt the keystore at `path`: the old file stays until the new one is complete, verified
    and in place. Return its key. Raises ConfigError naming the error; the old file is then
    unchanged.
    """
    found = open_keystore(read_private_file(path), old, path)
    if isinstance(found, ConfigError):
        raise found
    require_strong(new)
    if new.reveal() == old.reveal():
        raise ConfigError("the new password is the old one", "type another")
    real = path.resolve()  # a link stays a link
    draft = _draft(real, found, new)
    try:
        draft.replace(real)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror})", "choose a folder that you may write to"
        ) from None
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()
    sync_folder(real.parent)
    return found


def _draft(path: Path, key: PrivateKey, password: Secret) -> Path:
    """Write an encrypted draft beside `path`, sync it, and verify it by decrypting once."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}.draft")
    sealed = _encrypted_key(key, password)
    if isinstance(sealed, ConfigError):
        raise sealed
    try:
        _new_file(draft, sealed)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror})", "choose a folder that you may write to"
        ) from None
    again = open_keystore(read_private_file(draft), password, draft)
    if isinstance(again, ConfigError) or again.address != key.address:
        draft.unlink()
        raise ConfigError(
            f"{path}: what was written does not open again; nothing was changed",
            "check this disk before anything else",
        )
    return draft


def _encrypted_key(key: PrivateKey, password: Secret) -> bytes | ConfigError:
    """The locked key; an error is returned, not raised, as in `open_keystore`: scrypt may find too
    little memory.
    """
    from eth_account import Account

    try:
        sheet = Account.encrypt(key.reveal(), password.reveal(), kdf="scrypt", iterations=SCRYPT_N)  # type: ignore[no-untyped-call,unused-ignore]  # untyped in 0.11
    except Exception as error:  # the frames of any error hold the key
        return ConfigError(
            f"the key cannot be locked ({type(error).__name__})",
            "scrypt needs 256 MB of free memory",
        )
    return (json.dumps(sheet, indent=1) + "\n").encode()


def _link_into_place(draft: Path, path: Path) -> None:
    """Link the draft to its final name, which must be free. Raises FileExistsError."""
    try:
        os.link(draft, path)
    except OSError as error:
        if error.errno not in _NO_HARD_LINKS:
            raise
        _new_file(path, draft.read_bytes())


def _new_file(path: Path, data: bytes) -> None:
    """A file of the owner's alone, on the disk; none when that fails."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink()
        raise


# --- Keys in the operating system's keyring, by the keyring library: under a service and a name,
# never in the clear (T18).


_OTHERWISE = (
    "use a keystore file (trimtab wallet create --keystore wallet.json), or install a keyring"
    " service"
)
_PLAIN = ("null", "plaintext", "alt.file", "uncrypted")
"""Parts of the names of backends that keep nothing, or keep it readable."""


def load_from_keyring(entry: tuple[str, str]) -> PrivateKey:
    """Return the key under (service, name). Raises ConfigError if there is no keyring, no such
    entry, or it holds no key.
    """
    text = _read(entry)
    if text is None:
        raise ConfigError(
            f"wallet.keyring: {_shown(entry)} is not in the keyring",
            f"trimtab wallet create --keyring {_shown(entry)}",
        )
    found = parse_private_key(text, f"wallet.keyring: {_shown(entry)}")
    if isinstance(found, ConfigError):
        raise found
    return found


def require_free_keyring_entry(entry: tuple[str, str]) -> None:
    """Raise ConfigError if there is no keyring, or the entry exists: a key is never overwritten."""
    if _read(entry) is not None:
        raise ConfigError(
            f"keyring: {_shown(entry)} is taken; nothing was changed",
            "choose another name, such as trimtab/second",
        )


def save_to_keyring(entry: tuple[str, str], key: PrivateKey) -> None:
    """Store the key under (service, name), which must be free, and read it back. Raises
    ConfigError.
    """
    require_free_keyring_entry(entry)
    failed = _write(entry, key)
    if failed is not None:
        raise failed
    if load_from_keyring(entry).address != key.address:
        raise ConfigError(
            f"keyring: {_shown(entry)} does not come back as it was written", "use a keystore file"
        )


def require_keyring() -> str:
    """Return the name of the active keyring. Raises ConfigError if none stores secrets."""
    import keyring
    from keyring.backends import fail

    try:
        backend = keyring.get_keyring()
    except Exception as error:  # a backend may raise any error while it is loaded
        raise ConfigError(
            f"keyring: none can be opened ({type(error).__name__})", _OTHERWISE
        ) from None
    each = getattr(backend, "backends", [backend])
    if isinstance(backend, fail.Keyring) or not each:
        raise ConfigError("keyring: this system offers none", _OTHERWISE)
    for one in each:
        name = f"{type(one).__module__}.{type(one).__name__}"
        if any(part in name.lower() for part in _PLAIN):
            raise ConfigError(
                f"keyring: {name} keeps what it is given readable, or not at all", _OTHERWISE
            )
    return f"{type(backend).__module__}.{type(backend).__name__}"


def _read(entry: tuple[str, str]) -> Secret | None:
    import keyring

    require_keyring()
    try:
        text = keyring.get_password(*entry)
    except Exception as error:  # a locked keyring, a missing service, a refused prompt: each backend raises its own errors
        failed = _failed("read", entry, error)
    else:
        return None if text is None else Secret(text)
    raise failed


def _write(entry: tuple[str, str], key: PrivateKey) -> ConfigError | None:
    """An error is returned, not raised: the frames of a backend hold the key."""
    import keyring

    try:
        keyring.set_password(*entry, key.reveal().hex())
    except Exception as error:
        return _failed("write", entry, error)
    return None


def _failed(what: str, entry: tuple[str, str], error: Exception) -> ConfigError:
    return ConfigError(
        f"keyring: cannot {what} {_shown(entry)} ({type(error).__name__})",
        f"unlock the keyring and try again, or {_OTHERWISE}",
    )


def _shown(entry: tuple[str, str]) -> str:
    return "/".join(entry)
