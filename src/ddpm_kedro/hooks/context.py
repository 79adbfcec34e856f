"""The parameters and the data folder, for hooks that need them."""

from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl


class ContextHook:
    """Know all parameters, as plain data, and the data folder; the base of hooks that need them."""

    parameters: dict[str, Any]
    data_root: Path

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Note the parameters and the data folder."""
        self.parameters = context.config_loader["parameters"]
        self.data_root = Path(context.project_path, context.config_loader["globals"]["data_root"])
