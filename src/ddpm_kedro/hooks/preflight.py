"""Check a run before its first node."""

import logging
from typing import Any

from kedro.framework.hooks import hook_impl
from kedro.io import DataCatalog
from kedro.pipeline import Pipeline

from ddpm_kedro.errors import UserError
from ddpm_kedro.hooks.context import ContextHook
from ddpm_kedro.parameters import Parameters
from ddpm_kedro.provenance import differences, redact
from ddpm_kedro.run_log import open_run_log

logger = logging.getLogger(__name__)
MODEL_GROUPS = ("model", "diffusion")
"""Groups of parameters that must equal the parameters of the trained model."""


class Preflight(ContextHook):
    """Log the parameters at debug level, and reject a model of another configuration."""

    @hook_impl
    def before_pipeline_run(self, pipeline: Pipeline, catalog: DataCatalog) -> None:
        """Log the parameters that this pipeline uses; check the model and the Inception weights that it loads.

        Raises:
            UserError: if the model was trained with another network or noise schedule, or the file of Inception's
                weights is missing.
        """
        parameters = redact(self.parameters)
        for name in Parameters.model_fields:
            if name == "use" or f"params:{name}" in pipeline.inputs():
                logger.debug("%s: %s", name, ", ".join(f"{key} {value}" for key, value in parameters[name].items()))
        if "model" in pipeline.inputs():
            self._check_model(catalog.load("model"))
        if "params:evaluation" in pipeline.inputs():
            self._check_inception()
        open_run_log()

    def _check_inception(self) -> None:
        """Check the file of Inception's weights now: the extractor is read after the training."""
        evaluation = self.parameters["evaluation"]
        if evaluation["extractor"] == "inception" and evaluation["inception_weights"] is not None:
            from ddpm_kedro.metrics.extractor import inception_weights  # noqa: PLC0415  torch takes seconds

            inception_weights(evaluation["inception_weights"])

    def _check_model(self, model: Any) -> None:
        if model.imported:
            return
        given = {name: self.parameters[name] for name in MODEL_GROUPS}
        trained = {name: model.made_by.parameters[name] for name in MODEL_GROUPS}
        if changed := differences(trained, given):
            raise UserError(
                f"The trained model was made with another configuration: {'; '.join(changed)}. Give the parameters it "
                "was trained with (such as --params use.experiment=…), or train one with these: kedro run."
            )
