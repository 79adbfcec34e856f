"""Table of the sources of images, one line per source."""

from ddpm_kedro.errors import UserError, nearest
from ddpm_kedro.ingestion.array_file import ArrayFileSource
from ddpm_kedro.ingestion.hugging_face import HuggingFaceSource
from ddpm_kedro.ingestion.image_files import ImageFileSource
from ddpm_kedro.ingestion.small_sets import DIGITS, MlxtendDigits
from ddpm_kedro.ingestion.source import Source
from ddpm_kedro.ingestion.torchvision_sets import TorchvisionArrays, TorchvisionFiles

SOURCES: dict[str, Source] = {
    "folder": ImageFileSource(),
    "archive": ImageFileSource(),
    "array": ArrayFileSource(),
    "huggingface": HuggingFaceSource(),
    "mnist5k": MlxtendDigits(),
    "cifar10": TorchvisionArrays("CIFAR10"),
    "cifar100": TorchvisionArrays("CIFAR100"),
    "mnist": TorchvisionArrays("MNIST", class_names=DIGITS),
    "fashion_mnist": TorchvisionArrays("FashionMNIST"),
    "kmnist": TorchvisionArrays("KMNIST"),
    "svhn": TorchvisionArrays(
        "SVHN", (("split", "train"),), (("split", "test"),), labels="labels", channels_first=True, class_names=DIGITS
    ),
    "caltech101": TorchvisionFiles("Caltech101", (), None),
    "dtd": TorchvisionFiles("DTD"),
    "eurosat": TorchvisionFiles("EuroSAT", (), None),
    "fgvc_aircraft": TorchvisionFiles("FGVCAircraft", (("split", "trainval"),)),
    "flowers102": TorchvisionFiles("Flowers102"),
    "food101": TorchvisionFiles("Food101"),
    "gtsrb": TorchvisionFiles("GTSRB"),
    "imagenet": TorchvisionFiles("ImageNet", test=(("split", "val"),)),  # to be downloaded by hand
    "imagenette": TorchvisionFiles(
        "Imagenette", (("split", "train"), ("size", "160px")), (("split", "val"), ("size", "160px"))
    ),
    "oxford_iiit_pet": TorchvisionFiles("OxfordIIITPet", (("split", "trainval"),)),
    "stanford_cars": TorchvisionFiles("StanfordCars"),  # to be downloaded by hand
    "stl10": TorchvisionFiles("STL10"),
}


def find_source(name: str) -> Source:
    """Return the source of that name.

    Raises:
        UserError: for an unknown name; the message suggests similar names.
    """
    if name not in SOURCES:
        raise UserError(f"Unknown dataset.source '{name}'. {nearest(name, list(SOURCES))}")
    return SOURCES[name]
