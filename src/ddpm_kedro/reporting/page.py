"""The report: one page of HTML that needs no other file."""

import base64
from io import BytesIO
from typing import Any

import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from plotly.offline import get_plotlyjs

from ddpm_kedro.reporting.animation import Frames

TEMPLATE = "report.html.j2"


def render_page(**content: Any) -> str:
    """Render the report's template; text is escaped, images and plots are embedded."""
    environment = Environment(
        loader=PackageLoader("ddpm_kedro.reporting", ""), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    environment.filters |= {"data_uri": data_uri, "plot_html": plot_html}
    return environment.get_template(TEMPLATE).render(content, plotly_script=get_plotlyjs())


def data_uri(image: Image.Image | Frames) -> str:
    """Encode an image as PNG or an animation as GIF, for the ``src`` of an ``img``."""
    if isinstance(image, Frames):
        kind, content = "gif", image.gif()
    else:
        buffer = BytesIO()
        image.save(buffer, format="PNG", optimize=True)
        kind, content = "png", buffer.getvalue()
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def plot_html(plot: go.Figure) -> str:
    """Convert a plot that can be zoomed to HTML; without its title, which would repeat the heading."""
    legend = {"orientation": "h", "y": 1.02, "yanchor": "bottom"}
    untitled = go.Figure(plot).update_layout(title=None, margin={"t": 50}, legend=legend)
    config = {"responsive": True, "displaylogo": False}
    html: str = untitled.to_html(config, full_html=False, include_plotlyjs=False)
    return html
