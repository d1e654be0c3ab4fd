"""The bytes of functions on their way: each held once, as long as a submission needs them.

Every submission pickles its function anew, and most of them come to the same bytes. Owns the count
of those who need them; whoever owns this holds a lock around it.
"""

from __future__ import annotations

from collections.abc import Iterable


class HeldCode:
    """Pickled functions by digest, and how many submissions need each."""

    def __init__(self) -> None:
        self._bytes: dict[bytes, bytes] = {}
        self._needs: dict[bytes, int] = {}

    def hold(self, digest: bytes, code: bytes) -> int:
        """Hold a function for one submission; return how many bytes more are held for it."""
        if digest in self._needs:
            self._needs[digest] += 1
            return 0
        self._needs[digest] = 1
        self._bytes[digest] = code
        return len(code)

    def let_go(self, digests: Iterable[bytes]) -> int:
        """Take back one need for each of the digests; return how many bytes are held no more."""
        freed = 0
        for digest in digests:
            self._needs[digest] -= 1
            if not self._needs[digest]:
                del self._needs[digest]
                freed += len(self._bytes.pop(digest))
        return freed

    def bytes_of(self, digest: bytes) -> bytes:
        """Return a function that is held; needs no lock."""
        return self._bytes[digest]
