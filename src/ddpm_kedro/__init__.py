"""Denoising diffusion models (Ho et al. 2020) as Kedro pipelines: ingest, train, sample."""

__version__ = "0.1.0"
