"""What several hooks need to know of a run before it starts."""

from pathlib import Path
from typing import Any

from kedro.framework.context import KedroContext
from kedro.framework.hooks import hook_impl


class ContextHook:
    """Base of hooks that use the parameters, or files in the data folder.

    Attributes:
        parameters: all of them, as plain data.
        data_root: the data folder.
    """

    parameters: dict[str, Any]
    data_root: Path

    @hook_impl
    def after_context_created(self, context: KedroContext) -> None:
        """Note the parameters and the data folder."""
        self.parameters = context.config_loader["parameters"]
        self.data_root = Path(context.project_path, context.config_loader["globals"]["data_root"])
