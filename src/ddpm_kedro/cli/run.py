"""Kedro's ``run``: options with several values may be given several times, and text in parameters stays text."""

from copy import copy
from pathlib import Path
from typing import Any

import click
from kedro.framework.cli.project import run as kedro_run
from kedro.framework.cli.utils import (
    _config_file_callback,
    _split_load_versions,
    _split_params,
    split_node_names,
    split_string,
)

from ddpm_kedro.cli.common import ListOption, split_params
from ddpm_kedro.errors import UserError
from ddpm_kedro.plain_text import check_file

SPLIT = (split_string, split_node_names, _split_load_versions, _split_params)


def _check_config(ctx: click.Context, option: click.Parameter, value: str | None) -> Any:
    """Refuse parameters in a file of options that YAML changes."""
    if value:
        try:
            check_file(value, Path(value).read_text(), below=(str(ctx.info_name), "params"))
        except UserError as error:
            raise click.ClickException(str(error)) from error
    return _config_file_callback(ctx, option, value)


def _option(option: click.Parameter) -> click.Parameter:
    """Return an option of Kedro's command as it is here."""
    if not isinstance(option, click.Option):
        return option
    if option.callback is _config_file_callback:
        option = copy(option)
        option.callback = _check_config
    if option.callback in SPLIT:
        return ListOption.of(option, split_params if option.name == "params" else option.callback)
    return option


run = copy(kedro_run)
run.params = [_option(option) for option in kedro_run.params]
