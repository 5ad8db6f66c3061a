"""The measurements on GPUs, in small on a CPU: each comes to figures, and one that fails is named beside the others."""

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.benchmarks import gpu
from tests.benchmarks.gpu import SMALL, Bench, Figure, Report
from tests.factories import publish_untrained
from tests.unit.reports.reading import HOSTILE, assert_harmless

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads on a busy machine wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def found(report: Report, measurement: str) -> dict[str, Figure]:
    return {one.what: one for one in report.of(measurement)}


def shares_of(figure: Figure) -> list[float]:
    """The percentages in a note."""
    return [float(share) / 100 for share in re.findall(r"([\d.]+)%", figure.note)]


@pytest.mark.slow
def test_what_needs_no_ray_is_measured_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(gpu, "publish", functools.partial(publish_untrained, onnx=False))  # exporting takes longest
    only = [word for name in ("peak", "speed", "serving", "score") for word in ("--only", name)]
    assert gpu.main([str(tmp_path), "--device", "cpu", "--quick", "--json", *only]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["failed"] == {} and "no GPU" in told["machine"]
    report = Report(machine="", figures=tuple(Figure(**one) for one in told["figures"]))
    assert found(report, "peak").keys() == {"f32", "bf16"}
    speed = found(report, "speed")
    assert speed.keys() == {
        f"{task}, {way}, 16 tiles a step" for task in ("classify", "count") for way in ("f32", "bf16")
    }
    for figure in speed.values():
        [share] = shares_of(figure)
        assert figure.value and figure.value > 0 and 0 < share < 1
    assert all(figure.value for figure in report.of("serving"))
    assert [re.sub(",.*", "", one.what) for one in report.of("serving")] == [
        "engine of cellnet serve",
        "torch",
    ]
    [score] = report.of("score")
    assert score.value and "MAE" in score.note
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gpu.html", "gpu.md"]
    assert "| speed | count, f32, 16 tiles a step |" in (tmp_path / "gpu.md").read_text()


@pytest.mark.ray
@pytest.mark.whole
@pytest.mark.timeout(600)
def test_what_needs_ray_is_measured_on_a_cpu(ray_started: None, tmp_path: Path) -> None:
    report = gpu.run(tmp_path, device="cpu", only=["input", "ddp", "search"], quick=True)
    assert report.failed == ()
    waiting, preparing = report.of("input")
    assert waiting.value is not None and 0 <= waiting.value < 100
    assert preparing.value and 0 < preparing.value < 100
    [ddp] = report.of("ddp")
    assert ddp.what == "2 workers, 32 tiles a step and worker" and "gloo" in ddp.note and ddp.value
    [search] = report.of("search")
    assert search.what == "2 trials, 2 at once, on a CPU each" and search.value and "one after the other" in search.note


def bench(folder: Path) -> Bench:
    return Bench(device=CPU, size=SMALL, compiled=False, folder=folder)


def test_a_measurement_that_fails_is_named_and_keeps_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(bench: Bench) -> Iterator[Figure]:
        yield Figure(measurement="speed", what="before", value=3.0, unit="tiles/s")
        raise RuntimeError(f"CUDA out of memory:\n {HOSTILE} | more")

    def holds(bench: Bench) -> Iterator[Figure]:
        yield Figure(measurement="score", what="after", value=5.0, unit="s")

    monkeypatch.setattr(gpu, "MEASUREMENTS", {"speed": breaks, "score": holds})
    assert gpu.main([str(tmp_path), "--device", "cpu"]) == 1
    table = capsys.readouterr().out
    assert "| speed | before | 3.00 tiles/s |" in table
    assert "| speed | failed | – | RuntimeError: CUDA out of memory: " in table and "/ more |" in table
    assert "| score | after | 5.00 s |" in table
    page = (tmp_path / "gpu.html").read_text()
    assert_harmless(page)
    assert 'class="warn">speed failed: RuntimeError' in page


def test_without_a_gpu_one_line_says_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([str(tmp_path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "sees no GPU here" in line and line.endswith("--device cpu measures in small on the CPU")


def test_a_measurement_that_there_is_not_and_a_folder_that_cannot_be_written_are_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert gpu.main([str(tmp_path), "--device", "cpu", "--only", "speeed"]) == 2
    assert gpu.main([str(tmp_path / "file"), "--device", "cpu"]) == 2
    no_such, no_folder = capsys.readouterr().err.splitlines()
    assert "peak, speed" in no_such and "speeed" in no_such
    assert f"cannot write into {tmp_path / 'file'}" in no_folder


def test_flops_are_those_of_the_products_forward_and_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    """A layer of 40,000 × 8 weights: two each forward, and two for their gradients; none for the tile's."""
    layer = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(200 * 200, 8))
    monkeypatch.setattr(gpu, "fresh_network", lambda config, classes: layer)
    tiles = gpu.of_task(gpu.drawn_tiles(range(1)), "classify")
    assert gpu.flops_a_tile(gpu.config_of("classify", SMALL.model), tiles) == 4 * 200 * 200 * 8


def test_one_gpu_has_no_other_to_train_with_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    [figure] = gpu.measure_ddp(replace(bench(tmp_path), device=torch.device("cuda")))
    assert figure.value is None and figure.shown == "–" and "no second" in figure.note


def test_drawn_tiles_hold_the_cells_that_their_maps_show() -> None:
    tiles = gpu.drawn_tiles(range(2))
    assert tiles["pixels"].shape == (16, 200, 200) and sorted(set(tiles["label"].tolist())) == [0, 1]
    assert np.array_equal(tiles["cells"].sum(axis=(1, 2)), tiles["count"]) and tiles["count"].sum() > 0


def test_float32_of_the_peak_is_computed_as_convolutions_are_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    cuda = torch.device("cuda")
    assert gpu.in_tf32(cuda) and not gpu.in_tf32(CPU)
    with gpu.as_convolutions(cuda):
        assert torch.backends.cuda.matmul.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 0))
    assert not gpu.in_tf32(cuda)


def test_compiling_wants_a_compiler_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu.why_not_compiled(bench(tmp_path)) == "left out by --quick"
    compiling = replace(bench(tmp_path), compiled=True)
    monkeypatch.setattr(gpu.shutil, "which", lambda name: None)
    assert "no C compiler" in gpu.why_not_compiled(compiling)
    monkeypatch.setattr(gpu.shutil, "which", lambda name: "/usr/bin/cc")
    assert gpu.why_not_compiled(compiling) == ""
