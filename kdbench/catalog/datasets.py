"""The data sets that kdbench knows by name: what is fixed about each before a byte is read.

Means and standard deviations are those commonly published for the training split, pixels in [0, 1]. A third
party adds a data set through the entry point group ``kdbench.datasets``; its bytes are then looked for under
``$KDBENCH_DATA/<name>``, as IDX files or as one folder a class.
"""

from __future__ import annotations

from kdbench.catalog.registry import Registry
from kdbench.catalog.types import DatasetSpec

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_SPECS = (
    DatasetSpec(
        name="digits",
        classes=10,
        shape=(1, 8, 8),
        mean=(0.3053,),
        std=(0.3760,),
        flip=False,
        fit="resize",
        sizes={"train": 1438, "test": 359},
        teacher_floor=0.97,
        license="CC BY 4.0 (UCI)",
        source="bundled with scikit-learn (UCI optical recognition of handwritten digits, its test part); "
        "test is a fixed stratified fifth",
    ),
    DatasetSpec(
        name="mnist",
        classes=10,
        shape=(1, 28, 28),
        mean=(0.1307,),
        std=(0.3081,),
        flip=False,
        fit="pad",
        sizes={"train": 60_000, "test": 10_000},
        teacher_floor=0.985,
        license="CC BY-SA 3.0",
        source="LeCun, Cortes, Burges; IDX files, or torchvision's download",
    ),
    DatasetSpec(
        name="fashion-mnist",
        classes=10,
        shape=(1, 28, 28),
        mean=(0.2860,),
        std=(0.3530,),
        flip=True,
        fit="pad",
        sizes={"train": 60_000, "test": 10_000},
        teacher_floor=0.91,
        license="MIT",
        source="Xiao, Rasul, Vollgraf 2017; IDX files (Debian: dataset-fashion-mnist), or torchvision's download",
        labels=("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"),
    ),
    DatasetSpec(
        name="kmnist",
        classes=10,
        shape=(1, 28, 28),
        mean=(0.1918,),
        std=(0.3483,),
        flip=False,
        fit="pad",
        sizes={"train": 60_000, "test": 10_000},
        teacher_floor=0.97,
        license="CC BY-SA 4.0",
        source="Clanuwat et al. 2018; IDX files, or torchvision's download",
    ),
    DatasetSpec(
        name="cifar10",
        classes=10,
        shape=(3, 32, 32),
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        sizes={"train": 50_000, "test": 10_000},
        teacher_floor=0.90,
        license="none stated",
        source="Krizhevsky 2009; the binary version, or torchvision's download",
    ),
    DatasetSpec(
        name="cifar100",
        classes=100,
        shape=(3, 32, 32),
        mean=(0.5071, 0.4867, 0.4408),
        std=(0.2675, 0.2565, 0.2761),
        sizes={"train": 50_000, "test": 10_000},
        teacher_floor=0.70,
        license="none stated",
        source="Krizhevsky 2009; the binary version (fine labels), or torchvision's download",
    ),
    DatasetSpec(
        name="svhn",
        classes=10,
        shape=(3, 32, 32),
        mean=(0.4377, 0.4438, 0.4728),
        std=(0.1980, 0.2010, 0.1970),
        flip=False,
        sizes={"train": 73_257, "test": 26_032},
        teacher_floor=0.90,
        license="non-commercial use only",
        source="Netzer et al. 2011, cropped digits without `extra`; torchvision",
    ),
    DatasetSpec(
        name="stl10",
        classes=10,
        shape=(3, 96, 96),
        mean=(0.4467, 0.4398, 0.4066),
        std=(0.2603, 0.2566, 0.2713),
        sizes={"train": 5_000, "test": 8_000},
        input_size=96,
        teacher_floor=0.60,
        license="as ImageNet's: research and education",
        source="Coates, Lee, Ng 2011, labelled part; torchvision",
    ),
    DatasetSpec(
        name="imagenette",
        classes=10,
        shape=(3, 160, 160),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        sizes={"train": 9_469, "test": 3_925},
        input_size=128,
        teacher_floor=0.70,
        license="as ImageNet's: research and education",
        source="fast.ai, version 2, 160 px; its val is the test split; a folder, or torchvision's download",
    ),
    DatasetSpec(
        name="tiny-imagenet",
        classes=200,
        shape=(3, 64, 64),
        mean=(0.4802, 0.4481, 0.3975),
        std=(0.2770, 0.2691, 0.2821),
        sizes={"train": 100_000, "test": 10_000},
        input_size=64,
        teacher_floor=0.45,
        license="as ImageNet's: research and education",
        source="Stanford CS231n's tiny-imagenet-200, unpacked; its val is the test split",
    ),
    DatasetSpec(
        name="imagenet-1k",
        classes=1000,
        shape=(3, 224, 224),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        sizes={"train": 1_281_167, "test": 50_000},
        input_size=224,
        teacher_floor=0.60,
        license="research and education, terms at image-net.org",
        source="ILSVRC 2012 as train/ and val/ with one folder a class; its val is the test split",
    ),
)

DATASETS: Registry[DatasetSpec] = Registry(
    "dataset", {spec.name: spec for spec in _SPECS}, group="kdbench.datasets", accepts=DatasetSpec
)

IDX_FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}
"""Names of the IDX files of a split, images first; each may also end in ``.gz``."""

CHECKSUMS: dict[str, dict[str, str]] = {
    "mnist": {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    },
    "fashion-mnist": {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    },
    "kmnist": {
        "train-images-idx3-ubyte.gz": "bdb82020997e1d708af4cf47b453dcf7",
        "train-labels-idx1-ubyte.gz": "e144d726b3acfaa3e44228e80efcd344",
        "t10k-images-idx3-ubyte.gz": "5c965bf0a639b31b8f53240b1b52f4d7",
        "t10k-labels-idx1-ubyte.gz": "7320c461ea6c1c855c0b718fb2a4b134",
    },
    "cifar10": {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
    "cifar100": {
        "train": "16019d7e3df5f24257cddd939b257f8d",
        "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
    },
}
"""MD5 by data set and file. A name without ``.gz`` is the unpacked content: a repacked file (Debian's) passes."""
