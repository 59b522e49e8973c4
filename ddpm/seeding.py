"""Seeds derived from their purpose, so that no random number depends on earlier draws."""

import hashlib
import operator
from collections.abc import Iterable
from typing import SupportsIndex


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed for a purpose, e.g. ``derive_seed(seed, "batch", 12)``; unrelated for any other parts."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seeds_of(seeds: int | Iterable[SupportsIndex]) -> list[int]:
    """The seeds 0..n-1 for a number n, else those given; a ValueError for none, or one that is no whole number in 0..2^63-1."""
    give = "give how many clips, as sample(16), or their seeds, as sample(range(16)) or sample([3, 14])"
    try:
        if isinstance(seeds, bool):
            raise TypeError
        found = list(range(seeds)) if isinstance(seeds, int) else [operator.index(seed) for seed in seeds]
    except TypeError as error:
        raise ValueError(f"seeds={seeds!r} must be whole numbers; {give}") from error
    if not found:
        raise ValueError(f"seeds={seeds!r} asks for no clip; {give}")
    if not 0 <= min(found) <= max(found) < 2**63:
        bad = next(seed for seed in found if not 0 <= seed < 2**63)
        raise ValueError(f"seeds hold {bad}, they must be in 0..2^63-1; {give}")
    return found
