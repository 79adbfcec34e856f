"""Load the configuration: ``use:`` in a file or on the command line chooses an option for each group of parameters."""

import re
from collections.abc import Callable
from copy import deepcopy
from os.path import expanduser
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from ddpm_kedro.datasets.catalog import check_types
from ddpm_kedro.datasets.chosen_parameters import check_nothing_ingested, images_of, read_chosen
from ddpm_kedro.errors import UserError, nearest
from ddpm_kedro.kedro_adapter import ComposedConfigLoader, Configs
from ddpm_kedro.parameters import APath, Parameters, check_parameters
from ddpm_kedro.plain_text import check_file, text_parameters, types_of
from ddpm_kedro.provenance import flatten

EXPERIMENT = "experiment"
CHOSEN, MANIFEST = Path("05_model_input/chosen_parameters.json"), Path("01_raw/raw_images.json")
"""Files below the data folder: the parameters stored for your own images, and the images ingested last."""
ROOTS = ("data_root", "images_root")
"""Names in globals.yml: the data folder, and another data folder from which images are read."""


class GroupConfigLoader(ComposedConfigLoader):
    """Add groups of parameters, with one file per option, and named experiments to Kedro's loader.

    ``use: {model: small}`` adds ``groups/model/small.yml`` to the parameters. An option may choose options of other
    groups: a dataset may choose an augmentation. ``use.experiment`` adds ``groups/experiment/<name>.yml``; its own
    ``use:`` chooses options, its other keys override them, and its ``use.experiment`` names an experiment to start
    from. If no parameter names the images and your own images were ingested last, those are used again, with the
    parameters that were stored for them by ingestion or training.
    In the catalog, ``${parameters:training.initial_model}`` is the value of that parameter.
    Later files win: base, options, experiment, environment, command line. You may add options in
    ``conf/local/groups/``.

    Args:
        callback: function that is called with the checked parameters.
    """

    def __init__(self, *args: Any, callback: Callable[[dict[str, Any]], None] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.runtime_params = _literal(self.runtime_params or {})
        self._callback = callback
        self._checked: dict[str, Any] = {}

    def __getitem__(self, key: str) -> dict[str, Any]:
        """Return the configuration ``key``. Parameters are read and checked once, so that a run never changes them.

        Raises:
            UserError: for a file that cannot be read, an unknown option or an invalid parameter.
        """
        if key == "parameters" and self._checked:
            return deepcopy(self._checked)
        if key == "catalog":
            values = dict(flatten(self["parameters"]))
            OmegaConf.register_new_resolver("parameters", values.__getitem__, replace=True)
        try:
            config: dict[str, Any] = super().__getitem__(key)
        except YAMLError as error:
            raise UserError(f"{error} Check its indentation, colons and quotes.") from error
        if key == "parameters":
            checked = check_parameters(config)
            for group, name in text_parameters():  # text that looks like a number was read as a number
                value = getattr(getattr(checked, group), name)
                config[group][name] = expanduser(value) if value and APath in types_of(f"{group}.{name}") else value
            if self._callback is not None:
                self._callback(config)
            self._checked = deepcopy(config)
        return config

    def compose_parameters(self, base: Configs, env: Configs) -> Configs:
        """Add the chosen options and the experiment to the parameter files of the base environment."""
        override = [*env.values(), self.runtime_params or {}]
        experiment = self._read_experiment(_use(*base.values(), *override).get(EXPERIMENT))
        chosen = [*experiment.values(), *override]
        if not _names_images(*chosen) or self._stores_same_images(base, experiment, override):
            experiment = self._read_stored(*chosen) | experiment
        base = self._read_options(base, experiment, override) | experiment
        for path in [path for path in (*base, *env) if self.files.isfile(str(path))]:
            check_file(str(path), self.files.read_text(str(path), encoding="utf-8"))
        return base

    def check_files(self, key: str, files: Configs) -> None:
        """Raise UserError for a file without names and values, or with a dataset class that has another name today."""
        for path, config in files.items():
            if not isinstance(config, DictConfig):
                raise UserError(f"{path} contains no {key}: names and values are expected, not a list.")
            if key == "catalog":
                entries: Any = OmegaConf.to_container(config)
                check_types(str(path), entries)

    def options(self) -> dict[str, list[str]]:
        """Return the options of each group, including those in the environment."""
        return {group: self._names(f"{group}/*.yml") for group in self._names("*")}

    def origins(self) -> dict[str, tuple[Any, str]]:
        """Return the value and the origin of each parameter by its full name: a file of conf/, or the command line."""
        values = dict(flatten(self["parameters"]))
        base, env = self.read_parameter_files()
        found: dict[str, str] = {}
        for path, config in [*base.items(), *env.items(), ("the command line", self.runtime_params or {})]:
            plain: Any = OmegaConf.to_container(config) if isinstance(config, DictConfig) else config
            found |= dict.fromkeys(dict(flatten(plain)), str(path).removeprefix(f"{self.conf_source}/"))
        return {name: (value, found[name]) for name, value in values.items()}

    def given(self) -> dict[str, Any]:
        """Return the parameters that the command line, the environment or a chosen option sets, by their full names."""
        values = dict(flatten(self["parameters"]))
        _, env = self.read_parameter_files()
        override = [*env.values(), self.runtime_params or {}]
        chosen = [*self._read_experiment(_use(*override).get(EXPERIMENT)).values(), *override]
        names = set(dict(flatten(_plain(OmegaConf.merge({}, *chosen)))))
        groups = {group for group, option in _use(*chosen).items() if option is not None}
        return {name: value for name, value in values.items() if name in names or name.partition(".")[0] in groups}

    def _read_options(self, base: Configs, experiment: Configs, override: list[Any]) -> Configs:
        """Return the chosen options; each may choose options of other groups, unless a later file chooses them."""
        use: dict[str, str | None] = {}
        options = dict(base)
        for _ in range(len(self.options()) + 1):
            previous, use = use, _use(*options.values(), *experiment.values(), *override)
            if use == previous:
                return options
            options = dict(base)
            for group in [group for group in use if group != EXPERIMENT and not _has_all_of(group, experiment)]:
                options |= self._read_option(group, use[group])
        raise UserError(f"The chosen options choose each other in a circle: use = {use}.")

    def _read_experiment(self, name: Any, descendants: tuple[Any, ...] = ()) -> Configs:
        """Return an experiment, preceded by the experiment that it starts from."""
        if name is None:
            return {}
        if name in descendants:
            raise UserError(f"The experiments {' and '.join(dict.fromkeys(descendants))} start from each other.")
        own = self._read_option(EXPERIMENT, name)
        start = _use(*own.values()).get(EXPERIMENT)
        for config in own.values():
            OmegaConf.select(config, "use", default={}).pop(EXPERIMENT, None)  # only the chosen one is named
        return self._read_experiment(start, (*descendants, name)) | own

    def _read_stored(self, *overriding: Any) -> Configs:
        """Return the parameters stored for the images ingested last, except groups with an overriding option."""
        path = self._stored_path()
        if path is None:
            for root in self._roots():
                check_nothing_ingested(root / CHOSEN, root / MANIFEST)
            return {}
        chosen = read_chosen(path)
        use = chosen.get("use", {})
        for group, option in _use(*overriding).items():
            if group in use and option != use[group]:
                del use[group]
                chosen.pop(group, None)
        return {path: OmegaConf.create(_literal(chosen))}

    def _roots(self) -> list[Path]:
        """Return the folders that may have stored parameters."""
        projects = (Path(self.conf_source).parent, Path.cwd())  # --conf-source may be any folder
        folders = [self["globals"][name] for name in ROOTS if name in self["globals"]]
        return [project / folder for folder in folders for project in projects]

    def _stored_path(self) -> Path | None:
        return next((root / CHOSEN for root in self._roots() if (root / CHOSEN).exists()), None)

    def _stores_same_images(self, base: Configs, experiment: Configs, override: list[Any]) -> bool:
        """Return whether the stored parameters are for the images that the configurations name."""
        path = self._stored_path()
        if path is None:
            return False
        try:
            stored = read_chosen(path)
            options = self._read_options(base, experiment, override)
            merged = OmegaConf.merge({}, *options.values(), *experiment.values(), *override)
            named = _plain(merged, "dataset", "images")
            return bool(stored) and bool(images_of(stored) == images_of(named))
        except (UserError, OmegaConfBaseException, ValueError, KeyError):
            return False  # the file is damaged, or a parameter is invalid, which is reported later

    def _read_option(self, group: str, option: Any) -> Configs:
        found = self.read_folders(f"groups/{group}/{option}.yml")
        if not found:
            groups = self._names("*")
            if group not in groups:
                raise UserError(f"Unknown group '{group}' in use.{group}={option}. {nearest(group, groups)}")
            raise UserError(
                f"Unknown option use.{group}={option}. {nearest(str(option), self._names(f'{group}/*.yml'))}"
            )
        return found

    def _names(self, pattern: str) -> list[str]:
        """Return the names below ``groups/`` that match a pattern, in all environments."""
        paths = [path for each in self.folders for path in self.files.glob(f"{Path(each).as_posix()}/groups/{pattern}")]
        return sorted({Path(path).stem for path in paths})


def _plain(config: Any, *names: str) -> Any:
    """Return a configuration, or these groups of it, as plain data."""
    if names:
        return {name: OmegaConf.to_container(config[name], resolve=True) for name in names}
    return OmegaConf.to_container(config)


def _literal(value: Any) -> Any:
    """Escape text in plain data: ``${`` in a path is not an interpolation."""
    match value:
        case str():
            return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
        case dict():
            return {name: _literal(each) for name, each in value.items()}
        case list():
            return [_literal(each) for each in value]
    return value


def _has_all_of(group: str, configs: Configs) -> bool:
    """Return whether stored parameters are among the files and have a value for every parameter of a group."""
    fields: Any = getattr(Parameters.model_fields.get(group), "annotation", None)
    names = set(getattr(fields, "model_fields", ())) or {group}
    chosen = [config for path, config in configs.items() if path.parts[-2:] == CHOSEN.parts]
    return any(names <= set(OmegaConf.select(config, group, default={}) or ()) for config in chosen)


def _names_images(*configs: Any) -> bool:
    """Return whether one of the configurations names the images."""
    merged = OmegaConf.merge({}, *configs)
    return any(OmegaConf.select(merged, name) is not None for name in ("use.dataset", "dataset.source", "dataset.path"))


def _use(*configs: Any) -> dict[str, str | None]:
    """Return the merged ``use:`` block; later configurations win."""
    use = OmegaConf.select(OmegaConf.merge({}, *configs), "use", default={})
    if not isinstance(use, DictConfig | dict):
        raise UserError(f"use = {use!r} names no group: write use.model=digits, or use.experiment=cifar10.")
    return dict(use)
