"""The private names of Kedro that this project needs, each in one place.

They may change with any release: ``tests/test_kedro_adapter.py`` checks them, and names the releases they were checked
with. No other module uses a private name of Kedro or of kedro-datasets.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fsspec import AbstractFileSystem
from kedro.config import OmegaConfigLoader
from kedro.framework.session import KedroSession
from kedro.io import DatasetError
from kedro.runner import AbstractRunner
from kedro_datasets._typing import ImagePreview, JSONPreview, PlotlyPreview, TablePreview
from omegaconf import DictConfig

__all__ = ["ImagePreview", "JSONPreview", "PlotlyPreview", "TablePreview"]  # for annotations that Kedro-Viz reads
Configs = dict[Path, DictConfig]


class ComposedConfigLoader(OmegaConfigLoader):
    """Kedro's configuration loader, with public names for the steps that a subclass changes or uses."""

    def compose_parameters(self, base: Configs, env: Configs) -> Configs:
        """Return the parameter files of the base environment, and the files that a subclass adds."""
        return base

    def check_files(self, key: str, files: Configs) -> None:
        """Check files of the configuration ``key`` before they are merged."""

    @property
    def files(self) -> AbstractFileSystem:
        """Return the file system of ``conf/``; not local if ``--conf-source`` is an archive or a URL."""
        return self._fs

    @property
    def folders(self) -> list[str]:
        """Return the folders of the environments, base first."""
        environments = dict.fromkeys([self.base_env, self.env or self.default_run_env])
        return [self._get_conf_env_path(name) for name in environments]

    def read_folders(self, pattern: str) -> Configs:
        """Read the parameter files that match a pattern in each environment."""
        found: Configs = {}
        for folder in self.folders:
            found |= self._read_dir_configs(folder, [pattern], "parameters", set())
        return found

    def read_parameter_files(self) -> tuple[Configs, Configs]:
        """Read the parameter files of the base environment, as composed, and of the run's environment."""
        base, env, *_ = self._read_raw_config("parameters")
        return base, env

    def _read_raw_config(self, key: str) -> tuple[Configs, Configs, str, str, set[Path]]:
        base, env, base_path, env_path, read = super()._read_raw_config(key)
        if key == "parameters":
            base = self.compose_parameters(base, env)
        return base, env, base_path, env_path, read

    def _check_duplicates(self, key: str, config_per_file: Configs) -> None:
        self.check_files(key, config_per_file)
        super()._check_duplicates(key, config_per_file)

    @staticmethod
    def _soft_merge(config: dict[str, Any], env_config: dict[str, Any], env_path: str | None = None) -> dict[str, Any]:
        """Merge two resolved configurations. Kedro's own merge would resolve ``${`` in their values once more."""
        merged = dict(config)
        for name, value in env_config.items():
            both = isinstance(value, dict) and isinstance(merged.get(name), dict)
            merged[name] = ComposedConfigLoader._soft_merge(merged[name], value) if both else value
        return merged


def config_loader_of(session: KedroSession) -> Any:
    """Return the configuration loader of a session; ``load_context`` would call all hooks."""
    return session._get_config_loader()


def is_async(runner: AbstractRunner) -> bool:
    """Return whether a runner loads and saves in threads; it keeps its argument to itself."""
    return bool(runner._is_async)


def describe(dataset: Any) -> dict[str, Any]:
    """Return what a dataset shows of itself; Kedro itself prints it only as text."""
    description: dict[str, Any] = dataset._describe()
    return description


def location(dataset: Any) -> str:
    """Return the path or URL that a dataset shows; it has no public name."""
    return str(describe(dataset)["filepath"])


def path_in_error(error: DatasetError) -> str | None:
    """Return the path of the dataset that could not be loaded ("" if it has none); None for another error.

    Kedro's error has no attributes: the text shows the dataset.
    """
    if not str(error).startswith("Failed while loading data from dataset"):
        return None
    path = re.search(r"(?:filepath|path)=(?:\w+\()?'([^']*)'", str(error))
    return path[1] if path else ""


def local_path(dataset: Any) -> Path | None:
    """Return the local file or folder that a dataset of Kedro replaces when it saves; None for all others."""
    name = _path_attribute(dataset)
    versioned = getattr(dataset, "_version", None) is not None
    if name is None or versioned or getattr(dataset, "_protocol", None) != "file":
        return None
    return Path(str(getattr(dataset, name)).removeprefix("file://"))


@contextmanager
def written_to(dataset: Any, path: Path) -> Iterator[None]:
    """Let a dataset of Kedro save to another path while the block runs."""
    name = _path_attribute(dataset)
    assert name is not None
    configured = getattr(dataset, name)
    setattr(dataset, name, type(configured)(str(path)))
    try:
        yield
    finally:
        setattr(dataset, name, configured)


def overwrites(dataset: Any) -> bool:
    """Return whether a folder of partitions is emptied before it is saved; otherwise saving adds to it."""
    return bool(getattr(dataset, "_overwrite", False))


def storage(dataset: Any) -> tuple[AbstractFileSystem | None, str]:
    """Return the file system of a dataset of Kedro (None for a local disk) and its path there."""
    local = getattr(dataset, "_protocol", "file") == "file"
    return None if local else dataset._fs, str(dataset._filepath)


def newest_partition(dataset: Any) -> dict[str, Any]:
    """Return the arguments of the dataset of the newest partition; partitions have no public order by time."""
    newest = max(dataset._list_partitions(), key=lambda path: str(dataset._filesystem.modified(path)))
    return {**dataset._dataset_config, "filepath": dataset._join_protocol(newest)}


def _path_attribute(dataset: Any) -> str | None:
    return next((name for name in ("_filepath", "_path") if hasattr(dataset, name)), None)
