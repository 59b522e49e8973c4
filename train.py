"""Train a diffusion model of motion: ``python train.py [group=option ...] [key=value ...]``."""

if __name__ == "__main__":
    from ddpm import startup

    startup.begin()

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.callbacks import LearningRateMonitor

from callbacks.interrupt import StopBetweenBatches
from datamodules.cache import through_cache
from datamodules.pose import PoseDataModule
from datamodules.split import list_digest
from ddpm import limits, resuming, runs, sweep
from ddpm.command import command, composed, plain
from ddpm.config import RESUMED, construct
from ddpm.errors import ConfigError
from ddpm.files import write_durably
from ddpm.fine_tuning import Origin, validation_loss
from ddpm.limits import Config
from ddpm.record import record_start
from ddpm.training import (
    compile_network,
    description,
    fit,
    fitted_module,
    log_configuration,
    make_loggers,
    make_trainer,
    quiet_lightning,
)

log = logging.getLogger("train")

OmegaConf.register_new_resolver("run_dir", runs.run_directory, replace=True, use_cache=True)


def train(cfg: DictConfig, overrides: Sequence[str] = (), trust: Sequence[str] | None = None) -> float:
    """Train as configured.

    Args:
        cfg: the composed configuration with ``out`` set.
        overrides: the command line it was composed from, kept in the checkpoint so that a resumed run is composed alike.
        trust: None if all of it is the user's own; else what the command line in a checkpoint may name.

    Returns:
        What ``callbacks.best`` monitors, at the end: the value for a sweeper to minimise; nan if it was not measured.

    Raises:
        ConfigError, DataError, CheckpointError: input that cannot be used, before anything is trained.
    """
    if cfg.out is None:
        raise ConfigError("out: the directory of the run must be given")
    out = Path(cfg.out)
    with runs.locked(out), runs.logged(out) as begin:
        resume, resumed_step = resuming.checkpoint_to_resume(cfg.resume, out), None
        if cfg.resume is None:
            runs.refuse_to_overwrite(out)
        elif resume is None:
            log.info("resume=auto: there is nothing to resume in %s, starting anew", out)
        given = [resuming.override_key(override) for override in overrides]
        origin = None if cfg.finetune is None else Origin(cfg.finetune, resume, cfg.trust)
        cfg = cfg.copy()
        for key, value in ({} if origin is None else origin.settings(cfg, overrides)).items():
            OmegaConf.update(cfg, key, value, merge=False)
        config = limits.checked(plain(cfg, trust), given)
        if trust is not None:
            resuming.refuse_outside(config, out)
        averages = config["callbacks"].get("ema")
        saved = {key: config[key] for key in resuming.SAVED if key in config} | {"ema": averages}
        if (listed := list_digest(config["loader"]["split"])) is not None:
            saved["split_list"] = listed
        if resume is not None:
            resumed_step = resuming.refuse_another_run(resume, saved)
        pl.seed_everything(config["seed"], workers=True, verbose=False)
        quiet_lightning()
        loggers = make_loggers(config["logger"], resumed_step)
        callbacks = [construct(node, f"callbacks.{name}") for name, node in config["callbacks"].items()]
        # It refuses to run without a logger, which logger=none asks for.
        callbacks = [c for c in callbacks if loggers or not isinstance(c, LearningRateMonitor)]
        limits.refuse_unknown_monitor(callbacks)
        trainer = make_trainer(config["trainer"], [*callbacks, StopBetweenBatches()], loggers, out)

        read = through_cache(construct, config["cache"])
        clips = read(config["data"], "data") if origin is None else origin.read(read, config["data"])
        for flaw in clips.flaws or ():
            log.warning("data: %s", flaw)
        data: PoseDataModule = construct(config["loader"], "loader")(clips=clips)
        limits.refuse_unheld_monitor(callbacks, data)
        module = fitted_module(config, data, origin)
        if resume is not None:
            resuming.refuse_incomplete(resume, module, trainer, averages is not None)
        elif origin is not None:
            log.info("val/loss of %s on these clips: %.4g", origin.path, validation_loss(module, data.val_dataloader()))
        if config["compile"]:
            compile_network(module, trainer.strategy.root_device)
        module.configuration = {**saved, "overrides": list(overrides)}
        module.save_hyperparameters(module.configuration, logger=False)
        if runs.is_first_process():  # from here on there is a run
            runs.remove_what_was_left(out)
            limits.refuse_too_small(out / "checkpoints", module, trainer.checkpoint_callbacks)
            write_durably(out / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)).encode())
        begin()
        log.info("%s, on %s in %s", description(module), trainer.strategy.root_device, trainer.precision)
        if resume is None:
            log_configuration(trainer.loggers, saved | {"callbacks": config["callbacks"]}, overrides)
        else:
            log.info("resuming from %s", resume)
        if runs.is_first_process():
            digest = clips.fingerprint() if clips.frames.numel() < 2**28 else None  # more takes longer than it is worth
            record_start(out, {"recordings": len(clips), "frames": len(clips.frames), "sha256": digest})
        results = fit(trainer, module, data, resume, out)
        return results.get(config["callbacks"].get("best", {}).get("monitor", "val/loss"), math.nan)


@command("config", Config, ended=sweep.report)
def main(cfg: DictConfig) -> float:
    """The command: a new run, or one that goes on as it was begun, with this command line's changes."""
    context = HydraConfig.get()
    out, resume, cache, trust = context.runtime.output_dir, cfg.resume, cfg.cache, cfg.trust
    with runs.new_if_used(Path(out)):
        if context.mode == RunMode.MULTIRUN:
            limits.refuse_processes(cfg.trainer.devices, cfg.trainer.get("strategy", ""))
            if (value := sweep.finished(Path(out), list(context.overrides.task))) is not None:
                log.info("%s: finished before, left as it is", out)
                return value
            resume = resume and "auto"  # it named the sweep
        if cfg.out is not None and resume not in (None, "auto"):
            raise ConfigError(f"resume={cfg.resume} continues in that run's own directory: leave out={cfg.out} away")
        overrides = list(context.overrides.task)
        begun = resuming.checkpoint_to_resume(resume, Path(out))
        if begun is not None:
            overrides = resuming.overrides_of(begun, overrides)
            cfg = composed("config", [o for o in overrides if resuming.override_key(o) not in resuming.OWN], begun)
        cfg.out, cfg.resume, cfg.cache, cfg.trust = out, resume if begun is None else str(begun), cache, trust
        # The command line in a checkpoint names no code but ours and that of trusted packages.
        return train(cfg, overrides, None if begun is None else (*RESUMED, *trust))


if __name__ == "__main__":
    main()
