"""Kedro's ``run``, with lists that may be given several times and with text that YAML does not change."""

from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run

from ddpm_kedro.cli.common import ListOption, split_params
from ddpm_kedro.plain_text import check_file
from ddpm_kedro.session import errors_explained

LISTS = {
    *("from_inputs", "to_outputs", "from_nodes", "to_nodes", "node_names"),
    *("pipelines", "namespaces", "tags", "load_versions", "runner_params", "params"),
}
"""Options of Kedro whose values are separated by commas."""


def _check_config(read: Any, ctx: click.Context, option: click.Parameter, value: str | None) -> Any:
    """Read a file of options, unless YAML changes the text of a parameter in it."""
    if value:
        with errors_explained():
            check_file(value, Path(value).read_text(), below=(str(ctx.info_name), "params"))
    return read(ctx, option, value)


def _option(option: click.Parameter) -> click.Parameter:
    """Return the project's version of an option of Kedro's command."""
    if not isinstance(option, click.Option):
        return option
    if option.name == "config":
        option = copy(option)
        option.callback = partial(_check_config, option.callback)
    if option.name in LISTS:
        return ListOption.of(option, split_params if option.name == "params" else option.callback)
    return option


run = copy(kedro_run)
run.params = [_option(option) for option in kedro_run.params]
