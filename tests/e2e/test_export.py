"""Students leave a finished sweep: every file runs without kdbench and does what the table says, or is not kept."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from scipy.stats import binomtest

import kdbench
from kdbench.data.readers import digits
from kdbench.data.samples import cut_test
from kdbench.deploy.formats import Shape, open_timm, timm_config, write_timm
from kdbench.deploy.qat import rounded
from kdbench.deploy.verify import Checked, refuse
from kdbench.errors import BadInput
from kdbench.models import build
from kdbench.run.store import WEIGHTS
from kdbench.stats import PairedDifference, paired_drop
from tests.support.helpers import ROOT, Cli
from tests.support.sweeps import SMALL, command

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ALONE = "import sys; sys.modules['kdbench'] = None; "  # whoever imports kdbench fails
SCRIPT = ROOT / "docs" / "classify.py"
DEVICE = ROOT / "kdbench" / "deploy" / "device.py"


def pictures(place: Path, count: int) -> list[Path]:
    """So many digits of the test split as files."""
    paths = [place / f"{number}.png" for number in range(count)]
    for path, image in zip(paths, cut_test(digits(), "test").images, strict=False):
        Image.fromarray(image[..., 0]).save(path)
    return paths


def alone(code: str, *arguments: object) -> str:
    """What Python says that has everything but kdbench."""
    words = [sys.executable, "-c", ALONE + code, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_files_do_without_kdbench_what_the_table_says(finished: Path, tmp_path: Path, cli: Cli) -> None:
    pytest.importorskip("onnxruntime")
    done = cli("export", f"whole:{SMALL}", "--format", "timm,onnx,torch-export", "--int8", "--json")
    assert done.code == 0 and "test split" in done.err, done.err
    (held,) = json.loads(done.out)
    files = {file["format"]: file for file in held["files"]}
    run = next(run for run in kdbench.load(finished)._runs if run.config.id == held["run"])
    assert (run.config.phase, run.config.model, run.config.method) == ("confirm", SMALL, "kd")
    assert held["reference_top1"] == run.result.test_acc == files["timm"]["top1"]
    assert [files[name]["agreement"] for name in ("timm", "onnx", "torch-export")] == [1.0] * 3
    assert files["int8"]["bytes"] < 0.6 * files["onnx"]["bytes"] and files["int8"]["calibration"]["seed"] == 0
    out = finished / "export" / SMALL
    assert {path.name for path in out.iterdir()} == {
        *("model.safetensors", "config.json", "load.py", "model.onnx", "model.pt2", "model_int8.onnx"),
        *("labels.txt", "preprocess.json", "README.md", "export.json"),
    }
    card = (out / "README.md").read_text()
    assert f"**{100 * held['test_acc']:.2f}%**" in card and held["run"] in card and "CC BY 4.0" in card
    # a script with onnxruntime and Pillow, and stock timm, see in files what the network sees in its own arrays
    student = kdbench.load(finished).student(SMALL)
    paths = pictures(tmp_path, 30)
    seen = [int(student.predict(Image.open(path)).argmax()) for path in paths]
    script = f"sys.modules['torch'] = None; sys.argv[0] = {str(SCRIPT)!r}; exec(open({str(SCRIPT)!r}).read())"
    said = alone(script, out, *paths).splitlines()
    assert [int(line.split()[-1]) for line in said] == seen
    code = "import timm; timm.create_model('local-dir:' + sys.argv[1], pretrained=True).eval(); from load import load"
    alone(f"sys.path.insert(0, sys.argv[1]); {code}; load()", out)
    props = {p.key: p.value for p in __import__("onnx").load(out / "model.onnx").metadata_props}
    assert props["run_id"] == held["run"] and json.loads(props["classes"]) == list("0123456789")
    again = cli("export", f"whole:{SMALL}")
    assert (again.code, "not empty" in again.err) == (2, True)
    # what a device measured comes back, is an axis, and decides what to ship
    told = alone("sys.modules['torch'] = None; import runpy; runpy.run_path(sys.argv.pop(1), run_name='__main__')",
                 DEVICE, out, "--rounds", 6, "--batch", "1,4")  # fmt: skip
    (tmp_path / "here.csv").write_text(told)
    assert cli("latency", "whole", "--import", tmp_path / "here.csv").code == 0
    assert cli("latency", "whole", "--rounds", 6, "--runtime", "ort,torch", "--precision", "fp32").code == 0
    rows = pd.read_csv(finished / "latency.csv")
    assert sorted(zip(rows["runtime"], rows["precision"], rows["infer_batch_size"], strict=True)) == [
        *(("ort", "fp32", 1), ("ort", "fp32", 4), ("ort", "int8", 1), ("ort", "int8", 4), ("torch", "fp32", 1)),
    ]  # what was measured twice stands once
    assert (rows["lo"] <= rows["infer_step_time"]).all() and (rows["infer_step_time"] <= rows["hi"]).all()
    for x in ("ort-int8-b4", "file_mb-int8", "macs"):
        assert cli("report", "whole", "--x", x).code == 0
        front = pd.read_csv(finished / f"pareto-{x}.csv")
        assert front["cost"].is_monotonic_increasing and SMALL in set(front["student"])
    assert set(pd.read_csv(finished / "pareto-ort-int8-b4.csv")["student"]) == {SMALL}  # the other was not exported
    chosen = cli("pick", "whole", "--max-mb", "1", "--precision", "int8", "--json")
    assert chosen.code == 0 and json.loads(chosen.out)["chosen"]["costs"]["mb"] == files["int8"]["bytes"] / 1e6
    missed = cli("pick", "whole", "--max-ms", "1e-9")
    assert (missed.code, "Nothing fits" in missed.out) == (1, True)
    assert "Nothing fits" in (finished / "pick.html").read_text()
    for line, why in (
        ("report whole --x ort-int8-t9", "measured not at all"), ("report whole --x gpu", "unknown measure"),
        ("latency whole --batch 0", "whole numbers"), ("latency whole --runtime tf", "unknown runtime"),
        ("pick whole --max-ms -1", "above 0"), (f"latency whole --import {SCRIPT}", "cannot be read as CSV"),
    ):  # fmt: skip
        refused = cli(*line.split())
        assert refused.code == 2 and why in refused.err, (line, refused.err)


@pytest.mark.parametrize(("words", "why"), [
    (["whole:nobody"], "unknown student or run"), (["whole", "--format", "onix"], "did you mean 'onnx'"),
    (["whole", "--int8", "--format", "timm"], "add onnx"), (["whole", "--half", "--int8"], "one of them"),
    (["whole", "--max-drop", "0.1"], "give both"), (["whole", "--int8", "--calibration", "9"], "20 or more"),
    (["whole", "--push", "hf:me/it"], "name one"), ([f"whole:{SMALL}", "--push", "me"], "hf:user/name"),
    (["nothing"], "no sweep"), (["whole", "--format", ""], "at least one"),
])  # fmt: skip
def test_bad_input_is_one_line_and_nothing_is_written(finished: Path, cli: Cli, words: list[str], why: str) -> None:
    done = cli("export", *words)
    assert done.code == 2 and why in done.err and "Traceback" not in done.err
    assert not (finished / "export").exists()


def test_runs_that_cannot_leave_are_named(finished: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    result = kdbench.load(finished)
    search = next(run.config.id for run in result._runs if run.config.phase == "search")
    assert "of the search phase" in cli("export", f"whole:{search}").err
    monkeypatch.setitem(__import__("kdbench.deploy.formats").deploy.formats.NEEDS, "onnx", "no_such_package")
    assert "pip install 'kdbench[export]'" in cli("export", "whole").err
    for path in finished.glob(f"trials/*/{WEIGHTS}"):
        path.unlink()
    gone = cli("export", f"whole:{SMALL}", "--format", "timm")
    assert gone.code == 2 and "run the sweep again" in gone.err


def test_a_file_that_does_something_else_is_refused() -> None:
    drop = PairedDifference(0.02, 0.01, 0.03, 0.001, 1000)
    refuse("model.onnx", Checked(0.9, 0.995, 0.1, drop), 0.99, None)
    with pytest.raises(BadInput, match=r"98.50% of the test images, fewer than 99%"):
        refuse("model.onnx", Checked(0.9, 0.985, 0.1, drop), 0.99, None)
    with pytest.raises(BadInput, match=r"loses 2.00 points .* more than --max-drop 1"):
        refuse("model_int8.onnx", Checked(0.9, 0.95, 0.1, drop), None, 0.01)


@pytest.mark.parametrize(("name", "stem", "size", "changed"), [
    ("mobilenetv3_small_050", "small", 32, True), ("resnet18", "small", 32, True), ("resnet18", "native", 32, False),
    ("test_vit", "native", 32, False), ("levit_128s", "native", 32, True), ("repvgg_a0", "small", 32, True),
])  # fmt: skip
def test_timm_loads_it_rightly_or_not_at_all(name: str, stem: str, size: int, changed: bool, tmp_path: Path) -> None:
    network = build(name, classes=7, channels=1, input_size=size, stem=stem, seed=1).eval()
    config = timm_config(name, network, Shape(7, 1, size), stem, {})
    write_timm(tmp_path, network, {**config, "pretrained_cfg": {"num_classes": 7, "input_size": [1, size, size]}})
    if changed:
        with pytest.raises(RuntimeError, match="Unknown model"):
            timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert ("changed_layers" in config) == changed
    x = torch.randn(3, 1, size, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(open_timm(tmp_path)(x), network(x), rtol=0, atol=0)
    assert (tmp_path / WEIGHTS).stat().st_mode & 0o044 == 0o044


def test_a_paired_drop_against_its_formulas() -> None:
    rng = np.random.default_rng(0)
    before = rng.random(500) < 0.9
    after = np.where(rng.random(500) < 0.1, ~before, before)
    lost, won = int((before & ~after).sum()), int((~before & after).sum())
    found = paired_drop(before, after)
    assert found.mean == (lost - won) / 500 and found.p == pytest.approx(binomtest(lost, lost + won).pvalue)
    b, c, n = lost + 0.5, won + 0.5, 502  # Agresti and Min 2005, by their own symbols
    se = np.sqrt((b + c) - (b - c) ** 2 / n) / n
    assert (found.lo, found.hi) == pytest.approx(((b - c) / n - 1.96 * se, (b - c) / n + 1.96 * se), abs=1e-5)
    assert paired_drop(before, before)[0::3] == (0.0, 1.0)


@pytest.mark.slow
def test_a_browser_classifies_as_the_network_does(finished: Path, tmp_path: Path, cli: Cli) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    if CHROMIUM is None or shutil.which("npm") is None:
        pytest.skip("no Chromium or no npm on this machine")
    assert cli("export", f"whole:{SMALL}", "--format", "onnx", "--output", "out").code == 0
    shutil.copy(ROOT / "docs" / "classify.html", "out/index.html")
    subprocess.run(["npm", "install", "--silent", "--prefix", "out", "onnxruntime-web"], check=True, timeout=300)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory="out"))
    Thread(target=server.serve_forever, daemon=True).start()
    student, paths = kdbench.load(finished).student(SMALL), pictures(tmp_path, 12)
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.goto(f"http://127.0.0.1:{server.server_port}/")
        page.locator("body[data-ready]").wait_for()
        for path in paths:
            page.locator("ol").evaluate("e => e.replaceChildren()")
            page.set_input_files("input", path)
            page.locator("li").first.wait_for()
            logits = student.network(student.preprocess(Image.open(path)))[0]
            best = [f"{int(k)} ({v:.2f})" for v, k in zip(*(part.tolist() for part in logits.topk(3)), strict=True)]
            assert page.locator("li").all_inner_texts() == best, path
        browser.close()
    server.shutdown()


@pytest.mark.parametrize(("kind", "package", "file"), [
    ("openvino", "openvino", "model.xml"), ("executorch", "executorch", "model.pte"),
    ("litert", "litert_torch", "model.tflite"),
])  # fmt: skip
def test_other_runtimes(finished: Path, cli: Cli, kind: str, package: str, file: str) -> None:
    pytest.importorskip(package)
    done = cli("export", f"whole:{SMALL}", "--format", f"onnx,{kind}", "--json")
    whole, row = json.loads(done.out)[0]["files"]
    assert row["file"] == file and row["agreement"] == 1.0 and row["max_difference"] < 1e-3
    assert 0.5 * whole["bytes"] < row["bytes"] < 2 * whole["bytes"]
    assert cli("latency", "whole", "--runtime", kind, "--precision", "fp32", "--rounds", 6, "--batch", "1,2").code == 0
    rows = pd.read_csv(finished / "latency.csv")
    assert set(rows["runtime"]) == {kind} and rows["file_mb"].iloc[0] == round(row["bytes"] / 1e6, 3)


def test_a_student_is_trained_on_for_its_int8_file(finished: Path, tmp_path: Path, cli: Cli) -> None:
    """Its float files stay as they were, the 8-bit one is another; without the teacher's weights it is refused."""
    for name, more in (("plain", ()), ("tuned", ("--qat", "1"))):
        done = cli("export", f"whole:{SMALL}", "--format", "onnx", "--int8", *more, "--output", tmp_path / name)
        assert done.code == 0, done.err
    plain, tuned = tmp_path / "plain", tmp_path / "tuned"
    for file, same in (("model.onnx", True), ("model_int8.onnx", False)):
        assert ((plain / file).read_bytes() == (tuned / file).read_bytes()) == same
    before, after = (json.loads((place / "export.json").read_text())["files"][1] for place in (plain, tuned))
    assert after["qat"]["epochs"] == 1 and after["qat"]["without"]["top1"] == before["top1"]
    assert "1 epoch more" in (tuned / "README.md").read_text()
    half = cli("export", f"whole:{SMALL}", "--format", "onnx", "--half", "--output", tmp_path / "half", "--json")
    (row,) = json.loads(half.out)[0]["files"]
    assert row["agreement"] >= 0.99 and 1e-5 < row["max_difference"] < 0.1
    assert row["bytes"] < 0.7 * (plain / "model.onnx").stat().st_size
    shutil.rmtree(tmp_path / "cache" / "teachers")
    gone = cli("export", f"whole:{SMALL}", "--format", "onnx", "--int8", "--qat", "1", "--output", tmp_path / "gone")
    assert (gone.code, "--qat asks the teacher" in gone.err, (tmp_path / "gone").exists()) == (2, True, False)


def test_rounding_is_what_eight_bits_hold(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.ReLU(), torch.nn.Linear(4, 3))
    weight, x = network[0].weight.detach().clone(), torch.randn(64, 6)
    plain = network(x).detach()
    end = rounded(network)
    scale = weight.abs().amax(1, keepdim=True) / 127
    torch.testing.assert_close(network[0].weight, (weight / scale).round() * scale)
    said = network(x)
    assert 1e-4 < float((said.detach() - plain).abs().max()) < 0.1
    said.square().sum().backward()
    assert float(network[0].parametrizations.weight.original.grad.abs().sum()) > 0, "gradients pass the rounding"
    step = float((x.max() - x.min()) / 255)
    network.eval()
    inside = torch.full((1, 6), 3.3 * step)
    torch.testing.assert_close(network(inside), network(torch.full((1, 6), 3 * step)))
    end()
    assert torch.equal(network[0].weight, weight)
    assert {*network.state_dict()} == {
        "0.weight",
        "0.bias",
        "2.weight",
        "2.bias",
    }


def test_a_student_ships_the_classifier_that_it_reuses(tmp_path: Path, cli: Cli) -> None:
    """What simkd trains is what is counted, predicts, and leaves."""
    pytest.importorskip("onnxruntime")
    words = command(tmp_path / "out", tmp_path / "cache", "--method", "simkd", "--trials", 1, "--seeds", 2)
    assert cli(*words, "--limit", "200", "--name", "reused", "--json").code == 0
    found = kdbench.load(tmp_path / "out" / "reused")
    row = found.pareto.iloc[0]
    plain = build(SMALL, classes=10, channels=1, input_size=32, seed=0)
    student = found.student(SMALL)
    assert row["method"] == "simkd" and row["params"] == sum(p.numel() for p in student.network.parameters())
    assert row["params"] != sum(p.numel() for p in plain.parameters()) and np.isnan(row["latency_ms"])
    test = cut_test(digits(), "test")
    right = np.mean([student.predict(image).argmax() == y for image, y in zip(test.images, test.labels, strict=True)])
    assert right == pytest.approx(student.run.result.test_acc)
    assert cli("leaderboard", "check", tmp_path / "out" / "reused").code == 0
    assert cli("report", "reused", "--out", tmp_path / "out", "--x", "macs").code == 0
    table = pd.read_csv(tmp_path / "out" / "reused" / "pareto-macs.csv").set_index("method")["cost"]
    macs = {run.config.method: run.result.macs for run in found._runs if run.config.phase == "confirm"}
    assert dict(table) == macs and len({*macs.values()}) == 2, "each row's own"
    done = found.export(SMALL, formats=("timm", "onnx"))[0]
    assert done["method"] == "simkd" and done["params"] == row["params"]
    assert open_timm(Path(done["folder"]))(torch.zeros(1, 1, 32, 32)).shape == (1, 10)
