"""Seeds derived from what they are for, so that no random number depends on what was drawn before it."""

import hashlib


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed for a purpose, e.g. ``derive_seed(seed, "batch", 12)``; unrelated for any other parts."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
