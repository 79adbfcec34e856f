"""Prepare torch and its devices for a run."""

import logging
import os

from kedro.framework.hooks import hook_impl
from kedro.pipeline import Pipeline

from ddpm_kedro.hooks.context import ContextHook

logger = logging.getLogger(__name__)
COMPUTING = ("training", "sampling", "evaluation")
"""Groups of parameters that name a device."""


class Devices(ContextHook):
    """Choose torch's algorithms, and log why no GPU is used."""

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline) -> None:
        """Prepare torch if this pipeline computes on a device."""
        groups = [name for name in COMPUTING if f"params:{name}" in pipeline.inputs()]
        if groups:
            _choose_algorithms(self.parameters["training"]["deterministic"])
        if any(self.parameters[name]["device"] == "auto" for name in groups):
            from ddpm_kedro.hardware import choose_hardware, gpu_problem  # noqa: PLC0415  torch takes seconds

            if choose_hardware("auto", "auto").device.type == "cpu":
                logger.info("%s The CPU computes.", gpu_problem())


def _choose_algorithms(deterministic: bool) -> None:
    """Choose deterministic algorithms if required, otherwise fast ones."""
    import torch  # noqa: PLC0415  takes seconds

    from ddpm_kedro.hardware import keep_freed_memory  # noqa: PLC0415

    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS reads it at its first use
    torch.use_deterministic_algorithms(deterministic)
    keep_freed_memory()
    torch.backends.cuda.matmul.fp32_precision = "tf32"  # the default for convolutions
