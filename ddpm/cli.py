"""``pose-ddpm train model=unet ...``: the commands of an installed package, from any folder."""

import argparse
import importlib
import sys

from ddpm.startup import begin

COMMANDS = ("train", "sample", "evaluate", "compare", "export", "inspect_data")


def main() -> None:
    """Run the command that the first argument names with the others, as ``python train.py`` does with its own."""
    begin()
    parser = argparse.ArgumentParser("pose-ddpm", epilog="KEY=VALUE and options such as --help stand behind the command")
    parser.add_argument("command", choices=COMMANDS)
    name = parser.parse_args(sys.argv[1:2]).command
    module = importlib.import_module(f"pose_ddpm_commands.{name}")
    sys.argv = [str(module.__file__), *sys.argv[2:]]  # what the processes of a distributed run start
    module.main()
