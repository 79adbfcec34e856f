"""The report of ingestion, and what the log says of it."""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.ingestion.collection import CLIPPED, COLOUR, TRANSPARENT, Original
from ddpm_kedro.ingestion.lazy_store import Shard
from ddpm_kedro.ingestion.report import choose_shown, describe_parts, messages
from ddpm_kedro.ingestion.statistics import describe_shard, summarize
from ddpm_kedro.provenance import Provenance
from tests.conftest import make_store


def said(training: ImageStore, holdout: ImageStore) -> list[str]:
    return [message for _, message in messages(training, holdout, describe_parts(training, holdout))]


def test_random_images_of_each_class_are_shown() -> None:
    labels = np.repeat([0, 1, 3], [1_000, 500, 20])
    shown = choose_shown(labels, 1_520, 0)
    assert np.bincount(labels[shown]).tolist() == [33, 33, 0, 20]
    assert len(set(shown.tolist())) == len(shown)
    assert np.array_equal(shown, np.sort(shown))
    assert shown[:33].max() > 600  # not the first ones
    assert np.array_equal(shown, choose_shown(labels, 1_520, 0))
    assert not np.array_equal(shown, choose_shown(labels, 1_520, 1))
    assert len(choose_shown(None, 1_520, 0)) == 100
    assert choose_shown(None, 7, 0).tolist() == list(range(7))
    assert len(choose_shown(np.arange(300), 300, 0)) == 300  # one of each class


@pytest.mark.parametrize(
    ("names", "counts", "line"),
    [
        (("cat", "dog"), (5, 5), "2 classes of 5 training images: cat, dog."),
        (("cat", "dog"), (5, 3), "2 classes, training images: cat 5, dog 3."),
        (("cat",), (5,), "1 class of 5 training images: cat."),
        (("c" * 200, "dog"), (1, 1), f"2 classes of 1 training images: {'c' * 110}… and 1 more."),
    ],
)
def test_classes_and_their_counts_are_listed(names: tuple[str, ...], counts: tuple[int, ...], line: str) -> None:
    labels = np.repeat(np.arange(len(names)), counts)
    store = replace(make_store(len(labels)), labels=labels, class_names=names)
    assert said(store, store)[0] == line


def test_many_classes_are_shortened_to_two_lines() -> None:
    store = make_store(400, classes=200)
    [line] = said(store, store)
    assert line.startswith("200 classes of 2 training images: class 0, class 1, ")
    assert line.endswith(" and 189 more.")
    assert len(line) < 2 * 100


def treated(channels: int = 3, asked: int | None = None, **treatments: int) -> ImageStore:
    made_by = Provenance({"images": {"background": [9, 8, 7], "channels": asked}}, {})
    statistics: dict[str, Any] = {"originals": {"treatments": treatments}, "value_bits": 12}
    return replace(make_store(10, 0, channels=channels), made_by=made_by, statistics=statistics)


def test_transparency_colour_and_clipped_values_are_counted() -> None:
    one = treated(1, **{TRANSPARENT: 3, COLOUR: 2, CLIPPED: 1})
    two = treated(1, **{TRANSPARENT: 1})
    assert said(one, two) == [
        "Transparent parts of 4 images show images.background 9/8/7.",
        "2 of 20 images were in colour and became grey.",
        "1 of 20 images have values above 4,095, which became 4,095; a larger images.value_bits than 12 keeps them.",
    ]
    kept = treated(4, **{TRANSPARENT: 3})
    assert said(kept, kept) == ["Transparent parts of 6 images are kept."]
    asked = treated(1, 1, **{COLOUR: 3})
    assert said(asked, asked) == []


def test_only_what_needs_care_is_a_warning() -> None:
    store = replace(treated(**{TRANSPARENT: 1, CLIPPED: 1}), hashes=np.array([b"a"] * 10))
    levels = [level for level, _ in messages(store, store, describe_parts(store, store))]
    assert levels == [logging.INFO, logging.WARNING, logging.WARNING]


def test_shards_of_an_earlier_version_count_no_treatments() -> None:
    """An interrupted ingestion of an earlier version is resumed."""
    originals = (Original(8, 8, "PNG RGBA", (TRANSPARENT,)), Original(8, 8, "PNG RGB"))
    shard = Shard(make_store(2).images, np.zeros(2, np.int64), ("a", "b"), (), originals, 12)
    now, earlier = (describe_shard(shard)["summary"] for _ in range(2))
    del earlier["value_bits"], earlier["originals"]["treatments"]
    both = summarize([earlier, now], np.array([b"x"] * 4))
    assert both["originals"]["kinds"] == {"PNG RGBA": 2, "PNG RGB": 2}
    assert both["originals"]["treatments"] == {TRANSPARENT: 1}
    assert both["value_bits"] == 12
    assert summarize([earlier], np.array([b"x"] * 2))["value_bits"] is None
