"""Curves of a training."""

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ddpm_kedro.errors import UserError
from ddpm_kedro.training.run import Row

# Okabe and Ito (2008): told apart by the colour-blind
BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"


def training_curves(history: list[Row]) -> go.Figure:
    """Loss, validation loss and learning rate over images seen.

    Raises:
        UserError: for a history without a row.
    """
    if not history:
        raise UserError("The history of this training has no row yet: nothing to plot. See training.report_interval.")
    seen = [row["images_seen"] for row in history]
    figure = make_subplots(rows=2, shared_xaxes=True, row_heights=[0.7, 0.3], vertical_spacing=0.06)
    curves = (("loss", "training loss", BLUE, 1), ("validation_loss", "validation loss", ORANGE, 1))
    for name, title, colour, row in (*curves, ("learning_rate", "learning rate", GREEN, 2)):
        values = [entry[name] for entry in history]
        line = go.Scatter(x=seen, y=values, name=title, mode="lines+markers", line_color=colour)
        figure.add_trace(line, row=row, col=1)
    figure.update_yaxes(title="loss", row=1)
    figure.update_yaxes(title="learning rate", rangemode="tozero", exponentformat="power", row=2)
    figure.update_xaxes(title="images seen", row=2)
    return plain(figure, "Training")


def loss_by_timestep_curve(rows: list[dict[str, float]]) -> go.Figure:
    """The loss along the noise."""
    timesteps, losses = ([row[name] for row in rows] for name in ("timestep", "validation_loss"))
    line = go.Scatter(x=timesteps, y=losses, mode="lines+markers", line_color=BLUE)
    figure = go.Figure(line, layout={"xaxis_title": "timestep (0: hardly any noise)", "yaxis_title": "loss"})
    return plain(figure, "Validation loss by timestep")


def plain(figure: go.Figure, title: str) -> go.Figure:
    """A figure in the project's style."""
    return figure.update_layout(template="plotly_white", title=title, height=420, margin={"t": 60, "r": 20, "b": 50})
