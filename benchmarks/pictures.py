"""Copy figures of the latest run into docs/, for the README and docs/diffusion.md.

``make screenshots`` runs the tasks first.
"""

from pathlib import Path

from PIL import Image

DATA, DOCS, GAP = Path("data"), Path("docs"), 10
TASKS = ("variations", "inpainted", "interpolated")


def stack(images: list[Image.Image]) -> Image.Image:
    """Paste images below each other on white."""
    height = sum(image.height + GAP for image in images) - GAP
    page, top = Image.new("RGB", (max(image.width for image in images), height), "white"), 0
    for image in images:
        page.paste(image, (0, top))
        top += image.height + GAP
    return page


if __name__ == "__main__":
    stack([Image.open(DATA / f"07_model_output/{name}.png") for name in TASKS]).save(DOCS / "tasks.png")
    Image.open(DATA / "07_model_output/samples.png").save(DOCS / "samples.png")
    Image.open(DATA / "08_reporting/denoising_trajectory.png").save(DOCS / "trajectory.png")
