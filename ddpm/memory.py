"""How much this process may hold, asked before something large is begun."""

import math
import os

from ddpm.errors import ConfigError


def limit() -> float:
    """Bytes of memory of the machine, or of this process where it has a limit of its own; inf where nobody knows."""
    try:
        import resource  # not on Windows

        own = resource.getrlimit(resource.RLIMIT_AS)[0]
        return min(math.inf if own < 0 else own, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (ImportError, AttributeError, ValueError, OSError):
        return math.inf


def refuse_beyond_memory(needed: float, what: str, remedy: str) -> None:
    """Raise a ConfigError if ``what`` needs more bytes than there are."""
    if needed > (most := limit()):
        raise ConfigError(f"{what} need {needed / 1e9:.3g} GB of memory, there are {most / 1e9:.3g} GB: {remedy}")
