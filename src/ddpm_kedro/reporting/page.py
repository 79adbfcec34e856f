"""A page of HTML that needs no other file."""

import base64
from collections.abc import Mapping
from html import escape
from io import BytesIO
from typing import Any

import plotly.graph_objects as go
from PIL import Image
from plotly.offline import get_plotlyjs

from ddpm_kedro.metrics.table import COLUMNS, WITHOUT_CLASSES, Metrics
from ddpm_kedro.provenance import flatten
from ddpm_kedro.reporting.animation import Frames

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 1000px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; }
img { max-width: 100%; image-rendering: pixelated; border: 1px solid #ddd; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #ddd; vertical-align: top; }
.note { background: #fff4d6; padding: .6rem 1rem; } figcaption, .small { color: #555; font-size: .9rem; }
"""


class Page:
    """Sections are added from top to bottom."""

    def __init__(self, title: str) -> None:
        self.title, self.parts = title, [f"<h1>{escape(title)}</h1>"]

    def facts(self, facts: Mapping[str, str]) -> None:
        """Names and what is said of them."""
        self.table([[name, text] for name, text in facts.items()])

    def note(self, text: str) -> None:
        """Something to be aware of."""
        self.parts.append(f'<p class="note">{escape(text)}</p>')

    def picture(self, heading: str, picture: Image.Image, caption: str = "") -> None:
        """A picture under a heading."""
        buffer = BytesIO()
        picture.save(buffer, format="PNG", optimize=True)
        self._image(heading, "png", buffer.getvalue(), caption)

    def film(self, heading: str, frames: Frames) -> None:
        """An animation."""
        self._image(heading, "gif", frames.gif(), "")

    def figure(self, heading: str, figure: go.Figure) -> None:
        """A plot that can be zoomed; its own title would repeat the heading."""
        plot = go.Figure(figure).update_layout(title=None, margin={"t": 20})
        self.parts.append(f"<h2>{escape(heading)}</h2>{plot.to_html(full_html=False, include_plotlyjs=False)}")

    def metrics(self, heading: str, metrics: Metrics) -> None:
        """The table of figures."""
        self.parts.append(f"<h2>{escape(heading)}</h2>")
        if not metrics.figures:
            self.note(WITHOUT_CLASSES)
            return
        self.table(metrics.rows(), COLUMNS)
        self.parts.append(
            f'<p class="small">Compared with {metrics.reference_images:,} training images by the features of '
            f"{escape(metrics.extractor)}. The hold-out shows what real images reach at the same number of images.</p>"
        )

    def parameters(self, heading: str, parameters: Mapping[str, Any]) -> None:
        """Every parameter, folded away."""
        self.parts.append(f"<h2>{escape(heading)}</h2><details><summary>all that shaped this run</summary>")
        self.table([[name, str(value)] for name, value in flatten(parameters)])
        self.parts.append("</details>")

    def table(self, rows: list[list[str]], columns: tuple[str, ...] = ()) -> None:
        """A plain table."""
        head = "".join(f"<th>{escape(name)}</th>" for name in columns)
        body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        self.parts.append(f"<table><tr>{head}</tr>{body}</table>")

    def html(self) -> str:
        """The whole page."""
        return (
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(self.title)}</title>'
            f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style>'
            f"<script>{get_plotlyjs()}</script></head><body>{''.join(self.parts)}</body></html>"
        )

    def _image(self, heading: str, kind: str, content: bytes, caption: str) -> None:
        source = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
        self.parts.append(
            f'<h2>{escape(heading)}</h2><figure style="margin:0"><img alt="{escape(heading)}" src="{source}">'
            f"<figcaption>{escape(caption)}</figcaption></figure>"
        )
