"""Metrics of samples: feature extractors, scores, nearest training images."""
