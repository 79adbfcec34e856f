"""The network as a diagram, which Kedro-Viz shows with the training node."""

from collections.abc import Mapping
from typing import Any

from kedro.pipeline.preview_contract import MermaidPreview

from ddpm_kedro.parameters import ModelParameters


def network_diagram(p: ModelParameters, target: str) -> str:
    """Return the U-Net as a Mermaid flowchart.

    Args:
        target: name of the network's output, a value of ``diffusion.target``.
    """
    levels = range(len(p.channel_multipliers))
    last = levels[-1]
    conditions = "timestep and class" if p.class_conditional else "timestep"
    lines = [f'x(["noised image"]) --> d0["{_level(p, 0, p.blocks_per_level)}"]']
    for level in levels[1:]:
        lines.append(f'd{level - 1} --> d{level}["{_level(p, level, p.blocks_per_level)}"]')
    lines += [f'd{last} --> m["{_level(p, last, 2, attention=True)}"]', f'e(["{conditions}"]) -.->|to every block| m']
    previous = "m"
    for level in reversed(levels):
        lines.append(f'{previous} --> u{level}["{_level(p, level, p.blocks_per_level + 1)}"]')
        previous = f"u{level}"
    lines += [f"d{level} -. skip .-> u{level}" for level in levels]
    lines += [f'u0 --> y(["predicted {target}"])']
    return "\n    ".join(["flowchart TB", *lines])


def _level(p: ModelParameters, level: int, blocks: int, attention: bool = False) -> str:
    """Describe one level: number of blocks, channels, resolution."""
    factor = p.patch_size * 2**level
    plural = "s" if blocks > 1 else ""
    with_attention = ", attention" if attention or level in p.attention_levels else ""
    size = "at full size" if factor == 1 else f"at 1/{factor} size"
    channels = p.width * p.channel_multipliers[level]
    return f"{blocks} residual block{plural}{with_attention}<br>{channels} channels<br>{size}"


class NetworkPreview:
    """The preview function of the training node.

    Kedro calls it without arguments, so the configuration loader sets the parameters first.
    """

    def __init__(self) -> None:
        self._parameters: Mapping[str, Any] = {}

    def show(self, parameters: Mapping[str, Any]) -> None:
        """Set the parameters of the network."""
        self._parameters = parameters

    def __call__(self) -> MermaidPreview:
        """Return the diagram."""
        model = ModelParameters.model_validate(self._parameters["model"])
        return MermaidPreview(network_diagram(model, self._parameters["diffusion"]["target"]))


NETWORK_PREVIEW = NetworkPreview()
