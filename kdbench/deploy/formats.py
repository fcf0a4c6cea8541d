"""A student's network as files: timm's folder, ONNX, torch.export, OpenVINO, ExecuTorch, LiteRT; each opened again."""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from kdbench.errors import BadInput
from kdbench.models import deployed
from kdbench.models.build import fit_to, known_models
from kdbench.models.reused import Reused

Logits = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""(B, C, S, S) float32 -> (B, classes)."""
NEEDS = {
    "onnx": "onnxscript", "int8": "onnxruntime", "openvino": "openvino", "executorch": "executorch",
    "litert": "litert_torch",
}  # fmt: skip
"""The package that writes or runs a format, beside torch and timm."""
FILES = {
    "timm": "model.safetensors", "onnx": "model.onnx", "torch-export": "model.pt2", "openvino": "model.xml",
    "executorch": "model.pte", "litert": "model.tflite",
}  # fmt: skip
INT8 = "model_int8.onnx"
OPENVINO = {"INFERENCE_PRECISION_HINT": "f32"}
"""Else it computes in 16 bits wherever the processor can."""
LOADER = Path(__file__).with_name("load.py")
"""Goes into the folder: rebuilds the network with timm alone."""


class Shape(NamedTuple):
    """What a network takes and gives."""

    classes: int
    channels: int
    size: int
    """Pixels of a side as images are cut."""


class Shipped(nn.Module):
    """The network as it ships: its images as they are cut, optionally not normalised yet, to logits or probabilities.

    Args:
        network: what was trained; its branches are folded.
        resampled: (side, mode) where the network sees views at another size than they are cut.
        normalised: (mean, std) a channel of pixels in [0, 1], where the graph shall normalise.
        softmax: give probabilities.
        half: compute in 16 bits; what goes in and out stays float32.
    """

    def __init__(
        self, network: nn.Module, *, resampled: tuple[int, str] | None = None,
        normalised: tuple[tuple[float, ...], tuple[float, ...]] | None = None, softmax: bool = False,
        half: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.network = deployed(network).eval()
        self.resampled, self.softmax, self.half_ = resampled, softmax, half
        mean, std = normalised or ((0.0,), (1.0,))
        self.normalised = normalised is not None
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))
        if half:
            self.network = copy.deepcopy(self.network).half()  # where nothing folds it is the caller's own

    def forward(self, x: Tensor) -> Tensor:
        if self.normalised:
            x = (x - cast(Tensor, self.mean)) / cast(Tensor, self.std)
        if self.resampled is not None:
            side, mode = self.resampled
            x = functional.interpolate(x, (side, side), mode=mode, antialias=True)
        logits: Tensor = self.network(x.half() if self.half_ else x).float()
        return logits.softmax(1) if self.softmax else logits


def timm_config(name: str, network: nn.Module, shape: Shape, stem: str, options: Mapping[str, float]) -> dict[str, Any]:
    """config.json in the form of timm's hub. Where kdbench changed layers (a small stem) they are listed and the
    architecture has a name that timm refuses: without those changes the weights would load and predict wrongly.
    """
    fit = fit_to(name, shape.size, stem)
    args = {"in_chans": shape.channels, **fit.options, **options}
    with torch.device("meta"):
        stock = timm.create_model(name, num_classes=shape.classes, **args)
    changed: dict[str, Any] = {}
    whole, network = network, network.body if isinstance(network, Reused) else network
    for path, module in network.named_modules():
        own = dict(stock.named_modules()).get(path)
        if isinstance(module, nn.Identity) and not isinstance(own, nn.Identity | None):
            changed[path] = "identity"
        elif isinstance(module, nn.Conv2d) and isinstance(own, nn.Conv2d):
            held, usual = ({"stride": c.stride, "padding": c.padding} for c in (module, own))
            changed |= {path: held} if held != usual else {}
    module = type(whole).__module__
    ours = module.startswith("kdbench")
    config: dict[str, Any] = {
        "architecture": name if not changed else f"kdbench_{name}_changed", "num_classes": shape.classes,
        "num_features": getattr(network, "num_features", None), "model_args": args,
    }  # fmt: skip
    if changed:
        config |= {"built_from": name, "changed_layers": changed}
    return config | ({"needs": module} if ours else {})


def write_timm(folder: Path, network: nn.Module, config: Mapping[str, Any]) -> None:
    """model.safetensors, config.json and, to rebuild it with timm alone, load.py."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    save_file(state, folder / FILES["timm"], metadata={"format": "pt"})
    (folder / FILES["timm"]).chmod(0o644)  # safetensors leaves it to its owner alone
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    (folder / "load.py").write_text(LOADER.read_text(encoding="utf-8"), encoding="utf-8")


def write_graphs(
    folder: Path, network: Shipped, shape: Shape, formats: tuple[str, ...], about: Mapping[str, str]
) -> None:
    """The formats that hold a graph, for batches of any size; those of phones take one image. ``about`` becomes
    metadata of the ONNX.

    Raises:
        BadInput: an operator that a format does not have.
    """
    example = (torch.zeros(2, shape.channels, shape.size, shape.size),)
    batch = ({0: torch.export.Dim("batch", min=1)},)
    kind = formats[0]
    try:
        with torch.no_grad():
            program = torch.export.export(network.eval(), example, dynamic_shapes=batch)
            for kind in [name for name in formats if name in _PHONES]:
                _PHONES[kind](folder / FILES[kind], network, (example[0][:1],))
            if "torch-export" in formats:
                torch.export.save(program, folder / FILES["torch-export"], extra_files=dict(about))
            if "onnx" in formats or "openvino" in formats:
                kind = "onnx"
                write_onnx(folder / FILES["onnx"], program, example, about)
        if "openvino" in formats:
            kind = "openvino"
            import openvino

            openvino.save_model(openvino.convert_model(folder / FILES["onnx"]), folder / FILES["openvino"],
                                compress_to_fp16=network.half_)  # fmt: skip
            if "onnx" not in formats:
                (folder / FILES["onnx"]).unlink()
    except Exception as error:
        why = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise BadInput(
            f"--format {kind}: this network cannot be written in it ({why[:200]}); leave the format out"
        ) from error


def write_onnx(
    path: Path, program: torch.export.ExportedProgram, example: tuple[Tensor], about: Mapping[str, str]
) -> None:
    """An ONNX file whose input is ``image``, whose output ``scores``."""
    import onnx

    exported = torch.onnx.export(
        program, example, dynamo=True, input_names=["image"], output_names=["scores"], verbose=False
    )
    if exported is None:
        raise RuntimeError("torch.onnx gave nothing")
    model = exported.model_proto
    onnx.helper.set_model_props(model, dict(about))
    onnx.checker.check_model(model, full_check=True)
    onnx.save_model(model, path)


def _executorch(path: Path, network: nn.Module, example: tuple[Tensor]) -> None:
    """For ExecuTorch, whose XNNPACK kernels run what they can."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    program = torch.export.export(network, example)
    path.write_bytes(to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch().buffer)


def _litert(path: Path, network: nn.Module, example: tuple[Tensor]) -> None:
    """For LiteRT (TensorFlow Lite); images stay (1, C, S, S)."""
    import litert_torch

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # it tells each step
        litert_torch.convert(network, example).export(str(path))


_PHONES: dict[str, Callable[[Path, nn.Module, tuple[Tensor]], None]] = {"executorch": _executorch, "litert": _litert}


def open_phone(path: Path, threads: int = 1) -> Logits:
    """A .pte or .tflite file in its own runtime: a batch is so many calls."""
    if path.suffix == ".pte":
        from executorch.extension.pybindings import portable_lib
        from executorch.runtime import Runtime

        portable_lib._unsafe_reset_threadpool(threads)
        method = Runtime.get().load_program(path).load_method("forward")

        def run(image: NDArray[np.float32]) -> Any:
            return method.execute([torch.from_numpy(image)])[0].clone().numpy()

    else:
        from ai_edge_litert.interpreter import Interpreter

        opened = Interpreter(str(path), num_threads=threads)
        opened.allocate_tensors()
        place, out = (each[0]["index"] for each in (opened.get_input_details(), opened.get_output_details()))

        def run(image: NDArray[np.float32]) -> Any:
            opened.set_tensor(place, image)
            opened.invoke()
            return opened.get_tensor(out)

    def batch(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.concatenate([run(np.ascontiguousarray(x[k : k + 1], np.float32)) for k in range(len(x))])

    return batch


def open_file(path: Path) -> Logits:
    """A file that was written here, in the runtime that it is for, on the CPU."""
    if path.suffix in (".pte", ".tflite"):
        return open_phone(path)
    if path.suffix == ".onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda x: np.asarray(session.run(None, {name: x})[0])
    if path.suffix == ".xml":
        import openvino

        compiled = openvino.Core().compile_model(path, "CPU", OPENVINO)
        return lambda x: np.asarray(compiled(x)[0])
    network = torch.export.load(path).module() if path.suffix == ".pt2" else open_timm(path.parent)

    def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return cast(NDArray[np.float32], network(torch.from_numpy(np.ascontiguousarray(x))).numpy())

    return run


def open_timm(folder: Path) -> nn.Module:
    """What a user without kdbench gets: by ``timm.create_model`` where timm knows the architecture, else by load.py."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if config["architecture"] in known_models():
        plain: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
        return plain.eval()
    found = importlib.util.spec_from_file_location("exported_student", folder / "load.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return cast(nn.Module, module.load(folder))
