"""Compose configurations as the command line does."""

from collections.abc import Sequence

import hydra
from omegaconf import DictConfig

import train  # noqa: F401  registers the schema and the resolvers


def compose(name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The configuration that ``python NAME.py OVERRIDES`` would get."""
    with hydra.initialize(version_base="1.3", config_path="../conf"):
        return hydra.compose(name, overrides=list(overrides))
