"""How much memory something takes, before it takes it, and how much the machine has."""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode  # documented by torch, which has no public name for it

from ddpm.errors import ConfigError

log = logging.getLogger(__name__)

OPTIMISED = 5 * 4
"""Bytes a parameter takes in training: itself, its gradient, two moments of the optimiser and its average, in float32."""


def machine_memory(accelerator: str = "cpu") -> int:
    """Bytes of memory of the first GPU if that computes, else of this machine, its container or this process: the least."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")] if hasattr(os, "sysconf") else [2**63]
    for limit in ("memory.max", "memory/memory.limit_in_bytes"):
        path = Path("/sys/fs/cgroup", limit)
        text = path.read_text().strip() if path.is_file() else ""
        found += [int(text)] if text.isdigit() else []
    if os.name == "posix":
        import resource

        own = resource.getrlimit(resource.RLIMIT_AS)[0]
        found += [own] if own > 0 else []
    return min(found)


def refuse_beyond_memory(what: str, needed: float, remedy: str, accelerator: str = "cpu") -> None:
    """Warn about what takes more than half of the memory there is.

    Raises:
        ConfigError: it takes more than all of it.
    """
    there = machine_memory(accelerator)
    if needed > there:
        raise ConfigError(f"{what}: takes about {needed / 1e9:,.0f} GB, this machine has {there / 1e9:.0f} GB; {remedy}")
    if needed > there / 2:
        about = "%s: takes about %.0f GB, this machine has %.0f GB; if that is too little, %s"
        log.warning(about, what, needed / 1e9, there / 1e9, remedy)


def training_memory(network: nn.Module, inputs: Mapping[str, Tensor | None], batch: int) -> int:
    """Bytes that training a network takes: parameters, and what the backward pass needs of a batch.

    Args:
        network: on the device "meta".
        inputs: arguments of the network for a batch of two, on the device "meta".
        batch: clips of a batch.

    Raises:
        ValueError: the network refuses its input.
    """
    parameters = sum(parameter.numel() for parameter in network.parameters())
    with _Bytes() as counted, torch.no_grad():
        network(**inputs)
    return OPTIMISED * parameters + counted.bytes * batch // 2


class _Bytes(TorchDispatchMode):
    """Counts the bytes of all results of operations inside this context."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and not func.is_view:
            self.bytes += result.numel() * result.element_size()
        return result
