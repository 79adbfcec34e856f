"""Kedro's settings of this project."""

from ddpm_kedro.config import GroupConfigLoader
from ddpm_kedro.datasets.catalog import AtomicCatalog
from ddpm_kedro.hooks.archive import Archive
from ddpm_kedro.hooks.chosen import Chosen
from ddpm_kedro.hooks.distributed import Distributed
from ddpm_kedro.hooks.resumption import Resumption
from ddpm_kedro.hooks.run_guard import RunGuard
from ddpm_kedro.hooks.staleness import Staleness
from ddpm_kedro.hooks.summary import Summary
from ddpm_kedro.hooks.tracking import Tracking
from ddpm_kedro.hooks.trial import TRIAL
from ddpm_kedro.reporting.diagram import NETWORK_PREVIEW
from ddpm_kedro.session import Session
from ddpm_kedro.terminal import (
    keep_secrets_out_of_logs,
    only_rank_0_logs,
    plain_logs_without_a_terminal,
    show_brackets_in_logs,
)

plain_logs_without_a_terminal()
only_rank_0_logs()
show_brackets_in_logs()
keep_secrets_out_of_logs()

# Called from last to first. Processes join their group before anything else. A run's checkpoint is put in its place
# before tracking resumes from it. A trial requests a stop, and a stop ends the process after everything is logged.
HOOKS = (Summary(), Archive(), RunGuard(), Staleness(), Tracking(), TRIAL, Chosen(), Resumption(), Distributed())
SESSION_CLASS = Session
DATA_CATALOG_CLASS = AtomicCatalog
CONFIG_LOADER_CLASS = GroupConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "told": NETWORK_PREVIEW.of,
    "merge_strategy": {"parameters": "soft", "globals": "soft"},
    "config_patterns": {"parameters": ["parameters*", "parameters*/**"]},
}
