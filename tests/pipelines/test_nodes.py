"""Each node alone, the pipelines in memory, and the types of their parameters."""

import inspect
from dataclasses import replace
from threading import Event
from typing import Any, get_type_hints

import numpy as np
import pytest
from kedro.io import DataCatalog, MemoryDataset
from kedro.pipeline import Pipeline
from kedro.runner import SequentialRunner
from PIL import Image

from ddpm_kedro.errors import UserError
from ddpm_kedro.images.augmentation import AugmentedImages
from ddpm_kedro.images.store import ImageStore
from ddpm_kedro.ingestion import registry
from ddpm_kedro.ingestion.array_images import InMemoryImages
from ddpm_kedro.ingestion.given import GivenImage
from ddpm_kedro.nothing import NOTHING
from ddpm_kedro.parameters import DatasetParameters, Group
from ddpm_kedro.pipelines import (
    data_ingestion,
    evaluation,
    image_to_image,
    import_model,
    inpainting,
    interpolation,
    model_training,
    reporting,
    sampling,
)
from ddpm_kedro.pipelines.data_ingestion.nodes import (
    download_images,
    prepare_images,
    report_ingestion,
)
from ddpm_kedro.pipelines.image_to_image.nodes import vary_images
from ddpm_kedro.pipelines.model_training.nodes import augment_images, export_model, make_resume_plan, train_model
from ddpm_kedro.pipelines.sampling.nodes import render_samples, sample_images
from ddpm_kedro.provenance import Provenance
from ddpm_kedro.sampling.samples import Samples
from tests.conftest import (
    DIFFUSION,
    EVALUATION,
    IMAGE_TO_IMAGE,
    IMAGES,
    IMPORT_MODEL,
    INPAINTING,
    INTERPOLATION,
    MADE_BY,
    MODEL,
    NO_AUGMENTATION,
    OPTIMIZER,
    PLAN,
    REPORTING,
    SAMPLING,
    TRAINING,
    changed,
    make_store,
)
from tests.ingestion import corpus
from tests.ingestion.shards import decode_all

DATASET = DatasetParameters(source="mnist5k", download_folder="raw", path=None, sha256=None, classes=None)
GROUPS = {
    "dataset": DATASET,
    "images": IMAGES,
    "augmentation": NO_AUGMENTATION,
    "model": MODEL,
    "diffusion": DIFFUSION,
    "optimizer": OPTIMIZER,
    "training": TRAINING,
    "sampling": SAMPLING,
    "image_to_image": IMAGE_TO_IMAGE,
    "inpainting": INPAINTING,
    "interpolation": INTERPOLATION,
    "evaluation": EVALUATION,
    "reporting": REPORTING,
    "import_model": IMPORT_MODEL,
    "plan": PLAN,
}
PIPELINES = (data_ingestion, model_training, sampling)
EVALUATING = (evaluation, reporting)
TASKS = (image_to_image, inpainting, interpolation, import_model)
NODES = [node for package in (*PIPELINES, *EVALUATING, *TASKS) for node in package.create_pipeline().nodes]


def train(store: ImageStore, resume: Any = None, **groups: Any) -> list[Any]:
    images = AugmentedImages(store, groups.pop("augmentation", NO_AUGMENTATION))
    p = {"model": MODEL, "diffusion": DIFFUSION, "optimizer": OPTIMIZER, "training": TRAINING} | groups
    return list(train_model(images, store, make_resume_plan(images, resume, **p), Event()))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]


class TestIngestion:
    def test_the_manifest_names_source_files_and_classes(self) -> None:
        manifest = download_images(DATASET)
        assert manifest["source"] == "mnist5k"
        assert manifest["class_names"] == list("0123456789")
        assert [len(checksum) for checksum in manifest["sha256"].values()] == [64]

    def test_training_never_sees_the_holdout(self) -> None:
        training, holdout = (decode_all(lazy) for lazy in prepare_images(download_images(DATASET), IMAGES))
        assert (len(training), len(holdout)) == (4500, 500)
        assert np.bincount(holdout.labels).tolist() == [50] * 10
        seen = {image.tobytes() for image in training.images}
        assert sum(image.tobytes() in seen for image in holdout.images) == 0
        assert training.made_by.fingerprint != holdout.made_by.fingerprint

    def test_a_test_split_of_the_source_is_the_holdout(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class WithTestSplit:
            def open(self, manifest: object) -> tuple[InMemoryImages, InMemoryImages]:
                store = make_store(12)
                test = InMemoryImages(store.images[:4], store.labels[:4])
                return InMemoryImages(store.images, store.labels), test

            def check(self, manifest: object) -> None: ...

        monkeypatch.setitem(registry.SOURCES, "other", WithTestSplit())
        manifest = {"source": "other", "folder": ".", "class_names": list("abc"), "sha256": {}}
        training, holdout = (decode_all(lazy) for lazy in prepare_images(manifest, IMAGES))
        assert (len(training), len(holdout)) == (12, 4)

    def test_the_fingerprint_depends_on_files_and_split(self) -> None:
        manifest = download_images(DATASET)
        marks = {
            prepare_images(m, p)[0].made_by.fingerprint
            for m in (manifest, manifest | {"sha256": {"x": "y"}})
            for p in (IMAGES, changed(IMAGES, seed=1), changed(IMAGES, holdout_fraction=0.2))
        }
        assert len(marks) == 6

    def test_the_ingestion_report_counts_files_and_images(self) -> None:
        raw = {"source": "folder", "files": 39, "others": 2, "looks": [[40, 30, 3, 7], [8, 8, 1, 2]]}
        report, sheet = report_ingestion(make_store(30), make_store(6, classes=0), raw)
        assert report["raw"] == {
            "source": "folder",
            "files": 39,
            "others": 2,
            "sizes_of_some": {"height 40, width 30, colour": 7, "height 8, width 8, grey": 2},
            "shorter_side_at_least": {"32": 0.0, "64": 0.0, "128": 0.0, "256": 0.0, "512": 0.0},
            "in_colour": 0.778,
        }
        assert sheet.width == 3 * 2 * 60 + 4  # two columns per class
        assert report["training"]["images_per_class"] == {"class 0": 10, "class 1": 10, "class 2": 10}
        assert report["training"] | {"height": 8, "width": 8, "channels": 1, "images": 30} == report["training"]
        assert report["holdout"]["images_per_class"] == {}
        assert "also_in_training" not in report["holdout"]

    def test_images_in_both_parts_and_rejected_files_are_reported(self, caplog: pytest.LogCaptureFixture) -> None:
        training, holdout = (
            replace(make_store(len(hashes)), hashes=np.array(hashes, dtype="S2"), statistics={"rejected": rejected})
            for hashes, rejected in (
                (["aa", "bb", "cc"], {"it is damaged": 2, "it is cut short": 1}),
                (["bb", "dd", "bb"], {"it is damaged": 1, "x": 1, "y": 1}),
            )
        )
        with caplog.at_level("WARNING"):
            report, _ = report_ingestion(training, holdout, {"source": "folder"})
        assert report["holdout"]["also_in_training"] == 2
        assert caplog.messages == [
            "2 of 3 holdout images are training images, too.",
            "6 files gave no image: it is damaged (3), it is cut short (1), x (1), and more. "
            "ingestion_report.json lists them.",
        ]


class TestTraining:
    def test_the_preview_shows_the_batch_that_training_sees_first(self, store: ImageStore) -> None:
        flips = changed(NO_AUGMENTATION, horizontal_flip=True)
        images, preview = augment_images(store, flips, TRAINING)
        plain, unflipped = augment_images(store, NO_AUGMENTATION, TRAINING)
        assert images.parameters == flips
        assert plain.store is store
        assert preview.size == unflipped.size
        assert np.asarray(preview).tolist() != np.asarray(unflipped).tolist()
        tile = np.asarray(unflipped.convert("L"))[4:60:7, 4:60:7]
        assert any(np.array_equal(tile, image[:, :, 0]) for image in store.images)

    @pytest.mark.parametrize("flip", ["horizontal_flip", "vertical_flip"])
    def test_flips_are_announced_with_how_to_turn_them_off(
        self, flip: str, store: ImageStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        finished = train(store, augmentation=changed(NO_AUGMENTATION, **{flip: True}))[-1][3]
        [line] = [message for message in caplog.messages if "mirror" in message]
        assert f"Half of the training images are mirrored (augmentation.{flip})" in line
        assert line.endswith("To turn this off: --params use.augmentation=none")
        caplog.clear()
        train(store)
        train(store, finished, augmentation=changed(NO_AUGMENTATION, **{flip: True}))  # finished: nothing is trained
        assert "mirror" not in caplog.text

    def test_every_report_is_saved_and_the_last_has_a_checkpoint(self, store: ImageStore) -> None:
        outputs = train(store, training=changed(TRAINING, checkpoint_interval=64))
        assert [len(history) for _, history, _, _ in outputs] == [1, 2]
        assert outputs[0][2:] == (NOTHING, NOTHING)
        assert outputs[1][3].images_seen == 64
        assert outputs[1][2] is outputs[1][3]  # the only one is the best
        names = [name for previews, _, _, _ in outputs for name in previews]
        run_id = outputs[1][3].run_id
        assert names == [f"{run_id}/images_seen_0000000032", f"{run_id}/images_seen_0000000064"]
        assert all(isinstance(p, Image.Image) for previews, _, _, _ in outputs for p in previews.values())

    def test_a_finished_run_yields_once_without_training(
        self, store: ImageStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        finished = train(store)[-1][3]
        assert train(store, finished) == [({}, finished.history, NOTHING, NOTHING)]
        assert f"Run {finished.run_id} is already trained: 64 images seen." in caplog.text

    def test_an_unfinished_run_is_resumed(self, store: ImageStore, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level("INFO")
        unfinished = train(store)[0][3]
        assert [row["images_seen"] for row in train(store, unfinished)[-1][1]] == [32, 64]
        assert "resumes after 32 images" in caplog.text

    def test_a_shorter_run_takes_over_the_checkpoint_of_a_longer_one(
        self, store: ImageStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        unfinished = train(store)[0][3]
        [(_, history, _, taken)] = train(store, unfinished, training=changed(TRAINING, num_images=32))
        assert history == unfinished.history
        assert taken.images_seen == 32
        assert taken.record.made_by.inputs["continued_from"] == f"{unfinished.run_id}@32"
        assert taken.run_id != unfinished.run_id
        assert export_model(taken, None, TRAINING).run_id == taken.run_id

    def test_resuming_with_other_parameters_is_a_warning(
        self, store: ImageStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        unfinished = train(store)[0][3]
        train(store, unfinished, training=changed(TRAINING, resume="require", seed=5))
        assert f"continues run {unfinished.run_id} after 32 images; changed: training.seed: 0 → 5." in caplog.text
        assert "would lead to another model" in caplog.text

    def test_the_best_checkpoint_can_be_exported(self, store: ImageStore) -> None:
        first, last = (output[3] for output in train(store))
        best = changed(TRAINING, export="best")
        assert export_model(last, first, TRAINING).images_seen == 64
        model = export_model(last, first, best)
        assert model.images_seen == 32
        assert all(tensor.equal(first.ema[name]) for name, tensor in model.network.state_dict().items())
        other = train(store, training=changed(best, seed=1))[0][3]
        for wrong in (None, other):
            with pytest.raises(UserError, match="the best checkpoint on disk is of another run"):
                export_model(last, wrong, best)

    def test_other_parameters_start_from_scratch_and_the_differences_are_logged(
        self, store: ImageStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level("INFO")
        earlier = train(store)[-1][3]
        other = Provenance({}, {"raw_images": "other"})
        outputs = train(replace(store, made_by=other), earlier, optimizer=changed(OPTIMIZER, lr=0.5e-3))
        assert [row["images_seen"] for row in outputs[-1][1]] == [32, 64]
        assert (
            f"starts from scratch, because it differs from run {earlier.run_id}: optimizer.lr: 0.001 → 0.0005"
            in caplog.text
        )
        assert f"training images: {store.made_by.fingerprint} → {other.fingerprint}" in caplog.text

    def test_a_stop_request_ends_training(self, store: ImageStore) -> None:
        stop = Event()
        stop.set()
        images = AugmentedImages(store, NO_AUGMENTATION)
        plan = make_resume_plan(images, None, MODEL, DIFFUSION, OPTIMIZER, TRAINING)
        outputs = list(train_model(images, store, plan, stop))
        assert [output[3].images_seen for output in outputs] == [8]

    def test_classes_can_be_left_out(self, store: ImageStore) -> None:
        checkpoint = train(store, model=changed(MODEL, class_conditional=False))[-1][3]
        assert checkpoint.record.class_names == ()
        assert export_model(checkpoint, None, TRAINING).network.class_embedding is None

    def test_the_exported_weights_are_the_ema_weights(self, store: ImageStore) -> None:
        checkpoint = train(store)[-1][3]
        model = export_model(checkpoint, None, TRAINING)
        for name, tensor in model.network.state_dict().items():
            assert tensor.equal(checkpoint.ema[name])
        assert any(not tensor.equal(checkpoint.network[name]) for name, tensor in model.network.state_dict().items())
        assert model.class_names == store.class_names
        assert not model.network.training  # else dropout would go on


class TestSampling:
    @pytest.fixture
    def model(self, store: ImageStore) -> Any:
        return export_model(train(store)[-1][3], None, TRAINING)

    def test_every_class_is_sampled_equally_often(self, model: Any) -> None:
        samples, report = sample_images(model, changed(SAMPLING, num_images=7))
        assert (report["num_images"], report["network_evaluations"]) == (7, 2 * SAMPLING.num_inference_steps)
        assert samples.images.shape == (7, 8, 8, 1)
        assert samples.images.dtype == np.uint8
        assert samples.labels.tolist() == [0, 1, 2, 0, 1, 2, 0]

    @pytest.mark.parametrize("label", [1, "class 1"])
    def test_a_class_is_chosen_by_name_or_number(self, label: Any, model: Any) -> None:
        assert sample_images(model, changed(SAMPLING, label=label))[0].labels.tolist() == [1] * 6

    @pytest.mark.parametrize("label", [3, -1, "class 4"])
    def test_an_unknown_class_is_an_error(self, label: Any, model: Any) -> None:
        with pytest.raises(
            UserError, match=r"sampling.label = .* is not a class of this model.*class 0, class 1, class 2"
        ):
            sample_images(model, changed(SAMPLING, label=label))

    def test_a_label_for_a_model_without_classes_is_an_error(self, store: ImageStore) -> None:
        model = export_model(train(store, model=changed(MODEL, class_conditional=False))[-1][3], None, TRAINING)
        unguided = changed(SAMPLING, guidance_scale=None)
        samples, report = sample_images(model, unguided)
        assert samples.labels is None
        assert (report["guidance_scale"], report["network_evaluations"]) == (1.0, 4)
        with pytest.raises(UserError, match="trained without classes"):
            sample_images(model, changed(unguided, label=0))
        with pytest.raises(UserError, match=r"guidance_scale = 1.5, but this model was trained without classes"):
            sample_images(model, SAMPLING)

    @pytest.mark.parametrize(
        ("changes", "evaluations"),
        [
            ({"guidance_scale": 1.0}, 4),
            ({"guidance_scale": None}, 8),
            ({"sampler": "heun", "guidance_scale": 1.0}, 6),  # the first step of the cosine schedule is Euler's
            ({"sampler": "dpm_solver++", "guidance_interval": [0.0, 1.0]}, 5),
        ],
    )
    def test_network_evaluations_are_counted(self, changes: dict[str, Any], evaluations: int, model: Any) -> None:
        assert sample_images(model, changed(SAMPLING, **changes))[1]["network_evaluations"] == evaluations

    def test_without_label_dropout_guidance_is_off_by_default_and_otherwise_a_warning(
        self, store: ImageStore, model: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        never_empty = export_model(train(store, training=changed(TRAINING, label_dropout=0.0))[-1][3], None, TRAINING)
        for guidance, expected, evaluations in ((None, 1.0, 4), (1.0, 1.0, 4)):
            report = sample_images(never_empty, changed(SAMPLING, guidance_scale=guidance))[1]
            assert (report["guidance_scale"], report["network_evaluations"]) == (expected, evaluations)
        sample_images(model, SAMPLING)
        assert not warnings(caplog)
        sample_images(never_empty, SAMPLING)
        [message] = warnings(caplog)
        assert message.startswith(
            "sampling.guidance_scale = 1.5, but this model was never trained with the empty label"
        )

    def test_images_without_a_class_from_a_model_without_an_empty_label_are_a_warning(
        self, store: ImageStore, caplog: pytest.LogCaptureFixture
    ) -> None:
        never_empty = export_model(train(store, training=changed(TRAINING, label_dropout=0.0))[-1][3], None, TRAINING)
        given = GivenImage("picture.png", corpus.saved(Image.fromarray(store.images[0, :, :, 0]), "PNG"))
        vary_images(never_empty, store, given, changed(SAMPLING, guidance_scale=None), IMAGE_TO_IMAGE, IMAGES)
        [message] = warnings(caplog)
        assert message.startswith("No class is chosen, but this model was never trained with the empty label")
        caplog.clear()
        vary_images(never_empty, store, given, changed(SAMPLING, guidance_scale=None, label=1), IMAGE_TO_IMAGE, IMAGES)
        assert not warnings(caplog)

    def test_images_and_weights_that_are_not_finite_are_refused(self, store: ImageStore, model: Any) -> None:
        checkpoint = train(store)[-1][3]
        checkpoint.ema["conv_in.bias"][0] = float("nan")
        with pytest.raises(
            UserError, match=r"cannot be exported: weights are not finite: conv_in.bias.*Train it again"
        ):
            export_model(checkpoint, None, TRAINING)
        model.network.conv_in.bias.data[0] = float("inf")
        with pytest.raises(UserError, match=r"The model generated images that are not finite, on cpu"):
            sample_images(model, SAMPLING)

    def test_a_spacing_that_the_schedule_does_not_allow_is_an_error(self, store: ImageStore) -> None:
        diffusion = changed(DIFFUSION, zero_terminal_snr=True)
        model = export_model(train(store, diffusion=diffusion)[-1][3], None, TRAINING)
        assert sample_images(model, SAMPLING)[0].images.std() > 1
        with pytest.raises(UserError, match="timestep_spacing = leading: a schedule that ends in pure noise"):
            sample_images(model, changed(SAMPLING, timestep_spacing="leading"))

    def test_too_many_steps_are_an_error(self, model: Any) -> None:
        with pytest.raises(UserError, match="num_inference_steps = 101 is more than the 100 timesteps"):
            sample_images(model, changed(SAMPLING, num_inference_steps=101))

    @pytest.mark.parametrize("sampler", ["ddim", "ddpm", "dpm_solver++", "heun"])
    def test_samples_do_not_depend_on_the_batch_size(self, sampler: str, model: Any) -> None:
        sampled = [
            sample_images(model, changed(SAMPLING, sampler=sampler, batch_size=size))[0].images.astype(int)
            for size in (1, 4, 6)
        ]
        assert np.abs(sampled[0] - sampled[2]).max() <= 1
        assert np.abs(sampled[1] - sampled[2]).max() <= 1
        assert sampled[0].std() > 1

    @pytest.mark.parametrize(
        "change",
        [
            {"seed": 1},
            {"guidance_scale": 3.0},
            {"num_inference_steps": 7},
            {"ddim_eta": 1.0},
            {"sampler": "ddpm"},
            {"sampler": "dpm_solver++"},
            {"sampler": "heun"},
            {"timestep_spacing": "karras"},
            {"threshold": "none"},
        ],
    )
    def test_every_parameter_matters(self, change: dict[str, Any], model: Any) -> None:
        base = changed(SAMPLING, num_inference_steps=10)
        assert not np.array_equal(
            sample_images(model, base)[0].images, sample_images(model, changed(base, **change))[0].images
        )

    def test_the_variance_of_ddpm_matters(self, model: Any) -> None:
        small, large = (
            sample_images(model, changed(SAMPLING, sampler="ddpm", ddpm_variance=variance))[0].images
            for variance in ("small", "large")
        )
        assert not np.array_equal(small, large)

    def test_rendering_names_files_by_number_and_class(self) -> None:
        images = np.zeros((11, 8, 8, 1), dtype=np.uint8)
        images[3] = 255
        grid, files = render_samples(Samples(images, np.arange(11) % 2, ("a/b", "c"), MADE_BY))
        assert list(files)[:4] == ["00_a-b", "01_c", "02_a-b", "03_c"]
        assert np.asarray(files["03_c"]).min() == 255
        assert grid.width == 2 * 2 * 60 + 4  # two columns per class
        _, files = render_samples(Samples(images, None, (), MADE_BY))
        assert list(files)[10] == "10"


def test_the_whole_job_in_memory() -> None:
    pipeline = sum((package.create_pipeline() for package in PIPELINES), Pipeline([]))
    pipeline = pipeline.from_nodes("model_training.augment_images")
    inputs = {"training_images": make_store(), "holdout_images": make_store(12), "stop_request": Event()}
    inputs |= {f"params:{name}": group for name, group in GROUPS.items()}
    catalog = DataCatalog({name: MemoryDataset(value, copy_mode="assign") for name, value in inputs.items()})
    for name in ("resume_checkpoint", "initial_model"):
        catalog[name] = Missing()
    for name in pipeline.all_outputs():
        catalog[name] = MemoryDataset(copy_mode="assign")
    SequentialRunner().run(pipeline, catalog)
    assert len(catalog.load("sample_files")) == 6
    assert [name.split("/")[1] for name in catalog.load("training_previews")] == ["images_seen_0000000064"]
    assert catalog.load("training_history")[-1]["images_seen"] == 64


class Missing(MemoryDataset):
    def load(self) -> None:
        return None

    def exists(self) -> bool:
        return True


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.short_name)
def test_every_parameter_input_is_checked_by_its_model(node: Any) -> None:
    """Kedro checks what is annotated with a Pydantic model; an annotation it cannot read turns that off silently."""
    hints = get_type_hints(node.func)
    arguments = list(inspect.signature(node.func).parameters)
    for argument, name in zip(arguments, node.inputs, strict=True):
        if name.startswith("params:"):
            assert issubclass(hints[argument], Group), f"{node.name}: {argument}"
            assert hints[argument] is type(GROUPS[name.removeprefix("params:")])


def test_every_node_has_a_name_a_tag_and_a_description() -> None:
    for node in NODES:
        assert node.short_name == node.func.__name__
        assert node.func.__doc__
        assert node.tags
