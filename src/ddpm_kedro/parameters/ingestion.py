"""The parameter groups of ingestion: the source of the images, their size and split."""

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveInt, field_validator

from ddpm_kedro.parameters.base import Fraction, Group, NotInFingerprint, Seed, Text, TextPath

Byte = Annotated[int, Field(ge=0, le=255)]
Side = Annotated[int, Field(ge=8)]


class DatasetParameters(Group):
    """The source of the images."""

    source: Text
    """Name of a source in ``ddpm_kedro.ingestion.registry``: mnist5k, cifar10, folder, …"""
    download_folder: NotInFingerprint[TextPath]
    """Local folder for downloaded archives, relative to the working folder."""

    path: TextPath | None
    """Path of the folder, archive or array, relative to the working folder; an archive or array may be a URL."""
    sha256: NotInFingerprint[Annotated[Text, Field(pattern="^[0-9a-fA-F]{64}$")] | None]
    """SHA-256 of the archive or array; null skips the check."""
    classes: bool | None
    """Whether subfolders are classes (folder, archive, array); null: if there are several subfolders."""
    splits: bool = True
    """Whether folders with the names of splits (train, val, test, …) are splits, not classes."""
    follow_links: bool = False
    """Whether links that lead out of the folder are followed (source folder)."""

    @field_validator("download_folder")
    @classmethod
    def _on_this_machine(cls, folder: str) -> str:
        if "://" in folder:
            raise ValueError("downloads go to a folder on this machine, not to a URL")
        return folder


def _numbers_between(mark: str, expected: str) -> BeforeValidator:
    """Accept numbers between marks as text: a value on the command line cannot be a list."""
    words = re.compile(rf"\d+({mark}\d+)+")

    def split(value: Any) -> Any:
        if not isinstance(value, str) or value.isdecimal():
            return value
        if not words.fullmatch(value):
            raise ValueError(f"{value!r} is given, but {expected} is expected")
        return value.split(mark)

    return BeforeValidator(split)


class ImagesParameters(Group):
    """Size, channels and split of the images."""

    holdout_fraction: Annotated[float, Field(gt=0, lt=1)]
    """Fraction of each class used as holdout images, if the source has no validation or test split."""
    seed: Seed
    size: Annotated[
        Side | tuple[Side, Side] | None,
        _numbers_between("x", "a number of pixels such as 32, or height and width such as 40x60,"),
    ]
    """Pixels per side, or height and width (also as 40x60); null keeps a small common size, otherwise chooses one."""
    channels: Literal[1, 3, 4] | None
    """1 grey, 3 colour, 4 colour with transparency; null: grey if (almost) all images are grey, otherwise colour."""
    fit: Literal["crop", "pad", "exact"]
    """For images with another aspect ratio: crop the longer side, pad the shorter side, or stretch (exact)."""
    background: Annotated[tuple[Byte, Byte, Byte], _numbers_between("/", "red, green and blue such as 255/128/0")]
    """Red, green and blue of borders and behind transparent pixels; also as 255/128/0."""
    max_pixels: PositiveInt
    """Reject images with more pixels than this, before decoding."""
    value_bits: NotInFingerprint[Annotated[int, Field(ge=8, le=16)] | None] = None
    """Bits that grey 16-bit images use: 2**value_bits - 1 becomes 255; null: found from some of them.

    Where it has an effect, it is part of the fingerprint of the images: ``probing.format_parts``."""
    max_rejected_fraction: NotInFingerprint[Fraction]
    """Abort if more than this fraction of the files cannot be decoded."""
    perceptual_hash: Literal[False] = False
    """Removed: only ``false`` is accepted. It stays part of the fingerprint, so that stores made before stay valid."""
    workers: NotInFingerprint[NonNegativeInt | None]
    """Number of processes that decode; null: one per core."""
