"""The commands of this project."""

import click

from ddpm_kedro.cli.kedro_run import run
from ddpm_kedro.cli.parameters import parameters
from ddpm_kedro.cli.plan import plan
from ddpm_kedro.cli.runs import runs
from ddpm_kedro.cli.sweep import sweep


@click.group()
def cli() -> None:
    """Commands that Kedro adds to its own."""


for command in (run, runs, plan, parameters, sweep):
    cli.add_command(command)
