"""The network as a diagram."""

import pytest

from ddpm_kedro.reporting.diagram import NetworkPreview, network_diagram
from tests.conftest import MODEL, changed


def test_the_diagram_describes_every_level_of_the_network() -> None:
    p = changed(MODEL, channel_multipliers=[1, 2, 3], attention_levels=[1], blocks_per_level=2, patch_size=2)
    lines = network_diagram(p, "noise").splitlines()
    assert lines[1].strip() == 'x(["noised image"]) --> d0["2 residual blocks<br>8 channels<br>at 1/2 size"]'
    assert lines[2].strip() == 'd0 --> d1["2 residual blocks, attention<br>16 channels<br>at 1/4 size"]'
    assert lines[4].strip() == 'd2 --> m["2 residual blocks, attention<br>24 channels<br>at 1/8 size"]'
    assert lines[8].strip() == 'u1 --> u0["3 residual blocks<br>8 channels<br>at 1/2 size"]'
    assert lines[-1].strip() == 'u0 --> y(["predicted noise"])'
    assert sum("skip" in line for line in lines) == 3


@pytest.mark.parametrize(("conditional", "conditions"), [(True, "timestep and class"), (False, "timestep")])
def test_the_preview_shows_the_parameters_that_were_set_last(conditional: bool, conditions: str) -> None:
    preview = NetworkPreview()
    for patch_size in (2, 1):
        p = changed(MODEL, class_conditional=conditional, patch_size=patch_size)
        preview.show({"model": p.model_dump(mode="json"), "diffusion": {"target": "v"}})
    assert f'["{conditions}"]' in preview().content
    assert "at full size" in preview().content
