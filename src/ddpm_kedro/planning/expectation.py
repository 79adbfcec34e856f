"""What a training of some length gives, in words."""

COLOUR = (
    (50_000, "colours and textures, but no objects"),
    (500_000, "shapes; few objects can be recognised"),
    (6_000_000, "objects that can be recognised, with faults"),
)
"""By images seen, for photographs of 32×32. 30,016 gave clouds. 66,816 to 400,128 images and 35.7 M parameters gave
samples of which 38 to 57 % were recognised as their class (docs/training.md). The FID of ddpm-torch is 9.2 after
6 million images."""
GREY = (
    (20_000, "blurred strokes"),
    (50_000, "simple shapes such as digits, with faults"),
)
"""By images seen, for digits: docs/benchmarks.md, "Quality after equal training time"."""
BEST = {True: "results near published ones, if the network is as large as theirs", False: "clear simple shapes"}
MEMORISING = 100  # passes over the images
KNOWN_SIDE, LARGE = 32, 40  # pixels
SMALL_SET = 500  # images


def expect(images_seen: float, image_shape: tuple[int, int, int], count: int) -> str:
    """Return an honest sentence on the samples of a training, by images seen and passes over the data."""
    channels, *sides = image_shape
    colour = channels > 1
    words = next((words for limit, words in (COLOUR if colour else GREY) if images_seen < limit), BEST[colour])
    larger = f" (known for {KNOWN_SIDE}×{KNOWN_SIDE}; larger images need more)" if max(sides) > LARGE else ""
    sentence = f"{words[0].upper()}{words[1:]}{larger}."
    if count < SMALL_SET:
        return f"{sentence} {count:,} images are few: most samples will be copies of them."
    if images_seen > MEMORISING * count:
        return f"{sentence} After so many passes, look for copies of training images in the report."
    return sentence
