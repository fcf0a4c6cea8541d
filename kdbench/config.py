"""What is run and what came of it, as frozen types. A run's id hashes the names and values of its config's fields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from kdbench.files import identify

Phase = Literal["teacher", "baseline", "search", "confirm"]
HARD = "hard"
"""The method that every other one is compared with: true labels alone."""
Control = Literal["smoothing", "self", "compute"]
CONTROLS: dict[str, str] = {
    "smoothing": "label smoothing",
    "self": "self-distillation",
    "compute": "longer training on hard labels",
}
"""What else could explain a gain, and how sentences call it: rows of their own beside the methods."""
PHASES: tuple[Phase, ...] = ("teacher", "baseline", "search", "confirm")
Status = Literal["complete", "pruned", "failed"]
Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0, le=2**53)]
Hyper = dict[str, Annotated[float, Field(allow_inf_nan=False)]]
Stem = Literal["native", "small"]
Tune = Literal["head", "full"]
Precision = Literal["auto", "fp32", "bf16"]
Interpolation = Literal["bilinear", "bicubic", "random"]
Aspect = Annotated[float, Field(gt=0, allow_inf_nan=False)]
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)
"""Of RandomResizedCrop, as Inception was trained (arXiv:1409.4842)."""


def is_default(default: object) -> Callable[[object], bool]:
    """Leaves a field out of dumps at its default: a field added later must not change the ids of earlier runs."""
    return lambda value: value == default


unset = is_default(None)


class Frozen(BaseModel):
    """Base of all types here: immutable, no unknown fields, docstrings of fields as their descriptions."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True)
class Flag:
    """Beside a field's type: the field is an option of the command line, and its docstring the help."""

    panel: str
    """Heading under which ``--help`` lists it."""
    metavar: str = ""
    """What its value is called; empty: its choices, or its type."""
    shown: str = ""
    """The default in words, where the field's own is None or long."""
    sets: tuple[str, ...] = ()
    """Dotted keys that mean the same; of several, each can be set on its own."""
    repeated: bool = False
    """May be given several times."""


class DataConfig(Frozen):
    """Which samples a run sees. Part of a run's identity; never a path."""

    name: str
    """Catalog name, ``hf:name``, or ``folder:<last part of the path>`` whose content is told by ``digest``."""
    val_fraction: float = Field(0.1, gt=0, lt=1)
    """Share of the training set held out, per class, for selection."""
    split_seed: int = 0
    """Seed of the stratified cut, the same for every run of a sweep."""
    limit: int | None = Field(None, ge=20)
    """Use only this many training samples (stratified), for rehearsals."""
    digest: str | None = None
    """Digest of a user's own data (names and content of the images), so that other bytes are another run."""
    train_classes: tuple[int, ...] | None = Field(default=None, exclude_if=unset)
    """The transfer set: only these classes are trained on; all else stays whole (Hinton et al. 2015, section 3)."""
    channels: Literal[3] | None = Field(default=None, exclude_if=unset)
    """Grey images as this many equal channels, for networks made for colour."""
    validate_on: Literal["train", "test"] = Field(default="train", exclude_if=is_default("train"))
    """``test``: nothing is held out, every epoch is measured on the test split, as many published protocols do. Only
    for repeating one at settings fixed beforehand: a choice made by it would be one made on test."""
    skip_corrupt: bool = Field(default=False, exclude_if=is_default(False))
    """Leave out images that cannot be decoded instead of refusing the data."""


class Recipe(Frozen):
    """How a network is trained: everything but the loss and the seed."""

    epochs: int = Field(15, ge=1)
    batch_size: int = Field(128, ge=1)
    """Samples a step; a last partial batch is dropped when the split is longer than one batch."""
    optimizer: str = "sgd"
    """SGD with Nesterov momentum, AdamW, or any other name of ``timm.optim`` (``lamb``, ``rmsproptf``, ...)."""
    lr: float = Field(0.1, gt=0, allow_inf_nan=False)
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = True
    weight_decay: float = Field(5e-4, ge=0, allow_inf_nan=False)
    """L2 factor (SGD) or decoupled decay (AdamW); norms and biases are exempt under all but SGD."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """Learning rate after warm-up."""
    milestones: tuple[int, ...] = ()
    """Epochs after which ``step`` multiplies the rate by ``gamma``."""
    gamma: float = Field(0.1, gt=0, le=1)
    """Factor of ``step``."""
    warmup_epochs: float = Field(1.0, ge=0, allow_inf_nan=False)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    clip_grad: float | None = Field(None, gt=0, allow_inf_nan=False)
    """Largest global gradient norm."""
    pad: int = Field(4, ge=0)
    """Pixels of zero border for the random crop (0: no crop)."""
    flip: bool | None = None
    """Random mirror image; None follows the data set."""
    input_size: int | None = Field(None, ge=8)
    """Pixels of a side of a view; None follows the data set."""
    stem: Stem = "native"
    """``small`` removes the stem's stride and max-pool, for small images."""
    precision: Precision = "auto"
    """``auto`` is replaced, by a rule of the device, before a run is identified."""
    views: Literal["crop", "resized-crop"] = "crop"
    """Augmentation: pad-crop (+ flip), or RandomResizedCrop (+ flip) for large images."""
    max_norm: float | None = Field(default=None, gt=0, allow_inf_nan=False, exclude_if=unset)
    """Largest L2 norm of the weights that enter a hidden unit (arXiv:1207.0580); see ``max_norm_weights``."""
    model_options: Hyper = Field(default_factory=dict, exclude_if=is_default({}))
    """Further arguments of the network's constructor, such as ``drop_rate``."""
    min_lr: float | None = Field(default=None, ge=0, allow_inf_nan=False, exclude_if=unset)
    """Where the cosine ends; None: a thousandth of ``lr``."""
    warmup_lr: float | None = Field(default=None, ge=0, allow_inf_nan=False, exclude_if=unset)
    """Where warm-up starts; None: a thousandth of ``lr``."""
    layer_decay: float | None = Field(default=None, gt=0, le=1, exclude_if=unset)
    """Factor of the rate from each layer to the one before it (timm's groups of parameters)."""
    freeze: int | None = Field(default=None, ge=1, exclude_if=unset)
    """Of a network that starts from weights: so many groups of layers (timm's: the stem is the first, then the stages)
    stay as they are, their norms in eval mode."""
    accumulate: int = Field(default=1, ge=1, exclude_if=is_default(1))
    """Batches whose gradients are averaged into one update."""
    ema: float | None = Field(default=None, gt=0, lt=1, exclude_if=unset)
    """Decay, an update, of a moving average of weights and buffers, which is then what is measured and kept.

    After n updates it is at most 1 - n^(-2/3), as with timm's ``--model-ema-warmup``."""
    bce: bool = Field(default=False, exclude_if=is_default(False))
    """The hard term is binary cross-entropy, averaged over the classes (arXiv:2110.00476)."""
    bce_threshold: float | None = Field(default=None, ge=0, lt=1, exclude_if=unset)
    """Targets of ``bce`` above it count as 1, all others as 0."""
    crop_scale: tuple[Share, Share] = Field(default=SCALE, exclude_if=is_default(SCALE))
    """Share of the image's area that ``resized-crop`` cuts out."""
    crop_ratio: tuple[Aspect, Aspect] = Field(default=RATIO, exclude_if=is_default(RATIO))
    """Its width / height."""
    interpolation: Interpolation = Field(default="bilinear", exclude_if=is_default("bilinear"))
    """How ``resized-crop`` and ``augment`` resample; random: either."""
    augment: str | None = Field(default=None, exclude_if=unset)
    """RandAugment, AutoAugment or AugMix after the crop, as timm writes it: ``rand-m7-mstd0.5-inc1``."""
    erase: Share = Field(default=0.0, exclude_if=is_default(0.0))
    """Probability of random erasing (one box of noise, arXiv:1708.04896)."""
    repeats: int = Field(default=1, ge=1, exclude_if=is_default(1))
    """Repeated augmentation: so many views of a sample in a batch, of as many fewer samples an epoch."""
    mixup: float = Field(default=0.0, ge=0, allow_inf_nan=False, exclude_if=is_default(0.0))
    """Alpha of mixup's Beta distribution, one draw a batch (arXiv:1710.09412). The teacher sees the mixture."""
    cutmix: float = Field(default=0.0, ge=0, allow_inf_nan=False, exclude_if=is_default(0.0))
    """Alpha of cutmix, likewise (arXiv:1905.04899)."""
    mix_switch: Share = Field(default=0.5, exclude_if=is_default(0.5))
    """Probability of cutmix where both are on."""
    test_crop: float | None = Field(default=None, gt=0, le=1, exclude_if=unset)
    """Share of a side that validation and test images show, where they are resized; None: 0.875 from 160 pixels on."""
    network_size: int | None = Field(default=None, ge=8, exclude_if=unset)
    """Pixels of a side at which the network sees a view, resampled; None: as many as the view has."""
    network_interpolation: Literal["bilinear", "bicubic"] = Field(default="bilinear", exclude_if=is_default("bilinear"))
    """How ``network_size`` resamples."""
    mean: tuple[float, ...] | None = Field(default=None, exclude_if=unset)
    """What normalisation subtracts from pixels in [0, 1], by channel; None follows the data set. Three of them show
    grey images in colour."""
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(default=None, exclude_if=unset)
    """What it then divides by."""
    teacher_top_k: int | None = Field(default=None, ge=1, exclude_if=unset)
    """Only so many of the teacher's largest logits guide the student; other classes share the rest evenly. Its record
    of 1,000 classes is then a tenth (K = 50) on disk."""
    stop_at: int | None = Field(default=None, ge=1, exclude_if=unset)
    """A teacher's training ends after this epoch, in the middle of its schedule (arXiv:1910.01348)."""

    @property
    def last_epoch(self) -> int:
        """How many epochs are trained."""
        return self.stop_at or self.epochs

    @field_validator("crop_scale", "crop_ratio")
    @classmethod
    def _ascending(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError(f"give a range above 0, smallest first, not {value[0]:g} to {value[1]:g}")
        return value


TUNABLE = ("lr", "weight_decay", "label_smoothing")
"""Fields of a recipe that a sweep can search, for hard labels as for each method."""


class RunConfig(Frozen):
    """One training run, whole. Its ``id`` is the hash of this and nothing else."""

    data: DataConfig
    model: str
    """timm name of the network trained; of a mean of several runs' networks their names, joined by ``+``."""
    teacher: str | None = None
    """Who teaches, as ``written`` says; None when a teacher is trained that nobody teaches."""
    teacher_id: str | None = None
    """Id of the teacher's own run or weights; of a mean of several runs their ids, joined by ``+``."""
    method: str = "hard"
    method_version: int = Field(default=1, exclude_if=is_default(1))
    hyper: Hyper = Field(default_factory=dict)
    """The method's hyper-parameters (temperature, alpha, ...)."""
    recipe: Recipe
    seed: int = Field(ge=-(2**63), lt=2**63)
    """Seed of initialisation, order and augmentation."""
    phase: Phase
    """Only ``confirm`` reads the test split (and ``teacher``, in confirm, its own)."""
    start: str | None = Field(default=None, exclude_if=unset)
    """What identifies the weights that training starts from, with a new classifier; None: random ones."""
    tune: Tune = Field(default="full", exclude_if=is_default("full"))
    """``head``: of those weights all but the classifier stay as they are, in eval mode (a linear probe)."""
    control: Control | None = Field(default=None, exclude_if=unset)
    """Which control it is of: ``smoothing`` and ``compute`` train on hard labels, ``self`` by kd."""
    replicate: Count = Field(default=0, exclude_if=is_default(0))
    """Of several teachers or searches the one it belongs to; hard labels and controls belong to the first, 0."""

    @property
    def condition(self) -> str:
        """What tables call it: the control, else the method."""
        return self.control or self.method

    @property
    def given(self) -> bool:
        """Whether nothing is trained: the weights are somebody's, or those of other runs."""
        return self.teacher is None and self.teacher_id is not None

    @property
    def averaged(self) -> tuple[str, ...]:
        """Ids of the runs whose networks' mean it is; empty for a network of its own."""
        return tuple(str(self.teacher_id).split("+")) if "+" in self.model else ()

    @property
    def written(self) -> str:
        """A teacher as ``--pair`` writes it: ``resnet50>resnet18``, ``resnet50@5``."""
        own = self.model if self.recipe.stop_at is None else f"{self.model}@{self.recipe.stop_at}"
        return own if self.teacher is None else f"{self.teacher}>{own}"

    @cached_property
    def id(self) -> str:
        """12 hexadecimal digits; equal ids are the same run. A folder is its images, wherever it lies."""
        plain = self.model_dump(mode="json")
        if self.data.name.startswith("folder:") and self.data.digest is not None:
            plain["data"]["name"] = "folder"
            plain["data"].pop("skip_corrupt", None)
        return identify(plain)


class EpochLog(Frozen):
    """One line of metrics.jsonl: losses and divergences in nats, accuracies as fractions; ``epoch`` counts from 1."""

    epoch: int
    lr: float
    train_loss: float
    train_acc: float
    """Accuracy on the augmented training batches as they were trained on."""
    val_loss: float
    val_acc: float
    val_kl: float | None = None
    """KL(teacher ‖ student) at T = 1 on validation, averaged over samples."""
    val_agreement: float | None = None
    """Share of validation samples on which student and teacher predict the same class."""
    seconds: float = 0.0
    """Wall-clock seconds of this epoch, evaluation included."""
    parts: dict[str, float] = Field(default_factory=dict)
    """Mean of each part of the loss (``soft``, ``hard``, ...), unweighted."""


class RunResult(Frozen):
    """What a run came to; written last, so that its presence means the run is whole."""

    id: str
    status: Status
    val_acc: Share | None = None
    best_val_acc: Share | None = None
    test_acc: Share | None = None
    """Test accuracy after the last epoch; only in the confirm phase."""
    test_top5: Share | None = None
    """Top-5 test accuracy, with more than 10 classes."""
    nll: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Mean negative log-likelihood (nats) on test in confirm, else on validation."""
    ece: Share | None = None
    """Expected calibration error, 15 equal-width bins (Guo et al. 2017), same split as ``nll``."""
    reliability: tuple[tuple[int, float, int], ...] | None = Field(default=None, exclude_if=unset)
    """(samples, sum of confidences, correct) in each of the bins of ``ece``; only in the confirm phase."""
    calibration_temperature: Annotated[float, Field(gt=0)] | None = Field(default=None, exclude_if=unset)
    """What divides the logits for ``scaled_nll`` and ``scaled_ece``, fitted on validation; in the confirm phase."""
    scaled_nll: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(default=None, exclude_if=unset)
    scaled_ece: Share | None = Field(default=None, exclude_if=unset)
    """``nll`` and ``ece`` on test after temperature scaling (Guo et al. 2017)."""
    shifted: dict[str, Share] = Field(default_factory=dict, exclude_if=is_default({}))
    """Accuracy on each of the further test sets of ``--also-test``, read once, after the last epoch; in confirm."""
    agreement: Share | None = None
    """Share of samples predicted as the teacher does, same split as ``nll``."""
    params: Count = 0
    """Trainable parameters, at this data set's classes and channels."""
    macs: Count = 0
    """Of one forward pass of one image."""
    epochs: Count = 0
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    """Wall-clock seconds over all attempts."""
    attempts: Count = 1
    """Starts it took (2 after one interruption)."""
    hardware: str = ""
    """Device and threads, e.g. ``cpu:AMD EPYC:2 threads``."""
    wandb_run: str | None = None
    """Id of the last attempt's W&B run."""
    error: str | None = None
    weights: str | None = Field(default=None, exclude_if=unset)
    """SHA-256 of the weights' file, where the weights were kept."""
