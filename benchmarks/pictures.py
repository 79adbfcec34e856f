"""The pictures of the README and docs/diffusion.md that come from the last run.

``make screenshots`` runs the tasks before.
"""

from pathlib import Path

from PIL import Image

DATA, DOCS, GAP = Path("data"), Path("docs"), 10
TASKS = ("variations", "inpainted", "interpolated")


def below_each_other(pictures: list[Image.Image]) -> Image.Image:
    """All of them, on white."""
    height = sum(picture.height + GAP for picture in pictures) - GAP
    page, top = Image.new("RGB", (max(picture.width for picture in pictures), height), "white"), 0
    for picture in pictures:
        page.paste(picture, (0, top))
        top += picture.height + GAP
    return page


if __name__ == "__main__":
    below_each_other([Image.open(DATA / f"07_model_output/{name}.png") for name in TASKS]).save(DOCS / "tasks.png")
    Image.open(DATA / "07_model_output/samples.png").save(DOCS / "samples.png")
    Image.open(DATA / "08_reporting/denoising_trajectory.png").save(DOCS / "trajectory.png")
