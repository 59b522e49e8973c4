"""Seeds derived from their purpose, so that no random number depends on earlier draws."""

import hashlib
import operator
from collections.abc import Iterable, Sequence
from typing import SupportsIndex


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed for a purpose, e.g. ``derive_seed(seed, "batch", 12)``; unrelated for any other parts."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seeds_of(seeds: SupportsIndex | Iterable[SupportsIndex]) -> Sequence[int]:
    """The seeds 0..n-1 for a number n, else those given, a range as it is; a ValueError for none, or one that is no whole number
    in 0..2^63-1."""
    give = "give how many clips, as sample(16), or their seeds, as sample(range(16)) or sample([3, 14])"
    try:
        if isinstance(seeds, bool):
            raise TypeError
        is_number = isinstance(seeds, int) or getattr(seeds, "ndim", None) == 0  # also one of numpy or torch
        given = range(min(operator.index(seeds), 2**63 - 1)) if is_number else seeds  # type: ignore[arg-type]
        found = given if isinstance(given, range) else [operator.index(seed) for seed in given]  # type: ignore[union-attr]
    except TypeError as error:
        raise ValueError(f"seeds={seeds!r} must be whole numbers; {give}") from error
    if not found:
        raise ValueError(f"seeds={seeds!r} asks for no clip; {give}")
    ends = (found[0], found[-1]) if isinstance(found, range) else (min(found), max(found))
    if not all(0 <= end < 2**63 for end in ends):
        bad = next(seed for seed in found if not 0 <= seed < 2**63)
        raise ValueError(f"seeds hold {bad}, they must be in 0..2^63-1; {give}")
    return found
