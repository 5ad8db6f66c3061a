"""`python -m pipelines VERB …`, each time in a process of its own."""

import subprocess
import sys

import pytest

from pipelines.__main__ import VERBS

Ended = subprocess.CompletedProcess[str]


def python(*arguments: str) -> Ended:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_a_verb_is_the_command_of_that_verb() -> None:
    done = python("-m", "pipelines", "promote", "--help")
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("usage: cellnet registry promote ")
    done = python("-m", "pipelines", "train", "bank")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "cellnet: nothing was given for --task; see cellnet train --help\n"


def test_without_a_verb_it_says_which_there_are() -> None:
    done = python("-m", "pipelines")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")] == list(VERBS)
    done = python("-m", "pipelines", "trian", "bank")
    assert (done.returncode, done.stderr) == (2, f"pipelines: no verb 'trian'; there is {', '.join(VERBS)}\n")


@pytest.mark.parametrize("verb", VERBS)
def test_a_job_started_the_old_way_is_told_the_new_one(verb: str) -> None:
    done = python("-m", f"pipelines.{verb}", "bank", "--task", "count")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"pipelines: type python -m pipelines {verb} …, with a blank before the verb\n"


@pytest.mark.parametrize(
    "arguments", [("-m", "pipelines.train", "--help"), ("-mpipelines.train",), ("-X", "utf8", "-Bm", "pipelines.train")]
)
def test_however_it_is_typed(arguments: tuple[str, ...]) -> None:
    done = python(*arguments)
    assert (done.returncode, done.stdout) == (2, "") and "type python -m pipelines train …" in done.stderr


def test_a_module_that_never_was_a_job_points_to_the_help() -> None:
    done = python("-m", "pipelines.cluster")
    assert (done.returncode, done.stderr) == (2, "pipelines: see python -m pipelines --help\n")


def test_a_program_may_import_the_jobs() -> None:
    """As Ray's workers and anybody's scripts do, whatever their own arguments are."""
    done = python("-c", "import pipelines; print('here')", "-m", "pipelines.train")
    assert (done.returncode, done.stdout) == (0, "here\n"), done.stderr
    done = python("-m", "timeit", "-n", "1", "-r", "1", "-s", "import pipelines", "pipelines")
    assert done.returncode == 0, done.stderr
