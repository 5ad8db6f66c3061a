"""One pipeline on a real Ray: killed and started again, it comes to each result once."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cellnet.cli import main
from cellnet.pipeline.results import Result, Results
from cellnet.registry.registry import Registry
from cellnet.sample import write_sample
from cellnet.store.place import Place
from pipelines.runs import SNAPSHOT
from pipelines.starting import LIMITS
from tests.machines import Machine, Machines, are_possible, wait_until

from .conftest import KEYS

ROOT = Path(__file__).parents[2]
KILLED = """
import os, signal, sys
from cellnet.pipeline.results import Results

keep = Results.keep

def killed(self, result):
    if result.step == sys.argv[1]:
        os.kill(os.getpid(), signal.SIGKILL)
    return keep(self, result)

Results.keep = killed
from cellnet.cli import main
sys.exit(main(sys.argv[2:]))
"""
"""`python -c KILLED STEP …`: cellnet …, which is killed when it has done a step, before that is noted."""
SETTINGS = "{folds: 0, epochs: 3, threads: 1, model.width: 4, model.depth: 2, augment.shifts: 0, augment.shares: [1.0]}"


class Dies(BaseException):
    """Nothing of cellnet's catches it."""


def dies_after(step: str) -> Callable[[Results, Result], Result]:
    """`Results.keep`, as where the process ends when it has done a step, before that is noted."""
    keep = Results.keep

    def keep_or_die(results: Results, result: Result) -> Result:
        if result.step == step:
            raise Dies
        return keep(results, result)

    return keep_or_die


def steps_of(told: str) -> dict[str, dict[str, Any]]:
    """Each step, as `--json` tells it."""
    return {one["step"]: one for one in json.loads(told)["steps"]}


@pytest.mark.ray
@pytest.mark.timeout(600)
def test_a_pipeline_that_is_killed_in_a_training_and_before_results_are_noted_comes_to_each_once(
    joining: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sample(tmp_path / "images", wells_per_lineage=4, lineages=("THP1", "A172"), size_px=200)
    file = tmp_path / "lab.yaml"
    file.write_text(
        "bank: bank\nregistry: registry\nsources: [{source: images/manifest.csv}]\n"
        f"models: {{count: {{train: {{set: {SETTINGS}}}}}}}\npromote: {{}}\n"
    )

    command = [sys.executable, "-m", "cellnet", "pipeline", "run", str(file)]
    streams = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(command, cwd=ROOT, env=os.environ | joining, **streams) as first:
        assert first.stderr is not None
        said = []
        for line in first.stderr:
            said.append(line)
            if line.startswith("epoch   2/3"):  # it is said before Ray Train has noted it
                wait_until(lambda: any(tmp_path.glob(f"runs/*/{SNAPSHOT}")), "an epoch is kept")
                first.send_signal(signal.SIGKILL)
    assert first.wait() == -signal.SIGKILL, "".join(said)
    with monkeypatch.context() as patch, pytest.raises(Dies):
        patch.setattr(Results, "keep", dies_after("train-count"))
        main(["pipeline", "run", str(file)])
    said = capsys.readouterr().err.splitlines()
    assert any("going on after epoch" in line for line in said), "\n".join(said)
    assert not any("import-1: it has not" in line for line in said)

    assert main(["pipeline", "show", str(file), "--json"]) == 0
    shown = steps_of(capsys.readouterr().out)
    assert (shown["import-1"]["state"], shown["train-count"]["state"]) == ("done", "stopped")
    assert main(["pipeline", "run", str(file), "--json"]) == 0
    told = capsys.readouterr()
    steps = steps_of(told.out)
    assert "regressor@1 was published as" in told.err
    assert {one["state"] for one in steps.values()} == {"done"}
    registry = Registry.open(str(tmp_path / "registry"))
    assert [one.ref for one in registry.versions()] == ["regressor@1"]
    [move] = registry.history("regressor", "champion")
    assert steps["promote-count"]["result"]["number"] == move.number == 1
    card = registry.resolve("regressor@1").card
    assert card.once == steps["train-count"]["key"] and card.bank_digest == steps["import-1"]["result"]["digest"]
    assert [epoch["number"] for epoch in card.history] == [1, 2, 3]
    log = Path(str(steps["train-count"]["log"])).read_text()
    assert "epoch   3/3" in log and log.count("\n--- 20") + log.startswith("--- 20") >= 2, "of each attempt"
    [run] = (tmp_path / "runs").glob("count-*")
    assert json.loads((run / "finished.json").read_bytes()) == {"model": "regressor@1"}


@pytest.mark.ray
@pytest.mark.nodes
@pytest.mark.whole
@pytest.mark.timeout(1200)
def test_ray_job_stop_of_a_pipeline_gives_the_lease_back_and_the_next_job_goes_on(
    own_cluster: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sample(tmp_path / "images", wells_per_lineage=4, lineages=("THP1", "A172"), size_px=200)
    file = tmp_path / "lab.yaml"
    told = SETTINGS.replace("epochs: 3", "epochs: 40")
    file.write_text(
        f"bank: {tmp_path}/bank\nregistry: {tmp_path}/registry\nsources: [{{source: {tmp_path}/images/manifest.csv}}]\n"
        f"models: {{count: {{train: {{set: {told}}}}}}}\npromote: {{}}\n"
    )
    cluster = own_cluster(**LIMITS)
    ports = {name: cluster.free_port() for name in ("port", "dashboard-port", "ray-client-server-port")}
    ports["dashboard-agent-listen-port"] = 0  # one that is free
    cluster.start("--head", "--num-cpus=2", *(f"--{name}={port}" for name, port in ports.items()))

    def ray_job(verb: str, *words: str) -> str:
        command = ["ray", "job", verb, "--address", f"http://127.0.0.1:{ports['dashboard-port']}", *words]
        done = subprocess.run(command, cwd=ROOT, env=cluster.environment, capture_output=True, text=True, check=False)
        return done.stdout + done.stderr

    def submitted(name: str) -> str:
        entry = ("--working-dir", ".", "--no-wait", "--submission-id", name, "--")
        return ray_job("submit", *entry, "python", "-m", "pipelines", "run", str(file))

    wait_until(lambda: "Ray runtime started." in cluster.log.read_text(), "a cluster is there")
    wait_until(lambda: "submitted successfully" in submitted("first"), "a job is taken")
    wait_until(lambda: any(tmp_path.glob(f"runs/*/{SNAPSHOT}")), "an epoch is kept", timeout_s=300)
    assert "was stopped" in ray_job("stop", "first")
    said = ray_job("logs", "first")
    assert "the same command goes on where it was cut" in said and "Traceback" not in said, said
    [lease] = (tmp_path / "runs/pipeline-lab/lease").glob("*.json")
    assert json.loads(lease.read_bytes())["given_back"] is True
    capsys.readouterr()
    assert main(["pipeline", "show", str(file), "--json"]) == 0
    shown = steps_of(capsys.readouterr().out)
    assert (shown["import-1"]["state"], shown["train-count"]["state"]) == ("done", "stopped")
    assert "submitted successfully" in submitted("second")
    ended = ("SUCCEEDED", "FAILED")
    wait_until(lambda: any(one in ray_job("status", "second") for one in ended), "the second job ends", timeout_s=400)
    said = ray_job("logs", "second")
    assert "import-1: done already" in said and "going on after epoch" in said, said
    capsys.readouterr()
    assert main(["pipeline", "show", str(file), "--json"]) == 0
    assert {one["state"] for one in steps_of(capsys.readouterr().out).values()} == {"done"}
    assert [one.ref for one in Registry.open(str(tmp_path / "registry")).versions()] == ["regressor@1"]


@pytest.fixture
def machines(moto: str, tmp_path: Path) -> Iterator[tuple[Machine, str]]:
    """The head of three machines, of which the two that compute see no file of the test; and an S3 server for all."""
    import secrets

    from moto.server import ThreadedMotoServer

    home = tmp_path / "home"
    home.mkdir()
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "CELLNET_CACHE": ""}
    with Machines(home, **KEYS, **token) as machines:
        server = ThreadedMotoServer(ip_address=machines.here, port=0, verbose=False)  # of the same buckets as `moto`
        server.start()
        host, port = server.get_host_and_port()
        head, *nodes = (machines.add() for _ in range(3))
        start = ("ray", "start", "--block", "--temp-dir")
        dashboard = ("--include-dashboard=true", "--dashboard-host=0.0.0.0")
        head.start(*start, machines.folder(), "--head", "--port=6379", "--num-cpus=0",
                   f"--node-ip-address={head.address}", *dashboard, log=home / "nodes.log")  # fmt: skip
        for node in nodes:
            hide = 'mount -t tmpfs none "$0" && exec "$@"'
            join = (f"--address={head.address}:6379", f"--node-ip-address={node.address}", "--num-cpus=2")
            node.start("sh", "-c", hide, str(tmp_path), *start, machines.folder(), *join, log=tmp_path / "nodes.log")

        def are_there() -> bool:
            try:
                return head.run("ray", "list", "nodes", "--address", f"http://{head.address}:8265").count("ALIVE") == 3
            except RuntimeError:
                return False

        wait_until(are_there, "three machines are a cluster")
        yield head, f"http://{host}:{port}"
        server.stop()


@pytest.mark.ray
@pytest.mark.nodes
@pytest.mark.whole
@pytest.mark.timeout(1800)
@pytest.mark.skipif(not are_possible(), reason="machines of their own take root, and Linux's ip, unshare and nsenter")
def test_on_three_machines_without_a_folder_in_common_a_pipeline_killed_at_each_step_comes_to_each_result_once(
    machines: tuple[Machine, str], tmp_path: Path, credentials: None
) -> None:
    head, server = machines
    write_sample(tmp_path / "images", wells_per_lineage=4, lineages=("THP1", "A172"), size_px=200)
    files = [path for path in (tmp_path / "images").rglob("*") if path.is_file()]
    source = Place("s3://lab/whole/images", server).open()
    for path in files:
        source.put(str(path.relative_to(tmp_path / "images")), path.read_bytes())
    service = yaml.safe_load((ROOT / "infra/serve.yaml").read_text(encoding="utf-8"))
    small = {"replicas": 1, "threads": 1, "cpus": 0.3, "poll_s": 1, "endpoint_url": server}
    service["applications"][0]["args"] |= small | {"registry": "s3://lab/whole/registry"}
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(service), encoding="utf-8")
    file = tmp_path / "lab.yaml"
    file.write_text(
        "bank: s3://lab/whole/bank\nregistry: s3://lab/whole/registry\n"
        f"endpoint_url: {server}\n"
        "sources: [{source: 's3://lab/whole/images/manifest.csv'}]\n"
        f"models: {{classify: {{train: {{set: {SETTINGS}}}}}, count: {{train: {{set: {SETTINGS}}}}}}}\npromote: {{}}\n"
        f"deploy: {{config: serve.yaml, dashboard: 'http://{head.address}:8265', "
        f"address: 'http://{head.address}:8000', wait: 300}}\n"
    )

    def run(step: str, log: Path) -> int:
        command = (sys.executable, "-c", KILLED, step, "pipeline", "run", str(file))
        cluster = {"RAY_ADDRESS": f"{head.address}:6379", "PYTHONPATH": str(ROOT)}
        return head.start(*command, log=log, **cluster).wait()

    steps = ["import-1", "train-classify", "train-count", "evaluate-classify-1", "evaluate-count-1",
             "promote-classify", "promote-count", "deploy"]  # fmt: skip
    for number, step in enumerate(steps):
        log = tmp_path / f"{number}.log"
        status, said = run(step, log), log.read_text()
        assert status in (-signal.SIGKILL, 128 + signal.SIGKILL), said
        assert all(f"{noted}: done already, " in said for noted in steps[: max(number - 1, 0)]), said
        assert not number or re.search(rf"^{steps[number - 1]}: begun .*, and cut: it goes on$", said, re.MULTILINE)
    last = tmp_path / "last.log"
    assert run("none", last) == 0, last.read_text()
    again = tmp_path / "again.log"
    assert run("none", again) == 0 and "nothing to do" in again.read_text(), again.read_text()

    registry = Registry.open(Place("s3://lab/whole/registry", server))
    assert sorted(one.ref for one in registry.versions()) == ["classifier@1", "regressor@1"]
    for name in ("classifier", "regressor"):
        assert [move.number for move in registry.history(name, "champion")] == [1]
    runs = Place("s3://lab/whole/runs", server).open()
    results = [key for key in runs.keys("pipeline-lab/") if key.endswith(".json") and "/lease/" not in key]
    assert sorted(key.split("/")[1] for key in results) == sorted(steps), "one of each"
    [deployed] = (json.loads(runs.get(key)) for key in results if "/deploy/" in key)
    assert set(deployed["result"]["served"]) == {"classifier@1", "regressor@1"}
