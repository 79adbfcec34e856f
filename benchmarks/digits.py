"""Measure how many generated digits an independent classifier recognises as the requested digit.

Run it after ``kedro run``. It samples 1,000 digits with the exported model, trains a small CNN on the training images
(it shares no code with the U-Net), and prints one line of JSON: the classifier's accuracy on holdout digits and on the
samples, other metrics, and the conditions of the measurement.
"""

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from kedro.framework.project import settings
from kedro.framework.startup import bootstrap_project
from torch import Tensor, nn

from ddpm_kedro.pipelines.sampling.nodes import sample_images

CLASSES = 10


class Classifier(nn.Module):
    """Two blocks of convolutions and two linear layers; ``features`` is everything before the last one."""

    def __init__(self) -> None:
        super().__init__()

        def block(channels_in: int, channels: int) -> list[nn.Module]:
            convolutions = [
                layer
                for channels_before in (channels_in, channels)
                for layer in (nn.Conv2d(channels_before, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU())
            ]
            return [*convolutions, nn.MaxPool2d(2), nn.Dropout(0.2)]

        self.features = nn.Sequential(*block(1, 32), *block(32, 64), nn.Flatten(), nn.LazyLinear(128), nn.ReLU())
        self.out = nn.Sequential(nn.Dropout(0.3), nn.Linear(128, CLASSES))

    def forward(self, x: Tensor) -> Tensor:
        """Compute logits (N, classes) of images (N, 1, H, W)."""
        return self.out(self.features(x))


def train_classifier(x: Tensor, labels: Tensor, epochs: int = 12, batch_size: int = 64) -> Classifier:
    """Train the classifier on randomly shifted, rotated and scaled images."""
    torch.manual_seed(0)
    classifier = Classifier()
    classifier(x[:2])
    steps = epochs * (len(x) // batch_size)
    optimizer = torch.optim.AdamW(classifier.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    identity, spread = torch.eye(2, 3), torch.tensor([[0.1, 0.1, 0.08], [0.1, 0.1, 0.08]])
    for step in range(steps):
        if step % (len(x) // batch_size) == 0:
            order = torch.randperm(len(x))
        chosen = order[(step % (len(x) // batch_size)) * batch_size :][:batch_size]
        warp = identity + torch.randn(len(chosen), 2, 3) * spread
        grid = F.affine_grid(warp, x[chosen].shape, align_corners=False)
        batch = F.grid_sample(x[chosen], grid, padding_mode="border", align_corners=False)
        optimizer.zero_grad()
        F.cross_entropy(classifier(batch), labels[chosen]).backward()
        optimizer.step()
        schedule.step()
    return classifier.eval()


def to_input(images: Any) -> Tensor:
    """Convert images (N, H, W, 1) uint8 to (N, 1, H, W) in [-1, 1]."""
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Compute the Fréchet distance between normal distributions fitted to features (N, D)."""
    a, b = a.double(), b.double()
    mean = ((a.mean(0) - b.mean(0)) ** 2).sum()
    cov_a, cov_b = a.T.cov(), b.T.cov()
    return float(
        mean + cov_a.trace() + cov_b.trace() - 2 * torch.linalg.eigvals(cov_a @ cov_b).real.clamp(0).sqrt().sum()
    )


def sample(arguments: argparse.Namespace, root: Path) -> tuple[dict[str, Any], float]:
    """Sample as the sampling pipeline does; return the datasets and the seconds."""
    bootstrap_project(root)
    overrides: dict[str, Any] = {"num_images": arguments.num_images, "seed": arguments.seed}
    for name in ("guidance_scale", "num_inference_steps"):
        if getattr(arguments, name) is not None:
            overrides[name] = getattr(arguments, name)
    session = settings.SESSION_CLASS.create(
        project_path=root, env=arguments.env, runtime_params={"sampling": overrides}
    )
    with session:
        catalog = session.load_context().catalog
        loaded = {name: catalog.load(name) for name in ("training_images", "holdout_images", "model")}
        parameters = catalog.load("params:sampling")
        start = time.perf_counter()
        samples, _ = sample_images(loaded["model"], parameters)
        seconds = time.perf_counter() - start
    return loaded | {"samples": samples, "sampling": parameters}, seconds


def main() -> None:
    """Sample, train the classifier, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-images", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--env", default=None)
    parser.add_argument("--guidance-scale", type=float)
    parser.add_argument("--num-inference-steps", type=int)
    loaded, seconds = sample(parser.parse_args(), Path(__file__).parents[1])
    real, holdout, samples = loaded["training_images"], loaded["holdout_images"], loaded["samples"]

    classifier = train_classifier(to_input(real.images), torch.from_numpy(real.labels))
    with torch.no_grad():
        on_holdout = classifier(to_input(holdout.images)).argmax(1)
        on_samples = classifier(to_input(samples.images)).argmax(1)
        features = {
            name: torch.cat([classifier.features(part) for part in to_input(images).split(500)])
            for name, images in (("real", real.images), ("holdout", holdout.images), ("samples", samples.images))
        }
    same_size = features["samples"][: len(features["holdout"])]
    labels = torch.from_numpy(samples.labels)
    print(
        json.dumps(
            {
                "accuracy": round(float((on_samples == labels).float().mean()), 4),
                "accuracy_by_class": [
                    round(float((on_samples == labels)[labels == c].float().mean()), 3) for c in range(CLASSES)
                ],
                "judge_accuracy_on_holdout": round(
                    float((on_holdout == torch.from_numpy(holdout.labels)).float().mean()), 4
                ),
                "frechet_distance_of_judge_features": round(frechet_distance(same_size, features["real"]), 2),
                "same_for_the_holdout": round(frechet_distance(features["holdout"], features["real"]), 2),
                "feature_deviation_over_real": round(
                    float(features["samples"].std(0).mean() / features["real"].std(0).mean()), 3
                ),
                "images": len(samples.images),
                "seconds_to_draw": round(seconds, 1),
                "sampler": loaded["sampling"].sampler,
                "num_inference_steps": loaded["sampling"].num_inference_steps,
                "guidance_scale": loaded["sampling"].guidance_scale,
                "run_id": loaded["model"].run_id,
                "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
            }
        )
    )


if __name__ == "__main__":
    main()
