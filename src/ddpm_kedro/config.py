"""The configuration loader: parameters composed from groups, chosen by ``use:`` in a file or on the command line."""

import re
from collections.abc import Callable
from copy import deepcopy
from os.path import expanduser
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from ddpm_kedro.datasets.catalog import check_types
from ddpm_kedro.datasets.chosen import check_never_chosen, read_chosen
from ddpm_kedro.errors import UserError, nearest
from ddpm_kedro.kedro_adapter import ComposedConfigLoader, Configs
from ddpm_kedro.parameters import Parameters, check_parameters
from ddpm_kedro.plain_text import TEXT, check_file
from ddpm_kedro.provenance import flatten

EXPERIMENT = "experiment"
CHOSEN, MANIFEST = Path("05_model_input/chosen_parameters.json"), Path("01_raw/raw_images.json")
"""Below the data: what the next commands use for images of one's own, and which were ingested last."""
ROOTS = ("data_root", "images_root")
"""Names in globals.yml: the data, and where images are read that another data folder has ingested."""


class GroupConfigLoader(ComposedConfigLoader):
    """Kedro's loader, with one parameter file an option and named experiments.

    ``use: {model: small}`` adds ``groups/model/small.yml`` to the parameters; such an option may choose options of
    other groups, as a dataset does that is good to flip. ``use.experiment`` adds
    ``groups/experiment/<name>.yml``, whose own ``use:`` chooses options and whose other keys override them; an
    experiment that names another one there starts from it.
    Where pictures of one's own were ingested last, and nothing says what images to take, they are taken again, with the
    parameters that were trained on them or, before a training, the parameters that ingestion chose for them.
    In the catalog, ``${parameters:training.initial_model}`` is that parameter, from wherever it was set.
    Later wins: base, options, experiment, environment, command line. Own options may lie in ``conf/local/groups/``.

    Args:
        told: is given the checked parameters each time they are read.
    """

    def __init__(self, *args: Any, told: Callable[[dict[str, Any]], None] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.runtime_params = _literal(self.runtime_params or {})
        self._told = told
        self._checked: dict[str, Any] = {}

    def __getitem__(self, key: str) -> dict[str, Any]:
        """The configuration ``key``; parameters are checked as a whole, and read once: a run has them from its start.

        Raises:
            UserError: for a file that cannot be read, an unknown option or a parameter that is not accepted.
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
            for group, name in TEXT:  # what looked like a number is text here, too
                value = getattr(getattr(checked, group), name)
                config[group][name] = expanduser(value) if value and TEXT.is_path(f"{group}.{name}") else value
            if self._told is not None:
                self._told(config)
            self._checked = deepcopy(config)
        return config

    def compose_parameters(self, base: Configs, env: Configs) -> Configs:
        """Add the chosen options and the experiment to the parameter files of the base environment."""
        override = [*env.values(), self.runtime_params or {}]
        experiment = self._read_experiment(_use(*base.values(), *override).get(EXPERIMENT))
        if not _names_images(*experiment.values(), *override):
            experiment = self._chosen(*experiment.values(), *override) | experiment
        base = self._read_options(base, experiment, override) | experiment
        for path in [path for path in (*base, *env) if self.files.isfile(str(path))]:
            check_file(str(path), self.files.read_text(str(path), encoding="utf-8"))
        return base

    def check_files(self, key: str, files: Configs) -> None:
        """Refuse a file without names and values, or with a dataset class that has another name today.

        Raises:
            UserError: with the file's path.
        """
        for path, config in files.items():
            if not isinstance(config, DictConfig):
                raise UserError(f"{path} holds no {key}: names and values were expected, not a list.")
            if key == "catalog":
                entries: Any = OmegaConf.to_container(config)
                check_types(str(path), entries)

    def options(self) -> dict[str, list[str]]:
        """The options of each group, own ones included."""
        return {group: self._names(f"{group}/*.yml") for group in self._names("*")}

    def origins(self) -> dict[str, tuple[Any, str]]:
        """Each parameter's full name, its value, and where that comes from: a file of conf/, or the command line."""
        values = dict(flatten(self["parameters"]))
        base, env = self.read_parameter_files()
        found: dict[str, str] = {}
        for path, config in [*base.items(), *env.items(), ("the command line", self.runtime_params or {})]:
            plain: Any = OmegaConf.to_container(config) if isinstance(config, DictConfig) else config
            found |= dict.fromkeys(dict(flatten(plain)), str(path).removeprefix(f"{self.conf_source}/"))
        return {name: (value, found[name]) for name, value in values.items()}

    def _read_options(self, base: Configs, experiment: Configs, override: list[Any]) -> Configs:
        """The chosen options; each may choose options of other groups, where nothing stronger does."""
        use: dict[str, str | None] = {}
        options = dict(base)
        for _ in range(len(self.options()) + 1):
            before, use = use, _use(*options.values(), *experiment.values(), *override)
            if use == before:
                return options
            options = dict(base)
            for group in [group for group in use if group != EXPERIMENT and not _has_all_of(group, experiment)]:
                options |= self._read_option(group, use[group])
        raise UserError(f"The chosen options choose each other without end: use = {use}.")

    def _read_experiment(self, name: Any, above: tuple[Any, ...] = ()) -> Configs:
        """An experiment, after the one that it starts from."""
        if name is None:
            return {}
        if name in above:
            raise UserError(f"The experiments {' and '.join(dict.fromkeys(above))} start from each other.")
        own = self._read_option(EXPERIMENT, name)
        start = _use(*own.values()).get(EXPERIMENT)
        for config in own.values():
            OmegaConf.select(config, "use", default={}).pop(EXPERIMENT, None)  # what was asked for stays the name
        return self._read_experiment(start, (*above, name)) | own

    def _chosen(self, *stronger: Any) -> Configs:
        """Return what was chosen for the images ingested last, without groups whose option something stronger names."""
        projects = (Path(self.conf_source).parent, Path.cwd())  # --conf-source may lie anywhere
        places = [self["globals"][name] for name in ROOTS if name in self["globals"]]
        roots = [project / place for place in places for project in projects]
        path = next((root / CHOSEN for root in roots if (root / CHOSEN).exists()), None)
        if path is None:
            for root in roots:
                check_never_chosen(root / CHOSEN, root / MANIFEST)
            return {}
        chosen = read_chosen(path)
        use = chosen.get("use", {})
        for group, option in _use(*stronger).items():
            if group in use and option != use[group]:
                del use[group]
                chosen.pop(group, None)
        return {path: OmegaConf.create(_literal(chosen))}

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


def _literal(value: Any) -> Any:
    """Return plain data in which text stays text: ``${`` in a path is no interpolation."""
    match value:
        case str():
            return re.sub(r"(\\*)\$\{", r"\1\1\\${", value)
        case dict():
            return {name: _literal(each) for name, each in value.items()}
        case list():
            return [_literal(each) for each in value]
    return value


def _has_all_of(group: str, configs: Configs) -> bool:
    """Whether the stored choice, if it is one of these, has a value for every parameter of a group."""
    fields: Any = getattr(Parameters.model_fields.get(group), "annotation", None)
    names = set(getattr(fields, "model_fields", ())) or {group}
    chosen = [config for path, config in configs.items() if path.parts[-2:] == CHOSEN.parts]
    return any(names <= set(OmegaConf.select(config, group, default={}) or ()) for config in chosen)


def _names_images(*configs: Any) -> bool:
    """Whether one of them says which images to take."""
    merged = OmegaConf.merge({}, *configs)
    return any(OmegaConf.select(merged, name) is not None for name in ("use.dataset", "dataset.source", "dataset.path"))


def _use(*configs: Any) -> dict[str, str | None]:
    """The ``use:`` block of merged configurations, later ones winning."""
    use = OmegaConf.select(OmegaConf.merge({}, *configs), "use", default={})
    if not isinstance(use, DictConfig | dict):
        raise UserError(f"use = {use!r} names no group; write use.model=digits, or use.experiment=cifar10.")
    return dict(use)
