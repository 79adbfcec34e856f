"""Unusual files that are images, and bad files with the reason why each is rejected.

``python -m tests.ingestion.corpus FOLDER`` writes them.
"""

import io
import os
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

SIZE = (12, 8)  # width, height


def pixels(channels: int = 3, size: tuple[int, int] = SIZE) -> np.ndarray[Any, np.dtype[np.uint8]]:
    width, height = size
    ramp = np.linspace(0, 255, height * width * channels).astype(np.uint8)
    if channels == 1:
        return ramp.reshape(height, width)
    image = ramp.reshape(height, width, channels)
    image[..., 1] = image[::-1, :, 1].copy()  # magenta above, green below
    return image


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def picture(kind: str = "PNG", mode: str = "RGB", **options: Any) -> bytes:
    return saved(Image.fromarray(pixels()).convert(mode), kind, **options)


def noise(count: int) -> bytes:
    return np.random.default_rng(0).integers(0, 256, count, dtype=np.uint8).tobytes()


def chunk(kind: bytes, body: bytes, crc: int | None = None) -> bytes:
    sum_ = zlib.crc32(kind + body) if crc is None else crc
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", sum_)


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IEND", b"")


def bomb(width: int, height: int) -> bytes:
    """Return an image of many black pixels in a few bytes."""
    return png(width, height, chunk(b"IDAT", zlib.compress(bytes(1000))))


def gif(frames: int) -> bytes:
    images = [Image.fromarray(np.full((8, 12), 40 * index, np.uint8)) for index in range(frames)]
    return saved(images[0], "GIF", save_all=True, append_images=images[1:])


def sixteen_bits() -> bytes:
    return saved(Image.fromarray(np.linspace(0, 65535, 96).astype(np.uint16).reshape(8, 12)), "PNG")


def floats(most: float) -> bytes:
    return saved(Image.fromarray(np.linspace(0, most, 96, dtype=np.float32).reshape(8, 12)), "TIFF")


def on_its_side(kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture(kind, exif=exif.tobytes())


def with_profile(kind: str, mode: str, profile: bytes) -> bytes:
    return picture(kind, mode, icc_profile=profile)


def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def cut(data: bytes, share: float) -> bytes:
    return data[: int(len(data) * share)]


def changed(data: bytes, at: float, by: bytes) -> bytes:
    begin = int(len(data) * at)
    return data[:begin] + by + data[begin + len(by) :]


GOOD: dict[str, Callable[[], bytes]] = {
    "grey.png": lambda: picture(mode="L"),
    "grey-alpha.png": lambda: picture(mode="LA"),
    "bits.png": lambda: picture(mode="1"),
    "palette.png": lambda: picture(mode="P"),
    "palette-transparent.png": lambda: picture(mode="P", transparency=0),
    "colour.png": picture,
    "colour-key.png": lambda: picture(transparency=(0, 0, 0)),
    "transparent.png": lambda: picture(mode="RGBA"),
    "sixteen-bits.png": sixteen_bits,
    "UPPER.PNG": picture,
    "profile.png": lambda: with_profile("PNG", "RGB", srgb()),
    "broken-profile.png": lambda: with_profile("PNG", "RGB", noise(400)),
    "colour.jpg": lambda: picture("JPEG"),
    "grey.jpeg": lambda: picture("JPEG", "L"),
    "print.jpg": lambda: picture("JPEG", "CMYK"),
    "progressive.jpg": lambda: picture("JPEG", progressive=True),
    "on-its-side.jpg": on_its_side,
    "broken-exif.jpg": lambda: picture("JPEG", exif=b"Exif\0\0" + noise(60)),
    "broken-profile.jpg": lambda: with_profile("JPEG", "RGB", noise(400)),
    "lossy.webp": lambda: picture("WEBP"),
    "lossless-alpha.webp": lambda: picture("WEBP", "RGBA", lossless=True),
    "still.gif": lambda: gif(1),
    "moving.gif": lambda: gif(5),
    "colour.bmp": lambda: picture("BMP"),
    "bits.bmp": lambda: picture("BMP", "1"),
    "colour.tif": lambda: picture("TIFF"),
    "print.tiff": lambda: picture("TIFF", "CMYK"),
    "packed.tiff": lambda: picture("TIFF", compression="tiff_lzw"),
    "floats.tiff": lambda: floats(1.0),
    "png-called.jpg": picture,
    "one-pixel.png": lambda: saved(Image.new("RGB", (1, 1), "red"), "PNG"),
    "a-line.png": lambda: saved(Image.new("RGB", (3000, 1), "red"), "PNG"),
    "a-column.png": lambda: saved(Image.new("RGB", (1, 3000), "red"), "PNG"),
    "spaces and 'quotes'.png": picture,
    "schön-写真.png": picture,
    "two\nlines.png": picture,
    "$(rm -rf).png": picture,
    "wrong-sum.png": lambda: png(4, 4, chunk(b"IDAT", zlib.compress(bytes(52)), crc=7)),
    "more-behind-it.png": lambda: picture() + noise(500),
}
"""Files that are decoded."""

DAMAGED = "it is (damaged|cut short)|it is no image that can be read"
MANY = "it has more than [0-9,]+ pixels"
BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing.png": (lambda: b"", "the file is empty"),
    "one-byte.png": (lambda: b"\x89", DAMAGED),
    "signature.png": (lambda: b"\x89PNG\r\n\x1a\n", DAMAGED),
    "noise.png": (lambda: noise(2000), DAMAGED),
    "zeros.jpg": (lambda: bytes(2000), DAMAGED),
    "text.jpg": (lambda: b"not a picture at all\n" * 20, DAMAGED),
    "page.png": (lambda: b"<!DOCTYPE html><html><body>404</body></html>", DAMAGED),
    "lines.gif": (lambda: b"\r\n" * 500, DAMAGED),
    "drawing.png": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>', DAMAGED),
    "document.jpg": (lambda: b"%PDF-1.4\n1 0 obj<<>>endobj\n%%EOF", DAMAGED),
    "program.png": (lambda: b"\x7fELF" + noise(400), DAMAGED),
    "script.png": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n(x) run\n", DAMAGED),
    "zipped.png": (lambda: b"PK\x05\x06" + bytes(18), DAMAGED),
    "pickle.png": (lambda: b"\x80\x04\x95\x0c\x00\x00\x00\x00\x00\x00\x00\x8c\x08builtins\x94.", DAMAGED),
    "film.gif": (lambda: b"\0\0\0\x18ftypmp42" + noise(400), DAMAGED),
    "heic.jpg": (lambda: b"\0\0\0\x18ftypheic" + noise(400), DAMAGED),
    "cut-by-half.png": (lambda: cut(picture(), 0.5), DAMAGED),
    "cut-at-the-end.png": (lambda: cut(saved(Image.fromarray(pixels(size=(64, 64))), "PNG"), 0.9), DAMAGED),
    "cut-in-the-head.png": (lambda: picture()[:20], DAMAGED),
    "cut-by-half.jpg": (lambda: cut(saved(Image.fromarray(pixels(size=(64, 64))), "JPEG"), 0.5), DAMAGED),
    "cut-in-the-head.jpg": (lambda: picture("JPEG")[:30], DAMAGED),
    "cut-by-half.webp": (lambda: cut(picture("WEBP"), 0.5), DAMAGED),
    "cut-by-half.gif": (lambda: cut(gif(1), 0.5), DAMAGED),
    "cut-by-half.bmp": (lambda: cut(picture("BMP"), 0.5), DAMAGED),
    "cut-by-half.tif": (lambda: cut(picture("TIFF"), 0.5), DAMAGED),
    "head-alone.gif": (lambda: b"GIF89a", DAMAGED),
    "head-alone.bmp": (lambda: b"BM", DAMAGED),
    "head-alone.tif": (lambda: b"II*\0", DAMAGED),
    "head-alone.webp": (lambda: b"RIFF\x10\0\0\0WEBP", DAMAGED),
    "head-alone.jpg": (lambda: b"\xff\xd8\xff\xd9", DAMAGED),
    "wrong-head.png": (lambda: changed(picture(), 0.2, b"\xff\xff\xff\xff"), DAMAGED),
    "no-pixels.png": (lambda: png(4, 4), DAMAGED),
    "too-few-pixels.png": (lambda: png(64, 64, chunk(b"IDAT", zlib.compress(bytes(30)))), DAMAGED),
    "not-packed.png": (lambda: png(4, 4, chunk(b"IDAT", noise(52))), DAMAGED),
    "no-width.png": (lambda: png(0, 4, chunk(b"IDAT", zlib.compress(bytes(4)))), DAMAGED),
    "no-palette.png": (lambda: png(4, 4, chunk(b"XXXX", b""), depth=99), DAMAGED),
    "unknown-colour.png": (lambda: png(4, 4, chunk(b"IDAT", zlib.compress(bytes(52))), colour=5), DAMAGED),
    "text-bomb.png": (
        lambda: png(4, 4, chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(2**26))), chunk(b"IDAT", zlib.compress(b""))),
        DAMAGED,
    ),
    "profile-bomb.png": (
        lambda: png(4, 4, chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(2**26))), chunk(b"IDAT", zlib.compress(b""))),
        DAMAGED,
    ),
    "bomb.png": (lambda: bomb(60_000, 60_000), MANY),
    "large.png": (lambda: bomb(10_000, 9_000), MANY),
    "absurd.png": (lambda: bomb(2**31 - 1, 2**31 - 1), MANY),
    "bomb.gif": (lambda: changed(gif(1), 0, b"GIF89a" + struct.pack("<HH", 65535, 65535)), f"{MANY}|{DAMAGED}"),
    "absurd.bmp": (
        lambda: b"BM" + struct.pack("<IHHIIiiHHIIiiII", 99, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
        f"{MANY}|{DAMAGED}",
    ),
    "too-bright.tiff": (lambda: floats(300.0), "its values are not between 0 and 1"),
    "no-numbers.tiff": (
        lambda: saved(Image.fromarray(np.full((4, 4), np.nan, np.float32)), "TIFF"),
        "its values are not between 0 and 1",
    ),
    "beyond-sixteen-bits.tiff": (
        lambda: saved(Image.fromarray(np.full((4, 4), 2**20, np.int32)), "TIFF"),
        "its values are beyond 16 bits",
    ),
    "below-nought.tiff": (
        lambda: saved(Image.fromarray(np.full((4, 4), -5, np.int32)), "TIFF"),
        "its values are beyond 16 bits",
    ),
    "zeros.webp": (lambda: b"RIFF" + bytes(500), DAMAGED),
    "cut-packed.tiff": (lambda: cut(picture("TIFF", compression="tiff_lzw"), 0.4), DAMAGED),
    "no-bits.bmp": (lambda: changed(picture("BMP"), 28 / 342, b"\x07\0"), DAMAGED),
    "bad-tags.tif": (lambda: b"II*\0\x08\0\0\0" + noise(300), DAMAGED),
    "endless-tags.tif": (lambda: b"II*\0\x08\0\0\0\0\0\x08\0\0\0", DAMAGED),
    "flipped-bits.webp": (lambda: changed(picture("WEBP"), 0.3, noise(20)), DAMAGED),
}
"""Files that are rejected, and a pattern of the reason."""

OTHERS = {
    "notes.txt": b"hello",
    "labels.csv": b"a,b\n",
    ".hidden.png": b"x",
    "Thumbs.db": b"x",
    "nested.zip": b"PK\x05\x06" + bytes(18),
    "nested.tar": bytes(10240),
    "no-suffix": b"x",
    "drawing.svg": b"<svg/>",
}
"""Files that are skipped."""


SPECIAL = {
    "link-out.png": ("../outside.png", "it is a link out of the folder"),
    "link-to-the-system.png": ("/etc/passwd", "it is a link out of the folder"),
    "link-to-nothing.png": ("nobody.png", "it is a link to nothing"),
    "link-to-folder.png": ("elsewhere", "it is a link to a folder"),
    "link-to-itself.png": ("link-to-itself.png", "it is a link to nothing"),
    "pipe.png": (None, "it is no regular file"),
}
"""Entries that only a file system can have: the target of a link, or None for a pipe; and the reason."""


def write_special(folder: Path) -> None:
    """Write SPECIAL, and a link to the folder itself, which must not be followed."""
    (folder.parent / "outside.png").write_bytes(picture())
    (folder / "elsewhere").mkdir()
    (folder / "loop").symlink_to(folder)
    for name, (target, _) in SPECIAL.items():
        if target is None:
            os.mkfifo(folder / name)
        else:
            (folder / name).symlink_to(target)


def write(folder: Path) -> None:
    """Write all files but SPECIAL."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in GOOD.items():
        (folder / name).write_bytes(make())
    for name, (make, _) in BAD.items():
        (folder / name).write_bytes(make())
    for name, content in OTHERS.items():
        (folder / name).write_bytes(content)
    (Path(os.fsdecode(os.fsencode(folder) + b"/not-\xff-utf8.png"))).write_bytes(picture())


if __name__ == "__main__":
    write(Path(sys.argv[1]))
