"""Kedro dataset classes for what this project keeps: stores of images, checkpoints, models, samples, pictures."""
