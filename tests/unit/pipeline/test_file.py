"""The file of a pipeline: what is wrong with it is told in a line that names the file and the key."""

from pathlib import Path

import pytest

from cellnet.errors import ConfigError
from cellnet.pipeline.file import PipelineFile

PLACES = "bank: bank\nregistry: s3://lab/registry\n"


def read(folder: Path, text: str) -> PipelineFile:
    (folder / "lab week.yaml").write_text(text)
    return PipelineFile.read(folder / "lab week.yaml")


def test_relative_places_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CELLNET_TRUSTED_KEYS", raising=False)
    file = read(tmp_path, f"{PLACES}runs: ../runs\nsigning_key: key.pem\nmodels: {{count: {{train: {{}}}}}}\n")
    assert str(file.places.bank) == str(tmp_path / "bank")
    assert str(file.places.runs) == str(tmp_path.parent / "runs")
    assert str(file.places.registry) == "s3://lab/registry"
    assert file.places.signing_key == str(tmp_path / "key.pem") and file.places.trusted_keys is None
    assert file.name == "lab-week", "after the file, in letters of a key"


def test_a_folder_that_a_ray_job_would_lose_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(ConfigError, match=r"lab week\.yaml: a Ray job runs in a copy .*'bank' would be lost"):
        read(tmp_path, f"{PLACES}models: {{count: {{train: {{}}}}}}\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("models: {count: {train: {}}}\nbanks: x\n", r"'banks': there is no such setting; did you mean bank\?"),
        ("models: {count: {train: {epochs: 5}}}\n", r"'models\.count\.train\.epochs': there is no such setting"),
        ("models: {count: {train: {}, tune: {}}}\n", r": a model takes train or tune; write one of both"),
        ("models: {sort: {train: {}}}\n", r"models\.sort.*classify"),
        ("models: {}\n", r"'models': .*at least 1 item"),
        ("models: {count: {train: {}}}\npromote: {alias: ../x}\n", r"'promote\.alias': String should match"),
        ("models: {count: {train: {}}}\ndeploy: {address: 'http://a'}\n", r": deploy follows what is promoted"),
        ("models: {count: {train: {}}}\npromote: {}\ndeploy: {}\n", r": deploy takes config"),
        ("models: {count: {train: {}}}\nevaluate: [{split: holdut}]\n", r"'evaluate\.0\.split': Input should be"),
        ("models: [\n", r": .*line 4"),
    ],
)
def test_what_is_wrong_is_told_in_a_line_with_the_file_and_the_key(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"lab week\.yaml.*{said}") as refused:
        read(tmp_path, PLACES + text)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"lab week\.yaml: it is larger than 1,048,576 bytes"):
        read(tmp_path, "#" * 2**20 + "\n")
