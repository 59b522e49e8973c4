"""How much memory something takes, before it takes it, and how much there is."""

import os

from ddpm.errors import ConfigError


def machine_memory() -> int:
    """Bytes of memory of this machine, or of this process where it may have less."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else [2**63]
    if os.name == "posix":
        import resource

        own = resource.getrlimit(resource.RLIMIT_AS)[0]
        found += [own] if own > 0 else []
    return min(found)


def refuse_beyond_memory(what: str, needed: float, remedy: str) -> None:
    """Raise a ConfigError if something takes more bytes than there are."""
    there = machine_memory()
    if needed > there:
        raise ConfigError(f"{what} takes about {needed / 1e9:,.0f} GB, this machine has {there / 1e9:.0f} GB; {remedy}")
