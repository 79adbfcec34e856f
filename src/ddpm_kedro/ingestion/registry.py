"""Where images come from: one table, one line a source."""

from ddpm_kedro.errors import UserError, nearest
from ddpm_kedro.ingestion.array_file import ArrayPictures
from ddpm_kedro.ingestion.hugging_face import HuggingFace
from ddpm_kedro.ingestion.image_files import OwnPictures
from ddpm_kedro.ingestion.small_sets import DIGITS, MlxtendDigits, Torchvision
from ddpm_kedro.ingestion.source import Source
from ddpm_kedro.ingestion.torchvision_files import TorchvisionPictures

SOURCES: dict[str, Source] = {
    "folder": OwnPictures(),
    "archive": OwnPictures(),
    "array": ArrayPictures(),
    "huggingface": HuggingFace(),
    "mnist5k": MlxtendDigits(),
    "cifar10": Torchvision("CIFAR10"),
    "cifar100": Torchvision("CIFAR100"),
    "mnist": Torchvision("MNIST", class_names=DIGITS),
    "fashion_mnist": Torchvision("FashionMNIST"),
    "kmnist": Torchvision("KMNIST"),
    "svhn": Torchvision(
        "SVHN",
        {"split": "train"},
        {"split": "test"},
        labels="labels",
        channels_first=True,
        class_names=DIGITS,
    ),
    "caltech101": TorchvisionPictures("Caltech101", (), None),
    "dtd": TorchvisionPictures("DTD"),
    "eurosat": TorchvisionPictures("EuroSAT", (), None),
    "fgvc_aircraft": TorchvisionPictures("FGVCAircraft", (("split", "trainval"),)),
    "flowers102": TorchvisionPictures("Flowers102"),
    "food101": TorchvisionPictures("Food101"),
    "gtsrb": TorchvisionPictures("GTSRB"),
    "imagenet": TorchvisionPictures("ImageNet", test=(("split", "val"),)),  # to be brought by hand
    "imagenette": TorchvisionPictures(
        "Imagenette", (("split", "train"), ("size", "160px")), (("split", "val"), ("size", "160px"))
    ),
    "oxford_iiit_pet": TorchvisionPictures("OxfordIIITPet", (("split", "trainval"),)),
    "stanford_cars": TorchvisionPictures("StanfordCars"),  # to be brought by hand
    "stl10": TorchvisionPictures("STL10"),
}


def source_named(name: str) -> Source:
    """The source of that name.

    Raises:
        UserError: with the nearest names.
    """
    if name not in SOURCES:
        raise UserError(f"Unknown dataset.source '{name}'. {nearest(name, list(SOURCES))}")
    return SOURCES[name]
