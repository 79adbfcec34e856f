"""Kedro dataset classes for the data of this project: stores of images, checkpoints, models, samples, figures."""
