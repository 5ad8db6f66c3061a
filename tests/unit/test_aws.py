"""The cluster launcher on AWS: what it starts, and that the rights of its head are enough and no more."""

import json
import re
from fnmatch import fnmatchcase
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.aws import node_provider
from ray.autoscaler._private.util import prepare_config

from tests.factories import ROOT

INFRA = ROOT / "infra"


@pytest.fixture
def config() -> dict[str, Any]:
    """`cluster.yaml`, as Ray's launcher makes it whole."""
    whole: dict[str, Any] = prepare_config(yaml.safe_load((INFRA / "cluster.yaml").read_text(encoding="utf-8")))
    return whole


def statements(name: str) -> list[dict[str, Any]]:
    policy = json.loads((INFRA / name).read_text(encoding="utf-8"))
    assert policy["Version"] == "2012-10-17"
    listed: list[dict[str, Any]] = policy["Statement"]
    return listed


def each(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def test_workers_are_spot_machines_and_the_head_is_not(config: dict[str, Any]) -> None:
    markets = {
        name: node["node_config"].get("InstanceMarketOptions", {}).get("MarketType")
        for name, node in config["available_node_types"].items()
    }
    assert markets == {"head": None, "cpu": "spot", "gpu": "spot"}
    assert config["head_node_type"] == "head"


@pytest.mark.slow
def test_the_head_may_do_what_rays_autoscaler_does(config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "tester")
    machine = {"InstanceId": "i-1", "State": {"Name": "running"}, "Tags": []}
    answers = {
        "DescribeInstanceTypes": {"InstanceTypes": [{"InstanceType": "g4dn.xlarge"}]},
        "DescribeInstances": {"Reservations": [{"Instances": [machine]}]},
        "RunInstances": {"Instances": [machine]},
    }
    asked: dict[str, dict[str, str]] = {}

    def answer(model: Any, params: dict[str, Any], **_: Any) -> tuple[object, dict[str, Any]]:
        asked[model.name] = params["body"]
        return SimpleNamespace(status_code=200), answers.get(model.name, {})

    provider = node_provider.AWSNodeProvider(config["provider"], config["cluster_name"])
    for resource in (provider.ec2, provider.ec2_fail_fast):
        resource.meta.client.meta.events.register("before-call.ec2", answer)
    node = {**config["available_node_types"]["gpu"]["node_config"], "ImageId": "ami-1", "SubnetIds": ["subnet-1"]}
    provider.create_node(node, {"ray-node-type": "worker"}, 1)
    assert provider.non_terminated_nodes({}) == ["i-1"]
    provider.set_node_tags("i-1", {"ray-node-status": "up-to-date"})
    provider.non_terminated_nodes({})  # with which tags are sent
    provider.terminate_nodes(["i-1"])
    allowed = {action for statement in statements("ec2-policy.json") for action in each(statement["Action"])}
    assert {f"ec2:{name}" for name in asked} == allowed - {"iam:PassRole", "ec2:DescribeInstanceTypes"}
    started = asked["RunInstances"]
    assert started["InstanceMarketOptions.MarketType"] == "spot"
    assert started["IamInstanceProfile.Name"] == "cellnet-worker"
    assert started["TagSpecification.1.Tag.1.Key"] == "ray-cluster-name"
    assert started["TagSpecification.1.Tag.1.Value"] == "cellnet"


def test_no_right_of_the_head_reaches_beyond_its_cluster() -> None:
    for statement in statements("ec2-policy.json"):
        actions = each(statement["Action"])
        changes = [action for action in actions if not action.startswith("ec2:Describe")]
        if changes and "arn:aws:ec2:*:*:instance/*" in each(statement["Resource"]):
            [condition] = statement["Condition"]["StringEquals"].values()
            assert condition in ("cellnet", "RunInstances"), statement["Sid"]
        if changes:
            assert "*" not in each(statement["Resource"]), statement["Sid"]
    assert not any("*" in action for statement in statements("ec2-policy.json") for action in each(statement["Action"]))


@pytest.mark.parametrize("name", sorted(path.name for path in INFRA.glob("*-policy.json")))
def test_a_policy_is_one_that_iam_takes(name: str) -> None:
    sids = [statement["Sid"] for statement in statements(name)]
    assert len(set(sids)) == len(sids) and all(re.fullmatch("[A-Za-z0-9]+", sid) for sid in sids)
    for statement in statements(name):
        assert set(statement) <= {"Sid", "Effect", "Action", "Resource", "Condition"} and statement["Effect"] == "Allow"
        assert all(re.fullmatch(r"(ec2|s3|iam):[A-Za-z]+", action) for action in each(statement["Action"]))
        assert all(one == "*" or one.startswith("arn:aws:") for one in each(statement["Resource"]))


def test_the_set_up_of_a_machine_finds_the_files_that_it_names(config: dict[str, Any]) -> None:
    [command] = config["setup_commands"]
    there = {target.removeprefix("/home/ray"): source for target, source in config["file_mounts"].items()}
    assert there["/cellnet"] == "."
    for path in re.findall(r"~/cellnet(/\S+)?", command):
        assert (ROOT / path.lstrip("/")).exists()
    sent = [path for path in ("constraints.txt", "pyproject.toml", "cellnet", "serve", "pipelines")]
    assert not any(fnmatchcase(path, left_out) for path in sent for left_out in config["rsync_exclude"])


def test_every_machine_has_a_role_whose_policies_lie_beside_it(config: dict[str, Any]) -> None:
    named = {
        re.search(r"Name: (\S+)}", line)[1]: set(re.findall(r"\S+-policy\.json", line))
        for line in (INFRA / "cluster.yaml").read_text(encoding="utf-8").splitlines()
        if "IamInstanceProfile" in line and "#" in line
    }
    assert named == {"cellnet-head": {"ec2-policy.json", "s3-policy.json"}, "cellnet-worker": {"s3-policy.json"}}
    profiles = {node["node_config"]["IamInstanceProfile"]["Name"] for node in config["available_node_types"].values()}
    assert profiles == set(named)
    assert all((INFRA / policy).is_file() for policies in named.values() for policy in policies)
    [passed] = [one for one in statements("ec2-policy.json") if one["Action"] == "iam:PassRole"]
    assert passed["Resource"].endswith("role/cellnet-worker")
