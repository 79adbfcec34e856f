"""Class names are made readable for files, grids and commands, before training."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ddpm_kedro.images.class_names import LONGEST, file_names, readable
from ddpm_kedro.ingestion.source import choose_class_names
from ddpm_kedro.parameters import DatasetParameters
from ddpm_kedro.pipelines.sampling.nodes import render_samples
from ddpm_kedro.reporting.fonts import legend, titles
from ddpm_kedro.reporting.grid import labelled_grid
from ddpm_kedro.sampling.samples import Samples
from tests.conftest import MADE_BY

ODD = ["cat\nblack", "c" * 300, "d" * 300, "../../etc", "<b>bold</b>", "a b", "a-b", "A-B", "猫", "\udcff", "", "[/b]"]


def test_class_names_are_made_readable_at_ingestion() -> None:
    dataset = DatasetParameters(source="array", download_folder="", path="x", sha256=None, classes=None)
    assert choose_class_names(dataset, ["cat\nblack", "dog", "dog"], "") == [
        "cat\\nblack",
        "dog (class 1)",
        "dog (class 2)",
    ]


def test_usual_names_stay_unchanged() -> None:
    usual = ["0", "cat", "black cat", "Ä", "n02085620-Chihuahua"]
    assert readable(usual) == usual
    assert file_names(["0", "cat", "n02085620-Chihuahua"]) == ["0", "cat", "n02085620-Chihuahua"]
    assert titles(["0", "cat"]) == ["0", "cat"]


@settings(derandomize=True, deadline=None)
@given(st.lists(st.text(st.characters() | st.sampled_from("aA -/.\n")), max_size=6))
def test_any_names_are_printable_short_and_distinct(names: list[str]) -> None:
    found = readable(names)
    assert all(name.isprintable() and 0 < len(name) <= LONGEST + len(" (class 9)") for name in found)
    files = file_names(found)
    assert len({file.casefold() for file in files}) == len(found)
    assert all(len(file.encode()) <= LONGEST + 2 and "/" not in file and "." not in file for file in files)


def test_classes_never_share_a_file_name(tmp_path: pytest.TempPathFactory) -> None:
    names = readable(ODD)
    images = np.zeros((len(names), 8, 8, 1), np.uint8)
    grid, files = render_samples(Samples(images, np.arange(len(names)), tuple(names), MADE_BY))
    parts = [file.split("_", 1)[1].casefold() for file in files]
    assert len(set(parts)) == len(names)
    for file, image in files.items():
        image.save(f"{tmp_path}/{file}.png")
    assert grid.width


def test_names_without_a_font_become_numbers_with_a_legend() -> None:
    names = ["cat", "Привет", "é", "猫"]
    assert titles(names) == ["cat", "Привет", "é", "#3"]
    assert legend(names) == "#3 猫"
    assert legend(["cat", "dog"]) == ""


def test_grids_show_numbers_and_no_boxes() -> None:
    images, labels = np.zeros((2, 8, 8, 1), np.uint8), np.arange(2)
    shown = [np.asarray(labelled_grid(images, labels, names)) for names in (["猫", "犬"], ["#0", "#1"])]
    assert np.array_equal(*shown)
