"""The commands ``kedro parameters``."""

from pathlib import Path
from typing import Any

import click
import yaml
from kedro.framework.startup import ProjectMetadata
from rich.table import Table

from ddpm_kedro.atomic import write_text
from ddpm_kedro.cli.common import ListOption, console, make_loader, project_command, split_params
from ddpm_kedro.provenance import redact


@click.group()
def parameters() -> None:
    """Show the options of each group, and the parameters that a run would have."""


@parameters.command("options")
@project_command
def list_options(project: ProjectMetadata, env: str | None) -> None:
    """List the options of each group, for --params use.<group>=<option>."""
    for group, options in make_loader(project, env).options().items():
        click.echo(f"{group}: {', '.join(options)}")


@parameters.command()
@click.option(
    "--params",
    cls=ListOption,
    multiple=True,
    callback=split_params,
    default="",
    help="As for kedro run: use.experiment=cifar10,…",
)
@project_command
def show(project: ProjectMetadata, params: dict[str, Any], env: str | None) -> None:
    """Show every parameter that a run would have, and where its value comes from."""
    table = Table("parameter", "value", "from", box=None)
    for name, (value, origin) in make_loader(project, env, params).origins().items():
        table.add_row(name, str(redact(value)), origin)
    console().print(table)


@parameters.command()
@click.argument("path", type=click.Path(dir_okay=False, path_type=Path))
@project_command
def dump(project: ProjectMetadata, path: Path, env: str | None) -> None:
    """Write every parameter that a run would have to a YAML file."""
    resolved = redact(make_loader(project, env)["parameters"])
    write_text(path, yaml.safe_dump(resolved, sort_keys=False))
