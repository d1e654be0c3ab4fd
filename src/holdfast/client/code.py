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
        self.held_bytes = 0

    def hold(self, digest: bytes, code: bytes) -> None:
        """Hold a function for one submission."""
        # An interrupt leaves at the worst bytes that nobody needs, never a need without them.
        if digest not in self._bytes:
            self.held_bytes += len(code)
            self._bytes[digest] = code
        self._needs[digest] = self._needs.get(digest, 0) + 1

    def let_go(self, digests: Iterable[bytes]) -> None:
        """Take back one need for each of the digests."""
        for digest in digests:
            self._needs[digest] -= 1
            if not self._needs[digest]:
                del self._needs[digest]
                self.held_bytes -= len(self._bytes.pop(digest))

    def bytes_of(self, digest: bytes) -> bytes:
        """Return a function that is held; needs no lock."""
        return self._bytes[digest]
