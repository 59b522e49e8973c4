"""Compose configurations as the command line does."""

import functools
from collections.abc import Sequence
from pathlib import Path

import hydra
from omegaconf import DictConfig

import train  # noqa: F401  registers the schema and the resolvers


def compose(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The configuration that ``python NAME.py OVERRIDES`` would get; composed once for all directories ``out``."""
    out = [override for override in overrides if override.startswith("out=")]
    cfg = _composed(name, tuple(override for override in overrides if override not in out)).copy()
    cfg.merge_with_dotlist(out)
    return cfg


@functools.cache
def _composed(name: str, overrides: tuple[str, ...]) -> DictConfig:
    with hydra.initialize_config_dir(str(Path(__file__).parents[1] / "conf"), version_base="1.3"):
        return hydra.compose(name, overrides=list(overrides))
