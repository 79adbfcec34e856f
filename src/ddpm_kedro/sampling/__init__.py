"""Sampling with a trained model as the parameters say: images, their inputs, and a report."""
