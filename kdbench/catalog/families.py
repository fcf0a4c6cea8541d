"""Student families: timm models of one design, smallest first."""

from __future__ import annotations

import warnings
from functools import cached_property

from kdbench.catalog.registry import Registry
from kdbench.catalog.types import Family

_TABLE = """
mobilenetv3: phones and embedded CPUs; squeeze-excite, hard-swish
  mobilenetv3_small_050 mobilenetv3_small_075 mobilenetv3_small_100 mobilenetv3_large_075 mobilenetv3_large_100
mobilenetv4: phones with CPU, DSP or NPU: plain convolutions, no squeeze-excite
  mobilenetv4_conv_small_035 mobilenetv4_conv_small_050 mobilenetv4_conv_small mobilenetv4_conv_medium
mobilenetv2: the widest support of converters and micro-controllers
  mobilenetv2_035 mobilenetv2_050 mobilenetv2_075 mobilenetv2_100 mobilenetv2_140
efficientnet: servers and phones; compound scaling
  efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3
efficientnet-lite: integer accelerators: no squeeze-excite, ReLU6
  efficientnet_lite0 efficientnet_lite1 efficientnet_lite2 efficientnet_lite3 efficientnet_lite4
resnet-small: GPUs and NPUs: dense convolutions
  resnet10t resnet14t resnet18 resnet26 resnet34
regnety: GPUs; group convolutions
  regnety_002 regnety_004 regnety_006 regnety_008 regnety_016
convnextv2: GPUs; large depthwise kernels, layer norm
  convnextv2_atto convnextv2_femto convnextv2_pico convnextv2_nano convnextv2_tiny
ghostnet: CPUs of phones; cheap feature maps
  ghostnet_050 ghostnet_100 ghostnet_130
repvgg: accelerators that like plain 3x3 convolutions
  repvgg_a0 repvgg_a1 repvgg_a2
mobileone: phones; branches fold into one
  mobileone_s1 mobileone_s2 mobileone_s3
vit: GPUs; plain vision transformers
  vit_tiny_patch16_224 vit_small_patch16_224
deit: GPUs; transformers with a distillation token
  deit_tiny_distilled_patch16_224 deit_small_distilled_patch16_224
levit: CPUs; attention after a conv stem
  levit_128s levit_128 levit_192 levit_256 levit_384
cifar-resnet: the ResNets of the CIFAR-100 tables; made for 32 pixels
  cifar_resnet20 cifar_resnet32 cifar_resnet56 cifar_resnet8x4 cifar_resnet110
cifar-wrn: the wide ResNets of the same tables
  cifar_wrn_40_1 cifar_wrn_16_2
hinton-mlp: two hidden layers, as Hinton et al. 2015
  hinton_mlp_30 hinton_mlp_300 hinton_mlp_800
hinton-mlp-narrow: the same with few units, for many runs on a CPU
  hinton_mlp_30 hinton_mlp_60 hinton_mlp_120
test-tiny: timm's test models, for CI only
  test_efficientnet test_byobnet test_vit test_resnet
"""
_LINES = _TABLE.strip().split("\n")

BUILTIN: tuple[Family, ...] = tuple(
    Family(name=head.split(": ", 1)[0], note=head.split(": ", 1)[1], models=tuple(models.split()))
    for head, models in zip(_LINES[::2], _LINES[1::2], strict=True)
)


class _Families(Registry[Family]):
    """Families of the group ``kdbench.families``, and of the group ``kdbench.ladders`` that went before it."""

    @cached_property
    def entries(self) -> dict[str, Family]:
        older = Registry("student", {}, "kdbench.ladders", Family).entries
        if older:
            warnings.warn("the group kdbench.ladders is now kdbench.families", DeprecationWarning, stacklevel=2)
        found = super().entries
        return found | {name: family for name, family in older.items() if name not in found}


FAMILIES = _Families("student", {family.name: family for family in BUILTIN}, "kdbench.families", Family)
