"""Keystore files of version 3 and keyring entries, readable by their owner only (T18)."""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agent.errors import ConfigError, ErrorCode
from agent.files import sync_folder
from agent.signing.secret import PrivateKey, Secret, parse_private_key

MAX_KEYSTORE_BYTES = 64 * 1024
SCRYPT_N = 2**18
"""Work factor of scrypt, as in geth: with r = 8 and p = 1 one password takes 256 MB and about a
second."""
MIN_PASSWORD_LENGTH = 12
MIN_DISTINCT_CHARACTERS = 6
"""Minimum number of different characters in a password."""
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
    """Return the file's bytes. Raises ConfigError if other users may use the opened file."""
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode):
                raise ConfigError(
                    f"wallet.keystore: {path} is not a regular file",
                    "use the path of the keystore file",
                )
            if state.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise ConfigError(
                    f"wallet.keystore: users other than its owner can access {path} (mode"
                    f" {stat.S_IMODE(state.st_mode):04o})",
                    f"run: chmod 600 {path}",
                )
            if state.st_uid not in (os.geteuid(), 0):
                raise ConfigError(
                    f"wallet.keystore: {path} belongs to another user (uid {state.st_uid}), who can"
                    " read and change it",
                    "run as that user, or use a copy that you own",
                )
            return file.read(MAX_KEYSTORE_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"wallet.keystore: {path} cannot be read ({error.strerror})", "check the path"
        ) from None


def open_keystore(raw: bytes, password: Secret, path: Path) -> PrivateKey | ConfigError:
    """Decrypt a keystore. An error is returned, not raised: the frames of its traceback would hold
    the key.
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
        # eth-keyfile 0.8 is typed for text, which it would encode as Latin-1.
        utf8: Any = password.reveal().encode()
        return PrivateKey(Account.from_key(decode_keyfile_json(sheet, utf8)))
    except ValueError as error:
        if "MAC mismatch" in str(error):
            return ConfigError(
                f"wallet.keystore: wrong password for {path}",
                "type the password of this file",
            )
    except Exception:  # noqa: S110 the library raises various errors for a malformed file; reported below without its frames
        pass
    return ConfigError(f"wallet.keystore: {path} is damaged", "restore it from its backup")


def require_strong(password: Secret) -> None:
    """Raise ConfigError if the password is empty or easy to guess; the message does not repeat
    it.
    """
    text = password.reveal()
    remedy = (
        f"use at least {MIN_PASSWORD_LENGTH} characters that are hard to guess: four random words,"
        " or a password from a password manager"
    )
    if not text.strip():
        raise ConfigError("the password is empty", remedy)
    if len(text) < MIN_PASSWORD_LENGTH:
        raise ConfigError(f"the password has fewer than {MIN_PASSWORD_LENGTH} characters", remedy)
    if len(set(text)) < MIN_DISTINCT_CHARACTERS:
        raise ConfigError(
            f"the password has fewer than {MIN_DISTINCT_CHARACTERS} different characters", remedy
        )
    rest = text.lower()
    for common in _COMMON:
        rest = rest.replace(common, "")
    if len(rest) < MIN_PASSWORD_LENGTH // 2:
        raise ConfigError("the password is a common one", remedy)


def require_free_path(path: Path) -> None:
    """Raise ConfigError if `path` exists, or its folder is missing."""
    if os.path.lexists(path):
        raise _exists(path)
    if not path.parent.is_dir():
        raise ConfigError(
            f"{path}: folder {path.parent} does not exist",
            "create it, or name another file",
            code=ErrorCode.FOLDER,
        )


def _exists(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} exists already; nothing was changed",
        "use another path, or move that file away",
        code=ErrorCode.EXISTS,
    )


@contextmanager
def _placed(draft: Path, path: Path) -> Iterator[None]:
    """Remove the draft when its move to `path` ends. Raises ConfigError if `path` cannot be written."""
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror})",
            "choose a folder that you may write to",
            code=ErrorCode.FILE,
        ) from None
    finally:
        with suppress(FileNotFoundError):
            draft.unlink()


def write_keystore(path: Path, key: PrivateKey, password: Secret) -> None:
    """Write a new keystore at `path`, with mode 0600, atomically and never over an existing file,
    and verify it by decrypting it. Raises ConfigError.
    """
    require_strong(password)
    require_free_path(path)
    draft = _draft(path, key, password)
    with _placed(draft, path):
        try:
            _link_into_place(draft, path)
        except FileExistsError:
            raise _exists(path) from None
    sync_folder(path.parent)


def change_password(path: Path, old: Secret, new: Secret) -> PrivateKey:
    """Re-encrypt the keystore at `path` and return its key. The old file stays until the new one is
    complete and verified. Raises ConfigError, which leaves the old file unchanged.
    """
    key = open_keystore(read_private_file(path), old, path)
    if isinstance(key, ConfigError):
        raise key
    require_strong(new)
    if new.reveal() == old.reveal():
        raise ConfigError("the new password is the old one", "choose another password")
    real = path.resolve()  # keep a symbolic link as a link
    draft = _draft(real, key, new)
    with _placed(draft, path):
        draft.replace(real)
    sync_folder(real.parent)
    return key


def _draft(path: Path, key: PrivateKey, password: Secret) -> Path:
    """Write an encrypted draft beside `path`, sync it, and verify it by decrypting it."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(6)}.draft")
    encrypted = _encrypted_key(key, password)
    if isinstance(encrypted, ConfigError):
        raise encrypted
    try:
        _new_file(draft, encrypted)
    except OSError as error:
        raise ConfigError(
            f"{path}: cannot be written ({error.strerror})",
            "choose a folder that you may write to",
            code=ErrorCode.FILE,
        ) from None
    decrypted = open_keystore(read_private_file(draft), password, draft)
    if isinstance(decrypted, ConfigError) or decrypted.address != key.address:
        draft.unlink()
        raise ConfigError(
            f"{path}: the written file cannot be decrypted; nothing was changed",
            "check this disk first",
            code=ErrorCode.FILE,
        )
    return draft


def _encrypted_key(key: PrivateKey, password: Secret) -> bytes | ConfigError:
    """Return the encrypted key. An error, such as too little memory, is returned, not raised, as in
    `open_keystore`.
    """
    from eth_account import Account

    try:
        sheet = Account.encrypt(key.reveal(), password.reveal(), kdf="scrypt", iterations=SCRYPT_N)  # type: ignore[no-untyped-call,unused-ignore]  # untyped in 0.11
    except Exception as error:  # the frames of any error hold the key
        return ConfigError(
            f"the key cannot be encrypted ({type(error).__name__})",
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
    """Write and sync a file with mode 0600; remove it if that fails."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        path.unlink()
        raise


# --- Keys in the OS keyring, through the keyring library, stored under a service and a name (T18).


_ALTERNATIVES = (
    "use a keystore file (trimtab wallet create --keystore wallet.json), or install a keyring"
    " service"
)
_PLAIN = ("null", "plaintext", "alt.file", "uncrypted")
"""Parts of the names of backends that store nothing, or store secrets in readable form."""


def load_from_keyring(entry: tuple[str, str]) -> PrivateKey:
    """Return the key under (service, name). Raises ConfigError if there is no keyring or no such
    entry, or it is not a key.
    """
    text = _read(entry)
    if text is None:
        raise ConfigError(
            f"wallet.keyring: {_shown(entry)} is not in the keyring",
            f"trimtab wallet create --keyring {_shown(entry)}",
        )
    key = parse_private_key(text, f"wallet.keyring: {_shown(entry)}")
    if isinstance(key, ConfigError):
        raise key
    return key


def in_keyring(entry: tuple[str, str]) -> bool:
    """True if the entry exists. Raises ConfigError if there is no keyring."""
    return _read(entry) is not None


def require_free_keyring_entry(entry: tuple[str, str]) -> None:
    """Raise ConfigError if there is no keyring, or the entry exists: a key is never overwritten."""
    if in_keyring(entry):
        raise ConfigError(
            f"keyring: {_shown(entry)} exists already; nothing was changed",
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
            f"keyring: {_shown(entry)} does not return the key that was stored",
            "use a keystore file",
        )


def require_keyring() -> str:
    """Return the name of the active keyring. Raises ConfigError if none stores secrets."""
    import keyring
    from keyring.backends import fail

    try:
        backend = keyring.get_keyring()
    except Exception as error:  # a backend may raise any error while it is loaded
        raise ConfigError(
            f"keyring: none can be opened ({type(error).__name__})", _ALTERNATIVES
        ) from None
    chained = getattr(backend, "backends", [backend])
    if isinstance(backend, fail.Keyring) or not chained:
        raise ConfigError("keyring: this system has none", _ALTERNATIVES)
    for part in chained:
        name = f"{type(part).__module__}.{type(part).__name__}"
        if any(plain in name.lower() for plain in _PLAIN):
            raise ConfigError(
                f"keyring: {name} stores secrets in readable form, or not at all", _ALTERNATIVES
            )
    return f"{type(backend).__module__}.{type(backend).__name__}"


def _read(entry: tuple[str, str]) -> Secret | None:
    import keyring

    require_keyring()
    try:
        text = keyring.get_password(*entry)
    except Exception as error:  # each backend raises its own errors
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
        f"unlock the keyring and try again, or {_ALTERNATIVES}",
    )


def _shown(entry: tuple[str, str]) -> str:
    return "/".join(entry)
