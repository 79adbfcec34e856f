"""Where images come from: one table, one line a source."""

from ddpm_kedro.images.arrays import ArrayPictures
from ddpm_kedro.images.hugging_face import HuggingFace
from ddpm_kedro.images.named import DIGITS, MlxtendDigits, Torchvision
from ddpm_kedro.images.own import OwnPictures
from ddpm_kedro.images.source import Source
from ddpm_kedro.images.torchvisions import TorchvisionPictures
from ddpm_kedro.parameters import UserError, nearest

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
