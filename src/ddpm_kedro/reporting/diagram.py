"""The network as a diagram, for the training node's panel in Kedro-Viz."""

from collections.abc import Mapping
from typing import Any

from kedro.pipeline.preview_contract import MermaidPreview

from ddpm_kedro.parameters import ModelParameters


def network_diagram(p: ModelParameters, target: str) -> str:
    """The U-Net as a Mermaid flowchart: down, through the middle, up again, with its skip connections.

    Args:
        target: what the network predicts, a name of ``diffusion.target``.
    """
    levels = range(len(p.channel_multipliers))
    last = levels[-1]
    known = "timestep and class" if p.class_conditional else "timestep"
    lines = [f'x(["noised image"]) --> d0["{_level(p, 0, p.blocks_per_level)}"]']
    for level in levels[1:]:
        lines.append(f'd{level - 1} --> d{level}["{_level(p, level, p.blocks_per_level)}"]')
    lines += [f'd{last} --> m["{_level(p, last, 2, attention=True)}"]', f'e(["{known}"]) -.->|to every block| m']
    before = "m"
    for level in reversed(levels):
        lines.append(f'{before} --> u{level}["{_level(p, level, p.blocks_per_level + 1)}"]')
        before = f"u{level}"
    lines += [f"d{level} -. skip .-> u{level}" for level in levels]
    lines += [f'u0 --> y(["predicted {target}"])']
    return "\n    ".join(["flowchart TB", *lines])


def _level(p: ModelParameters, level: int, blocks: int, attention: bool = False) -> str:
    """One box: how many blocks, how wide, on which share of the image's sides."""
    fold = p.patch_size * 2**level
    plural = "s" if blocks > 1 else ""
    with_attention = ", attention" if attention or level in p.attention_levels else ""
    size = "at full size" if fold == 1 else f"at 1/{fold} size"
    channels = p.width * p.channel_multipliers[level]
    return f"{blocks} residual block{plural}{with_attention}<br>{channels} channels<br>{size}"


class NetworkPreview:
    """What Kedro asks for a preview of the training node.

    Kedro gives such a function no arguments: the loader of the configuration tells it the parameters.
    """

    def __init__(self) -> None:
        self._parameters: Mapping[str, Any] = {}

    def of(self, parameters: Mapping[str, Any]) -> None:
        """Show the network of these parameters from now on."""
        self._parameters = parameters

    def __call__(self) -> MermaidPreview:
        """The diagram."""
        model = ModelParameters.model_validate(self._parameters["model"])
        return MermaidPreview(network_diagram(model, self._parameters["diffusion"]["target"]))


NETWORK_PREVIEW = NetworkPreview()
