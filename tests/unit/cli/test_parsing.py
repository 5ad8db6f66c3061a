"""What is mistyped is answered in one line that names the option, what was seen, what is wanted, and where to read."""

import argparse
import functools
from collections.abc import Iterator

import pytest

from cellnet.cli import main
from cellnet.cli.parsing import NUMBER_OR_RANGE, PAGES, Parser
from cellnet.cli.program import parser

Action = argparse.Action


@functools.cache
def commands() -> dict[str, Parser]:
    """The parser of every command, by the words that call it."""

    def below(words: str, parent: argparse.ArgumentParser) -> Iterator[tuple[str, Parser]]:
        verbs = [action for action in parent._actions if isinstance(action, argparse._SubParsersAction)]
        if not verbs:
            assert isinstance(parent, Parser)
            yield words, parent
        for name, child in verbs[0].choices.items() if verbs else ():
            yield from below(f"{words} {name}".strip(), child)

    return dict(below("", parser()))


def options(*, typed: bool) -> list[tuple[str, str]]:
    """(command, option) of every option that takes a value, checked as it is read or not; of flags likewise."""
    return [
        (words, action.option_strings[-1])
        for words, command in commands().items()
        for action in command._actions
        if action.option_strings and (action.type is not None) == typed and action.nargs != 0
    ]


def flags() -> list[tuple[str, str]]:
    return [
        (words, action.option_strings[-1])
        for words, command in commands().items()
        for action in command._actions
        if action.nargs == 0 and action.dest != "help"
    ]


def needed(words: str) -> list[str]:
    """What a command must have."""
    given = [*words.split()]
    for action in commands()[words]._actions:
        if not action.option_strings and action.nargs != "?":
            given.append("x" if action.type is None else "1")
        elif action.required:
            given += [action.option_strings[-1], "count" if action.dest == "task" else "x"]
    return given


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What is said in the one line with which a command line is refused."""
    assert main(arguments) == 2
    printed = capsys.readouterr()
    [line] = printed.err.splitlines()
    assert printed.out == "" and line.startswith("cellnet: ")
    return line.removeprefix("cellnet: ")


def called(words: str, option: str) -> str:
    """An option with its short form, where it has one, as it is named."""
    [action] = [action for action in commands()[words]._actions if option in action.option_strings]
    return "/".join(action.option_strings)


@pytest.mark.parametrize(("words", "option"), [*options(typed=True), *options(typed=False)])
def test_an_option_without_its_value_is_named(capsys: pytest.CaptureFixture[str], words: str, option: str) -> None:
    line = refused(capsys, *needed(words), option)
    assert line == f"{called(words, option)} takes a value, and none was given; see cellnet {words} --help"


PATHS = ("--config", "--html", "--report", "--lineages", "--manifest", "--points", "--coco", "--out")
"""Options whose value is a path: any text is one."""
CHECKED_LATER = ("--keep-days",)
"""By the command itself."""


@pytest.mark.parametrize(
    ("words", "option"), [pair for pair in options(typed=True) if pair[1] not in PATHS + CHECKED_LATER]
)
@pytest.mark.parametrize("value", ["x\ny", "-1", "", "nan"])
def test_a_bad_value_is_named_with_what_is_wanted(
    capsys: pytest.CaptureFixture[str], words: str, option: str, value: str
) -> None:
    line = refused(capsys, *needed(words), f"{option}={value}")
    assert line.startswith(f"{called(words, option)} takes ") and line.endswith(
        f", not {value!r}; see cellnet {words} --help"
    )


@pytest.mark.parametrize(("words", "flag"), flags())
def test_a_flag_with_a_value_is_named(capsys: pytest.CaptureFixture[str], words: str, flag: str) -> None:
    line = refused(capsys, *needed(words), f"{flag}=yes")
    assert line == f"{flag} takes no value, not 'yes'; see cellnet {words} --help"


@pytest.mark.parametrize("words", commands())
def test_an_option_that_there_is_not_is_named(capsys: pytest.CaptureFixture[str], words: str) -> None:
    given = [*needed(words), "--colour", "red"]
    assert refused(capsys, *given) == f"there is no option --colour; see cellnet {words} --help"


@pytest.mark.parametrize("words", [words for words in commands() if needed(words) != words.split()])
def test_arguments_that_are_missing_are_named(capsys: pytest.CaptureFixture[str], words: str) -> None:
    line = refused(capsys, *words.split())
    assert line.startswith("nothing was given for ") and line.endswith(f"; see cellnet {words} --help")


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("", "nothing was given for COMMAND; see cellnet --help"),
        ("trian bank", "there is no command 'trian'; did you mean train?"),
        ("bnak show", "there is no command 'bnak'; did you mean bank?"),
        ("foo", "COMMAND takes bank, train, tune, calibrate, evaluate, suggest, registry, pipeline, predict, serve or "
                "settings, not 'foo'; see cellnet --help"),
        ("bank", "nothing was given for VERB; see cellnet bank --help"),
        ("bank shwo", "there is no verb 'shwo'; did you mean show?"),
        ("bank x", "VERB takes import, show, label, labels, export, diff, sample, gc or shards, not 'x'; see cellnet "
                   "bank --help"),
        ("bank show a b", "nothing more is wanted, and 'b' was given; see cellnet bank show --help"),
        ("train bank", "nothing was given for --task; see cellnet train --help"),
        ("train bank --tsk count", "there is no option --tsk; did you mean --task?"),
        ("train --epochs=6", "there is no option --epochs=6; write --set epochs=6"),
        ("bank import --colour red", "there is no option --colour; see cellnet bank import --help"),
        ("train --tas", "--task takes a value, and none was given; see cellnet train --help"),
        ("train bank --task sort", "--task takes classify or count, not 'sort'; see cellnet train --help"),
        ("predict a.png --csv --json", "--csv and --json exclude each other; choose one; see cellnet predict --help"),
        ("predict x --re r@1", "--re is short for --regressor or --registry; write it out; see cellnet predict --help"),
        ("predict a.png --pixel-um 0", "--pixel-um takes micrometres above 0, not '0'; see cellnet predict --help"),
        ("registry gc --keep-days x", "--keep-days takes a number, not 'x'; see cellnet registry gc --help"),
        ("train bank --task count --epochs 6", "there is no option --epochs; write --set epochs=6"),
        ("train bank --task count --epoch 6", "there is no option --epoch; did you mean --set epochs=6?"),
        ("train bank --task count --learning-rte", "there is no option --learning-rte; did you mean --set "
                                                   "learning_rate=VALUE?"),
        ("tune bank --task count --epoch 6", "there is no option --epoch; did you mean --set train.epochs=6?"),
        ("tune bank --task count --learning-rate=1e-3 --json", "there is no option --learning-rate=1e-3; write --set "
                                                               "train.learning_rate=1e-3"),
        ("train bank --task count --width --json", "there is no option --width; write --set model.width=VALUE"),
        ("bank shards bank --task count --epochs=6", "there is no option --epochs=6; write --set epochs=6"),
        ("tune bank --task count --epochs 6", "there is no option --epochs; write --set train.epochs=6"),
        ("bank import a b --epochs 3", "there is no option --epochs; epochs is a setting of cellnet train"),
        ("predict a.png --regstry b", "there is no option --regstry; did you mean --registry?"),
        ("--colour train bank --task count", "there is no option --colour; see cellnet --help"),
    ],
)  # fmt: skip
def test_other_slips(capsys: pytest.CaptureFixture[str], typed: str, line: str) -> None:
    assert refused(capsys, *typed.split()) == line


@pytest.mark.parametrize("workers", ["0", "two", "1:", "4:1", "0:2", "1:2:3", "-1", "1.5", ""])
def test_a_wrong_number_or_range_is_named(capsys: pytest.CaptureFixture[str], workers: str) -> None:
    line = refused(capsys, "train", "bank", "--task", "count", f"--workers={workers}")
    assert line.startswith(f"--workers takes a number from 1, or MIN:MAX like 1:4, not '{workers}'; ")


def test_what_is_right_is_read() -> None:
    assert [NUMBER_OR_RANGE(text) for text in ("1", "12", "1:4", "3:3")] == [1, 12, (1, 4), (3, 3)]
    assert [PAGES(text) for text in ("middle", "all", "2")] == ["middle", "all", 2]
