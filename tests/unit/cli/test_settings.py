"""`cellnet settings`, and what it lists being what commands take."""

import json

import pytest

from cellnet.cli import main
from cellnet.cli.settings import settings_by_command
from cellnet.config.bank import BankSettings
from cellnet.config.loading import load_config
from cellnet.config.train import TrainConfig
from cellnet.config.tune import TuneConfig


def told(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["settings", *words]) == 0
    return capsys.readouterr().out


def test_all_are_listed_by_command_with_default_values_and_meaning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = told(capsys)
    assert max(map(len, out.splitlines())) <= 80
    headings = [line for line in out.splitlines() if line.startswith("cellnet ")]
    assert headings == [
        "cellnet train --set KEY=VALUE; cellnet tune --set train.KEY=VALUE",
        "cellnet tune --set KEY=VALUE",
        "cellnet bank import --set KEY=VALUE, of a new bank",
    ]
    assert "\n  epochs=auto\n      a whole number from 1 or auto. Passes over the training tiles;" in out
    assert "\n  model.weights=\n      a text. What the network starts from" in out


def test_a_word_chooses_by_key_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(told(capsys, "ASHA", "--json"))
    assert [(row["command"], row["key"], row["default"]) for row in rows] == [("tune", "stop_early", True)]
    assert "augment.blur=" in told(capsys, "blur")
    assert main(["settings", "colour"]) == 2
    assert capsys.readouterr().err == "cellnet: no setting has the word 'colour'; see all with: cellnet settings\n"


def test_what_is_listed_is_taken() -> None:
    kinds = {"train": (TrainConfig, {"task": "count"}), "bank import": (BankSettings, {})}
    kinds["tune"] = (TuneConfig, {"train.task": "count"})
    for command, settings in settings_by_command().items():
        kind, fixed = kinds[command]
        sets = [f"{one.key}={json.dumps(one.default, default=list)}" for one in settings if one.default is not None]
        assert load_config(kind, file=None, sets=sets, **fixed) == load_config(kind, file=None, sets=[], **fixed)
