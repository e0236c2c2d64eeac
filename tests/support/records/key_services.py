"""Key services of clouds."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

SECRET = int("c0ffee" + "5eed" * 14 + "42", 16)


class KeyService:
    """Stands in for a service of a cloud: keys in it, GetPublicKey and Sign out of it, all in a loop of its own thread."""

    def __init__(self, secret: int = SECRET) -> None:
        self._key = ec.derive_private_key(secret, ec.SECP256K1())
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.asked: list[bytes] = []
        self.spoil: Callable[[bytes], bytes] = lambda der: der

    def public_key(self) -> bytes:
        """SubjectPublicKeyInfo, as GetPublicKey answers."""
        return self._key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)

    def sign(self, digest: bytes) -> bytes:
        """What an adapter is: one call across the boundary, waited for."""
        return asyncio.run_coroutine_threadsafe(self._answer(digest), self._loop).result(30)

    async def _answer(self, digest: bytes) -> bytes:
        self.asked.append(digest)
        await asyncio.sleep(0)
        return self.spoil(self._key.sign(digest, ec.ECDSA(Prehashed(hashes.SHA256()))))

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
