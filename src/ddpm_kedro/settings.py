"""Settings of this project for Kedro."""

from ddpm_kedro.config import GroupConfigLoader
from ddpm_kedro.datasets.catalog import AtomicCatalog
from ddpm_kedro.hooks.archive import Archive
from ddpm_kedro.hooks.chosen_parameters import ChosenParameters
from ddpm_kedro.hooks.devices import Devices
from ddpm_kedro.hooks.distributed import Distributed
from ddpm_kedro.hooks.diverged_batch import DivergedBatch
from ddpm_kedro.hooks.graceful_stop import GracefulStop
from ddpm_kedro.hooks.node_records import RECORDS
from ddpm_kedro.hooks.preflight import Preflight
from ddpm_kedro.hooks.resumption import Resumption
from ddpm_kedro.hooks.staleness import Staleness
from ddpm_kedro.hooks.summary import Summary
from ddpm_kedro.hooks.tracking import Tracking
from ddpm_kedro.hooks.trial import TRIAL
from ddpm_kedro.reporting.diagram import NETWORK_PREVIEW
from ddpm_kedro.session import Session
from ddpm_kedro.terminal import format_logs, make_log_records_safe, only_rank_0_logs

format_logs()
only_rank_0_logs()
make_log_records_safe()

# Kedro calls the last one first.
HOOKS = (
    Summary(),
    Archive(),
    RECORDS,
    DivergedBatch(),
    GracefulStop(),  # ends the process: after tracking, before a half-trained model is archived
    Preflight(),  # may reject the run: before signals are handled
    Devices(),
    Staleness(),
    Tracking(),  # logs from the images at which the checkpoint resumes
    TRIAL,  # may ask for a stop
    ChosenParameters(),  # stores the parameters of a training on your own images
    Resumption(),  # finds the checkpoint
    Distributed(),  # connects the processes
)
SESSION_CLASS = Session
DATA_CATALOG_CLASS = AtomicCatalog
CONFIG_LOADER_CLASS = GroupConfigLoader
CONFIG_LOADER_ARGS = {
    "base_env": "base",
    "default_run_env": "local",
    "callback": NETWORK_PREVIEW.show,
    "merge_strategy": {"parameters": "soft", "globals": "soft"},
    "config_patterns": {"parameters": ["parameters*", "parameters*/**"]},
}
