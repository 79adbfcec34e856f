"""Training beside diffusers and lucidrains' denoising-diffusion-pytorch: ``make bench``, docs/benchmarks.md."""
