"""Student families: timm models of one design, smallest first."""

from __future__ import annotations

from kdbench.catalog.registry import Registry
from kdbench.catalog.types import Ladder


def _ladder(name: str, models: str, note: str) -> Ladder:
    return Ladder(name=name, models=tuple(models.split()), note=note)


BUILTIN: tuple[Ladder, ...] = (
    _ladder(
        "mobilenetv3",
        "mobilenetv3_small_050 mobilenetv3_small_075 mobilenetv3_small_100 mobilenetv3_large_075 mobilenetv3_large_100",
        "phones and embedded CPUs; squeeze-excite, hard-swish",
    ),
    _ladder(
        "mobilenetv4",
        "mobilenetv4_conv_small_035 mobilenetv4_conv_small_050 mobilenetv4_conv_small mobilenetv4_conv_medium",
        "phones with CPU, DSP or NPU: plain convolutions, no squeeze-excite",
    ),
    _ladder(
        "mobilenetv2",
        "mobilenetv2_035 mobilenetv2_050 mobilenetv2_075 mobilenetv2_100 mobilenetv2_140",
        "the widest support of converters and micro-controllers",
    ),
    _ladder(
        "efficientnet",
        "efficientnet_b0 efficientnet_b1 efficientnet_b2 efficientnet_b3",
        "servers and phones; compound scaling",
    ),
    _ladder(
        "efficientnet-lite",
        "efficientnet_lite0 efficientnet_lite1 efficientnet_lite2 efficientnet_lite3 efficientnet_lite4",
        "integer accelerators: no squeeze-excite, ReLU6",
    ),
    _ladder("resnet-small", "resnet10t resnet14t resnet18 resnet26 resnet34", "GPUs and NPUs: dense convolutions"),
    _ladder("regnety", "regnety_002 regnety_004 regnety_006 regnety_008 regnety_016", "GPUs; group convolutions"),
    _ladder(
        "convnextv2",
        "convnextv2_atto convnextv2_femto convnextv2_pico convnextv2_nano convnextv2_tiny",
        "GPUs; large depthwise kernels, layer norm",
    ),
    _ladder("ghostnet", "ghostnet_050 ghostnet_100 ghostnet_130", "CPUs of phones; cheap feature maps"),
    _ladder("repvgg", "repvgg_a0 repvgg_a1 repvgg_a2", "accelerators that like plain 3x3 convolutions"),
    _ladder("mobileone", "mobileone_s1 mobileone_s2 mobileone_s3", "phones; branches fold into one"),
    _ladder("vit", "vit_tiny_patch16_224 vit_small_patch16_224", "GPUs; plain vision transformers"),
    _ladder(
        "deit",
        "deit_tiny_distilled_patch16_224 deit_small_distilled_patch16_224",
        "GPUs; transformers with a distillation token",
    ),
    _ladder("levit", "levit_128s levit_128 levit_192 levit_256 levit_384", "CPUs; attention after a conv stem"),
    _ladder(
        "cifar-resnet",
        "cifar_resnet20 cifar_resnet32 cifar_resnet56 cifar_resnet8x4 cifar_resnet110",
        "the ResNets of the CIFAR-100 tables; made for 32 pixels",
    ),
    _ladder("cifar-wrn", "cifar_wrn_40_1 cifar_wrn_16_2", "the wide ResNets of the same tables"),
    _ladder("hinton-mlp", "hinton_mlp_30 hinton_mlp_300 hinton_mlp_800", "two hidden layers, as Hinton et al. 2015"),
    _ladder("test-tiny", "test_efficientnet test_byobnet test_vit test_resnet", "timm's test models, for CI only"),
)

LADDERS: Registry[Ladder] = Registry("student", {ladder.name: ladder for ladder in BUILTIN}, "kdbench.ladders", Ladder)
