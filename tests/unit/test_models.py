"""Building networks: seeds, input sizes, stems and costs."""

from __future__ import annotations

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from kdbench.errors import BadInput
from kdbench.models import apply_small_stem, build, count_macs, count_params, deployed, known_models, latencies
from kdbench.models.build import MIN_TOKENS, fit_to, patch_for


def test_a_seed_fixes_the_weights_whatever_the_global_state() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one = build("test_vit", classes=7, channels=3, input_size=32, seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    two = build("test_vit", classes=7, channels=3, input_size=32, seed=5).state_dict()
    other = build("test_vit", classes=7, channels=3, input_size=32, seed=6).state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])


@pytest.mark.parametrize("name", ["test_resnet", "no_such_model"])
def test_the_global_state_survives_errors_and_seedless_builds(name: str) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    if name in known_models():
        first = build(name, classes=4, channels=3, input_size=32)
        torch.set_rng_state(before)
        again = build(name, classes=4, channels=3, input_size=32)
        assert torch.equal(first.fc.weight, again.fc.weight)
        assert not torch.equal(torch.get_rng_state(), before)
    else:
        with pytest.raises(BadInput):
            build(name, classes=4, channels=3, input_size=32, seed=0)
        assert torch.equal(torch.get_rng_state(), before)


def test_mobilenet_sizes_are_the_known_ones() -> None:
    sizes = [
        count_params(build(f"mobilenetv3_{m}", classes=100, channels=3, input_size=32))
        for m in ("small_050", "small_075", "small_100", "large_075", "large_100")
    ]
    assert [round(n / 1e6, 2) for n in sizes] == [0.67, 1.12, 1.62, 2.84, 4.33]


@given(st.sampled_from([8, 14, 16, 32]), st.integers(8, 256))
def test_patches_leave_enough_tokens(native: int, size: int) -> None:
    patch, half = patch_for(native, size, "native"), patch_for(native, size, "small")
    assert patch <= native and size % patch == 0 and (size // patch) ** 2 >= MIN_TOKENS
    assert half == (patch // 2 if patch % 2 == 0 else patch) and size % half == 0
    larger = [p for p in (1, 2, 4, 8, 16, 32) if patch < p < native and size % p == 0 and (size // p) ** 2 >= 16]
    assert patch == native or not larger


def test_sizes_that_need_no_change_get_none() -> None:
    assert fit_to("vit_tiny_patch16_224", 224, "native").options == {"img_size": 224}
    assert fit_to("vit_tiny_patch16_224", 32, "native").options == {"img_size": 32, "patch_size": 8}
    assert fit_to("vit_tiny_patch16_224", 32, "small").options == {"img_size": 32, "patch_size": 4}
    assert fit_to("levit_128s", 224, "native") == ({"img_size": 224}, 0, False)
    assert fit_to("levit_128s", 32, "native") == ({"img_size": 64}, 1, False)
    assert fit_to("swiftformer_xs", 224, "native") == ({}, 0, False)
    assert fit_to("resnet18", 32, "native") == ({}, 0, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet5O"}, "unknown model 'resnet5O': did you mean 'resnet50'"),
        ({"stem": "tiny"}, "unknown stem 'tiny'"),
        ({"name": "resnet18", "options": {"drop_rte": 0.1}}, "no option 'drop_rte' .*: did you mean 'drop_rate'"),
        ({"name": "mobilenetv3_small_050", "options": {"z": 1}}, "no option 'z' .*; it has .*drop_path_rate"),
        ({"name": "efficientformer_l1"}, "'efficientformer_l1' cannot take 32x32 images"),
        ({"name": "inception_v3"}, "cannot take 32x32 images .* larger recipe.input_size"),
        ({"name": "swiftformer_xs"}, "attention is made for 224 pixels"),
        ({"name": "mobilenetv5_300m_enc", "input_size": 64}, "no plain classifier"),
        ({"name": "vgg11", "stem": "small", "input_size": 64}, "no strided convolution"),
    ],
)
def test_what_cannot_be_built_says_so(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(BadInput, match=message), torch.device("meta"):
        build(**{"name": "test_resnet", "classes": 10, "channels": 3, "input_size": 32} | arguments)  # type: ignore[arg-type]


SIZES = {
    "resnet18": (1, 4),
    "resnetv2_50": (1, 4),
    "mobilenetv3_small_050": (1, 2),
    "convnextv2_atto": (1, 2),
    "densenet121": (1, 4),
    "efficientformerv2_s0": (1, 2),
}


@pytest.mark.parametrize("name", SIZES)
def test_final_maps_of_32_pixels(name: str) -> None:
    with torch.device("meta"):
        x = torch.zeros(1, 3, 32, 32)
        sides = [
            build(name, classes=10, channels=3, input_size=32, stem=stem).eval().forward_features(x).shape[-1]
            for stem in ("native", "small")
        ]
    assert tuple(sides) == SIZES[name]


@pytest.mark.parametrize("name", ["repvgg_a0", "mobileone_s1"])
def test_branches_still_fold_after_the_small_stem(name: str) -> None:
    model = build(name, classes=10, channels=3, input_size=32, stem="small", seed=0).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        folded = deployed(model)
        torch.testing.assert_close(folded(x), model(x), rtol=1e-4, atol=1e-4)
    assert (
        count_params(model) == sum(p.numel() for p in folded.parameters()) < sum(p.numel() for p in model.parameters())
    )


def test_the_stem_is_changed_in_place_and_nothing_else_is() -> None:
    model = timm.create_model("resnet18")
    strides = {n: m.stride for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    assert apply_small_stem(model) is model
    after = {n: m.stride for n, m in model.named_modules() if isinstance(m, nn.Conv2d)}
    assert {n for n in strides if strides[n] != after[n]} == {"conv1"} and after["conv1"] == (1, 1)
    assert isinstance(model.maxpool, nn.Identity) and model.conv1.padding == (3, 3)


def test_params_and_macs_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
    model[0].bias.requires_grad_(False)  # type: ignore[union-attr]
    assert count_params(model) == 3 * 8 * 9 + 16 + 512 * 10 + 10
    model.train()
    assert count_macs(model, 3, 8) == 8 * 8 * 3 * 8 * 9 + 512 * 10
    assert model.training and int(model[1].num_batches_tracked) == 0  # type: ignore[arg-type]
    resnet = build("resnet18", classes=1000, channels=3, input_size=224)
    assert count_macs(resnet, 3, 224) == pytest.approx(1.814e9, rel=0.01)  # as published: 1.8 billion
    assert count_params(resnet) == 11_689_512


def test_latencies_of_several_networks() -> None:
    names = ("test_efficientnet", "hinton_mlp_30", "repvgg_a0")
    models = {name: build(name, classes=10, channels=1, input_size=32, seed=0) for name in names}
    found = latencies(models, dict.fromkeys(names, (1, 32)), torch.device("cpu"), rounds=5, warmup=1)
    assert list(found) == list(names) and all(0 < each.p10 <= each.ms <= each.p90 < 10_000 for each in found.values())
    assert found["hinton_mlp_30"].ms < found["repvgg_a0"].ms
    assert any(hasattr(m, "conv_1x1") for m in models["repvgg_a0"].modules())  # the network itself keeps its branches


def test_attention_counts_and_its_fused_form_is_put_back() -> None:
    """timm's vit_tiny at 224 px: 1.254 G multiply-accumulates with every product of the attention."""
    model = build("vit_tiny_patch16_224", classes=1000, channels=3, input_size=224, stem="native", seed=0)
    fused = [module.fused_attn for module in model.modules() if hasattr(module, "fused_attn")]
    assert count_macs(model, 3, 224) / 1e9 == pytest.approx(1.254, abs=0.002)
    assert [module.fused_attn for module in model.modules() if hasattr(module, "fused_attn")] == fused
