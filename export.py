"""Write a trained model for other programs: ``python export.py ckpt=RUN file=model.safetensors``."""

if __name__ == "__main__":
    from ddpm import startup

    startup.begin()

import logging
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from ddpm import load
from ddpm.command import command

log = logging.getLogger("export")


@dataclass
class Config:
    """Types of the keys."""

    ckpt: str
    trust: list[str]
    out: str
    file: str
    half: bool


def export(cfg: DictConfig) -> list[Path]:
    """Write the file and its card; for both and for errors see `ddpm.model.MotionModel.export`."""
    files = load(cfg.ckpt, cfg.trust).export(Path(cfg.out, cfg.file), cfg.half)
    for file in files:
        log.info("%s: %d bytes", file, file.stat().st_size)
    return files


@command("export", Config)
def main(cfg: DictConfig) -> None:
    """The command."""
    export(cfg)


if __name__ == "__main__":
    main()
