"""Plots of a training run."""

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ddpm_kedro.errors import UserError
from ddpm_kedro.training.run import Row

# Okabe and Ito (2008): colour-blind people can distinguish these colours
BLUE, ORANGE, GREEN = "#0072B2", "#E69F00", "#009E73"


def training_curves(history: list[Row]) -> go.Figure:
    """Plot loss, validation loss and learning rate over images seen.

    Raises:
        UserError: if the history is empty.
    """
    if not history:
        raise UserError("The training history has no row yet: there is nothing to plot. See training.report_interval.")
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
    return style(figure, "Training")


def loss_by_timestep_curve(rows: list[dict[str, float]]) -> go.Figure:
    """Plot the loss over the timestep."""
    timesteps, losses = ([row[name] for row in rows] for name in ("timestep", "validation_loss"))
    line = go.Scatter(x=timesteps, y=losses, mode="lines+markers", line_color=BLUE)
    figure = go.Figure(line, layout={"xaxis_title": "timestep (0: almost no noise)", "yaxis_title": "loss"})
    return style(figure, "Validation loss by timestep")


def style(figure: go.Figure, title: str) -> go.Figure:
    """Apply the project's style to a plot."""
    return figure.update_layout(template="plotly_white", title=title, height=420, margin={"t": 60, "r": 20, "b": 50})
