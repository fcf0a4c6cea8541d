"""Weights fit or are refused: never a silent random head."""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from scipy.stats import gmean
from torch import Tensor, nn

from kdbench.errors import BadInput, MachineFault
from kdbench.models import build, count_params, describe, load_start, load_weights, members, several_in, weights_digest

SHAPE = {"classes": 10, "channels": 1, "input_size": 32, "stem": "native"}


@pytest.fixture(scope="module")
def trained() -> nn.Module:
    return build("test_resnet", seed=11, **SHAPE).eval()  # type: ignore[arg-type]


def load(source: object, **changes: object) -> nn.Module:
    return load_weights("test_resnet", source=str(source), **{**SHAPE, **changes})  # type: ignore[arg-type]


def saved(path: Path, weights: dict[str, Tensor]) -> Path:
    save_file({key: value.contiguous() for key, value in weights.items()}, path)
    return path


def wrapped(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + key: value for key, value in state.items()}


FORMS = {
    "w.safetensors": lambda state, _: state,
    "compiled.safetensors": lambda state, _: wrapped(state, "model._orig_mod."),
    "plain.pth": lambda state, _: state,
    "parallel.pt": lambda state, _: wrapped(state, "module."),
    "averaged.pt": lambda state, _: {"n_averaged": torch.tensor(3), **wrapped(state, "module.")},
    "timm.pth.tar": lambda state, bad: {
        "state_dict": bad,
        "state_dict_ema": state,
        "args": Namespace(lr=0.1),
        "epoch": 3,
    },
    "deit.pth": lambda state, bad: {"model": bad, "model_ema": wrapped(state, "module.")},
    "epoch.pth": lambda state, _: {"state_dict": wrapped(state, "net."), "epoch": 3},
    "lightning.ckpt": lambda state, bad: {
        "state_dict": {**wrapped(state, "model."), "criterion.weight": torch.ones(10), **wrapped(bad, "teacher.")},
        "pytorch-lightning_version": "2.5.0",
        "hyper_parameters": {"lr": 0.1},
    },
    "scores.pth.tar": lambda state, _: {"state_dict": state, "metric": np.float64(98.0), "best": np.float32(98.0)},
}


@pytest.mark.parametrize("form", FORMS)
def test_files_come_back_as_they_were(trained: nn.Module, tmp_path: Path, form: str) -> None:
    """Whatever training wraps names in is taken off, and a moving average comes before what it averages."""
    state = trained.state_dict()
    held = FORMS[form](state, {key: torch.zeros_like(value) for key, value in state.items()})
    if form.endswith("safetensors"):
        saved(tmp_path / form, held)
    else:
        torch.save(held, tmp_path / form)
    x = torch.randn(2, 1, 32, 32)
    for source in (tmp_path / form, f"local-dir:{tmp_path}"):
        if source != tmp_path / form:
            (tmp_path / form).rename(tmp_path / ("model.safetensors" if form.endswith("s") else "pytorch_model.bin"))
        model = load(source)
        with torch.no_grad():
            assert not model.training and torch.equal(model(x), trained(x))


def test_what_is_asked_for_by_its_key_comes_before_the_average(trained: nn.Module, tmp_path: Path) -> None:
    state, path = trained.state_dict(), tmp_path / "timm.pth.tar"
    torch.save({"state_dict": state, "state_dict_ema": {k: 0 * v for k, v in state.items()}}, path)
    assert several_in(str(path)) == f"{path}: its state_dict_ema is used ({path}#state_dict takes the other)"
    assert several_in(f"{path}#state_dict") == several_in("pretrained") == ""
    assert torch.equal(load(f"{path}#state_dict").fc.weight, trained.fc.weight)
    assert not load(path).fc.weight.any()
    assert weights_digest(f"{path}#state_dict", "test_resnet") != weights_digest(str(path), "test_resnet")
    with pytest.raises(BadInput, match="no weights under 'model': it holds state_dict, state_dict_ema"):
        load(f"{path}#model")
    torch.save({f"layer{k}": 0 for k in range(30)}, path)
    with pytest.raises(BadInput, match=r"under 'layer2x': it holds (layer2\d?, ){2}layer2\d? and 27 more$"):
        load(f"{path}#layer2x")


def test_several_files_answer_together(trained: nn.Module, tmp_path: Path) -> None:
    """The softmax of the ensemble is the normalised geometric mean of its members' (scipy)."""
    other = build("test_resnet", seed=12, **SHAPE).eval()  # type: ignore[arg-type]
    a, b = (saved(tmp_path / f"{k}.safetensors", m.state_dict()) for k, m in enumerate((trained, other)))
    both, x = load(f"{a}, {b}"), torch.randn(4, 1, 32, 32)
    with torch.no_grad():
        shares = torch.stack([trained(x).softmax(1), other(x).softmax(1)]).numpy()
        mean = gmean(shares, axis=0)
        np.testing.assert_allclose(both(x).softmax(1), mean / mean.sum(1, keepdims=True), rtol=1e-4)
    assert count_params(both) == 2 * count_params(trained)
    digests = [weights_digest(str(path), "test_resnet") for path in (a, b)]
    assert weights_digest(f"{a},{b}", "test_resnet") == weights_digest(f"{b},{a}", "test_resnet")
    assert weights_digest(f"{a},{b}", "test_resnet") == ",".join(sorted(digests))
    assert len(members(",".join(digests * 100))) == 200  # longer than any file's name may be
    with pytest.raises(BadInput, match=r"0\.safetensors' are in the ensemble already"):
        weights_digest(f"{a},{b},{a}", "test_resnet")
    comma = saved(tmp_path / "a,b.safetensors", trained.state_dict())
    assert weights_digest(str(comma), "test_resnet") == digests[0]


def test_another_class_count_is_an_error_in_plain_words(trained: nn.Module, tmp_path: Path) -> None:
    path = saved(tmp_path / "w.safetensors", trained.state_dict())
    with pytest.raises(BadInput, match="weights have 10 classes, the data set has 100"):
        load(path, classes=100)


def test_what_does_not_fit_is_named(trained: nn.Module, tmp_path: Path) -> None:
    state = dict(trained.state_dict())
    with pytest.raises(BadInput, match=r"another shape conv1\.0\.weight \(\d+x1x3x3 in the file, \d+x3x3x3 in"):
        load(saved(tmp_path / "a.safetensors", state), channels=3)
    lacking = {k: v for k, v in state.items() if not k.startswith("fc.")} | {"extra.weight": torch.zeros(1)}
    with pytest.raises(BadInput, match=r"missing fc\.weight, fc\.bias; unknown extra\.weight"):
        load(saved(tmp_path / "b.safetensors", lacking))
    with pytest.raises(BadInput, match=r"missing .* and \d+ more"):
        load(saved(tmp_path / "c.safetensors", {"fc.weight": state["fc.weight"]}))
    with pytest.raises(BadInput, match=r"fc\.bias are finite"):
        load(saved(tmp_path / "d.safetensors", {**state, "fc.bias": torch.full((10,), float("nan"))}))


class Payload:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("executed"),))  # type: ignore[return-value]


def test_no_code_of_a_file_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shape = {**SHAPE, "seed": 0}
    for held in ({"fc.weight": Payload()}, {"state_dict": {}, "args": Payload()}, Payload()):
        torch.save(held, tmp_path / "pytorch_model.bin")
        for call in (
            load,
            lambda place: describe(str(place), "test_resnet"),
            lambda place: load_start("test_resnet", source=f"local-dir:{place.parent}", **shape),
        ):
            with pytest.raises(BadInput, match="code in a file is never run"):
                call(tmp_path / "pytorch_model.bin")
    assert not (tmp_path / "executed").exists()


def test_damaged_or_absent_files(trained: nn.Module, tmp_path: Path) -> None:
    whole = {
        "x.safetensors": saved(tmp_path / "whole.safetensors", trained.state_dict()),
        "x.pth": tmp_path / "whole.pth",
    }
    torch.save(trained.state_dict(), whole["x.pth"])
    for name, path in whole.items():
        size = path.stat().st_size
        for content in (b"\x10\x00nonsense", b"", *(path.read_bytes()[:at] for at in (100, size // 2, size - 9))):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(BadInput, match=f"{name} is no"):
                load(tmp_path / name)
    for odd in ([1, 2], {1: torch.zeros(3)}, {"state_dict": {"a": "b"}}, {}):
        torch.save(odd, tmp_path / "odd.pth")
        with pytest.raises(BadInput, match="something else than named tensors"):
            load(tmp_path / "odd.pth")
    for call in (load, lambda source: weights_digest(str(source), "test_resnet")):
        with pytest.raises(BadInput, match="no such file"):
            call(tmp_path / "absent.safetensors")
        with pytest.raises(BadInput, match="the folder holds neither model"):
            call(tmp_path)


def test_digests_name_the_content(trained: nn.Module, tmp_path: Path) -> None:
    one = saved(tmp_path / "a.safetensors", trained.state_dict())
    two = saved(tmp_path / "b.safetensors", trained.state_dict())
    other = saved(tmp_path / "c.safetensors", {**trained.state_dict(), "fc.bias": torch.ones(10)})
    digests = [weights_digest(str(path), "test_resnet") for path in (one, two, other)]
    assert digests[0] == digests[1] != digests[2] and len(digests[0]) == len("file:") + 12
    assert weights_digest("pretrained", "resnet50") == "pretrained:" + timm.get_pretrained_cfg("resnet50").tag
    assert weights_digest("pretrained:a2_in1k", "resnet50") == "pretrained:a2_in1k"
    assert weights_digest("pretrained", "resnet50.a2_in1k") == "pretrained:a2_in1k"


@pytest.mark.parametrize(
    ("name", "source", "message"),
    [
        ("resnet50", "pretrained", "weights have 1000 classes, the data set has 10"),
        ("resnet50", "pretrained:a1_in1l", "did you mean 'resnet50.a1_in1k'"),
        ("mobilenetv3_small_099", "pretrained", "unknown model"),
        ("vit_small_patch16_18x2_224", "pretrained", "no pretrained weights"),
    ],
)
def test_pretrained_that_cannot_be_meant(name: str, source: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_weights(name, source=source, **SHAPE)  # type: ignore[arg-type]


def test_pretrained_without_network_fails_within_seconds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens on the discard port
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    torch_home = tmp_path / "hub"
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(torch_home))
    start = time.monotonic()
    for source in ("pretrained", "hf-hub:somebody/something"):
        with pytest.raises(MachineFault, match="no network was found: give a local file"):
            load_weights("test_resnet", source=source, **{**SHAPE, "classes": 1000})  # type: ignore[arg-type]
    assert time.monotonic() - start < 15


def test_pretrained_from_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A real file where the hub keeps it: weights come from there, colours are summed, nothing stays random."""
    config = timm.get_pretrained_cfg("test_vit")
    source = timm.create_model("test_vit", num_classes=1000, in_chans=3)
    folder = tmp_path / f"models--{config.hf_hub_id.replace('/', '--')}"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    saved(snapshot / "model.safetensors", source.state_dict())
    from huggingface_hub import constants, file_download

    for module in (constants, file_download.constants):
        monkeypatch.setattr(module, "HF_HUB_CACHE", str(tmp_path))
    shape = {"classes": 1000, "channels": 1, "input_size": 160, "stem": "native"}
    model = load_weights("test_vit", source="pretrained", **shape)  # type: ignore[arg-type]
    assert torch.equal(model.head.weight, source.head.weight)
    summed = source.patch_embed.proj.weight.sum(1, keepdim=True)
    torch.testing.assert_close(model.patch_embed.proj.weight, summed)
    for classes in (7, 1000):  # a new classifier, whatever the old one's classes; all else from the file
        for origin in ("pretrained", f"hf-hub:{config.hf_hub_id}"):
            shape = {"channels": 3, "input_size": 160, "stem": "native", "classes": classes, "seed": 3}
            begun = load_start("test_vit", source=origin, **shape)  # type: ignore[arg-type]
            again = load_start("test_vit", source=origin, **shape)  # type: ignore[arg-type]
            assert torch.equal(begun.blocks[0].attn.qkv.weight, source.blocks[0].attn.qkv.weight)
            assert torch.equal(begun.head.weight, again.head.weight) and len(begun.head.weight) == classes
            assert not torch.equal(begun.head.weight, source.head.weight[:classes])
    shape = {"classes": 1000, "channels": 1, "input_size": 160, "stem": "native"}
    weights = dict(source.state_dict())
    del weights["head.weight"], weights["head.bias"]
    saved(snapshot / "model.safetensors", weights)
    with pytest.raises(BadInput, match=r"does not fit|random"):
        load_weights("test_vit", source="pretrained", **shape)  # type: ignore[arg-type]
