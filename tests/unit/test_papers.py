"""The pages for people: links lead somewhere, commands are the program's own, and what is named exists."""

import argparse
import contextlib
import io
import pkgutil
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import pytest
from pydantic import BaseModel

from cellnet.cli import program
from cellnet.config.bank import BankSettings
from cellnet.config.train import TrainConfig
from cellnet.config.tune import TuneConfig
from cellnet.errors import CellnetError
from pipelines.__main__ import VERBS

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("cellnet", "pipelines", "serve")
ROOMS: Final = (*PACKAGES, "infra", "tests")
PAGES: Final = sorted([*ROOT.glob("*.md"), *(page for room in ROOMS for page in (ROOT / room).rglob("*.md"))])
COMMANDS: Final = ("cellnet", ".venv/bin/cellnet", "python -m cellnet", "python -m pipelines")
"""How a command line of ours begins."""
COMMAND: Final = re.compile(rf"(?:^\s*|\s--\s)({'|'.join(map(re.escape, COMMANDS))})(?=\s)(.*)")
GLOSSARY: Final = ROOT / "cellnet" / "first-plate.md"
WORDS: Final = {
    "lineage": r"lineages?",
    "frame": r"frames?",
    "tile": r"tiles?",
    "group": r"groups?",
    "batch": r"batch(es)?",
    "test": r"test\s+(split|frames?|groups?|tiles?)",
    "holdout": r"holdouts?",
    "champion": r"champions?",
    "calibrate": r"(re)?calibrat(e[sd]?|ing|ions?)",
    "unfamiliar": r"unfamiliar",
}
"""Those of the glossary, and how sentences have them. `test` alone may be one of software."""
GUIDES: Final = [ROOT / "README.md", GLOSSARY, *(ROOT / room / "README.md" for room in (*PACKAGES, "infra"))]
"""Pages that a newcomer reads."""
OF_NOW: Final = [page for page in PAGES if page.name != "CHANGELOG.md"]
"""Pages that tell of what is there, and not of what was."""


def each(pages: Sequence[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", pages, ids=[str(page.relative_to(ROOT)) for page in pages])


class Command(NamedTuple):
    """A command line of a page."""

    words: list[str]
    """After `cellnet`."""
    whole: bool
    """Whether it is to be typed as it stands; within a sentence only its option may be meant."""


def blocks_of(text: str) -> Iterator[str]:
    """The code blocks of a page: indented by four, or between fences."""
    yield from (match[1] for match in re.finditer(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL))
    yield from (match[0] for match in re.finditer(r"(?<=\n\n)(?: {4}.*\n+)+", text))


def prose_of(text: str) -> str:
    """A page without its code blocks."""
    text = re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"(?<=\n\n)(?: {4}.*\n+)+", "", text)


def code_of(text: str) -> Iterator[str]:
    """What stands between backticks within the sentences of a page."""
    return (" ".join(code.split()) for code in re.findall(r"`([^`]+)`", prose_of(text)))


def commands_of(text: str) -> Iterator[Command]:
    """Every command line of ours on a page, as words after `cellnet`."""
    lines = [(line, True) for block in blocks_of(text) for line in re.sub(r"\\\n", " ", block).splitlines()]
    for line, whole in [*lines, *((code, False) for code in code_of(text))]:
        if match := COMMAND.search(line.split(" # ")[0]):
            words = shlex.split(match[2], comments=True)
            if match[1] == "python -m pipelines":
                if words[0] in ("VERB", "--help"):
                    continue
                words = [*VERBS[words[0]], *words[1:]]
            yield Command([word for word in words if word != "…"], whole)


def parsers_of(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its commands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in set(action.choices.values()):
                yield from parsers_of(below)


def why_not(command: Command) -> str:
    """Why the program does not take a command line; empty if it does."""
    parser = program.parser()
    if not command.whole:  # one that is only named
        for below in parsers_of(parser):
            for action in below._actions:
                action.required = False
    stderr = io.StringIO()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(stderr):
            parser.parse_args(command.words)
    except CellnetError as error:
        return f"cellnet {' '.join(command.words)}: {error}"
    except SystemExit as error:
        return f"cellnet {' '.join(command.words)}: {stderr.getvalue()}" if error.code else ""
    return ""


def settings_of(kind: type[BaseModel]) -> Iterator[str]:
    """The dotted keys of a configuration."""
    for name, field in kind.model_fields.items():
        yield name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from (f"{name}.{below}" for below in settings_of(field.annotation))


def unexplained(text: str, glossary: str, *, is_glossary: bool = False) -> Iterator[str]:
    """Words of the glossary whose first place in a page's sentences is no link to what they mean."""
    prose = re.sub(r"^#.*$|`[^`]*`|!\[[^\]]*\]\([^)]*\)", "", prose_of(text), flags=re.MULTILINE)
    for word, form in WORDS.items():
        place = re.compile(rf"(?<!\w)(?<![\w-]){form}(?![\w-])", re.IGNORECASE)
        plain = re.sub(r"\]\([^)]*\)", lambda target: "]" + " " * (len(target[0]) - 1), prose)  # a target is no use
        if first := place.search(plain):
            link = re.match(
                rf"\]\((\S*{re.escape(glossary)}|{'' if is_glossary else '(?!)'})#{word}\)", prose[first.end() :]
            )
            if link is None or prose[first.start() - 1] != "[":
                yield f"{word}: {' '.join(prose[max(0, first.start() - 15) : first.end() + 10].split())}"


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    words = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower())
    return words.strip().replace(" ", "-")


def anchors_of(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)}


def test_the_readme_is_a_page_that_a_stranger_reads() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


@each(PAGES)
def test_links_and_pictures_lead_somewhere(page: Path) -> None:
    missing = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        there = page.parent / name if name else page
        if not there.exists() or (anchor and anchor not in anchors_of(there)):
            missing.append(target)
    assert missing == []


def test_the_glossary_explains_its_words() -> None:
    assert [word for word in WORDS if word not in anchors_of(GLOSSARY)] == []


@each(GUIDES)
def test_words_of_the_glossary_are_linked_where_they_first_come(page: Path) -> None:
    assert list(unexplained(page.read_text(encoding="utf-8"), GLOSSARY.name, is_glossary=page == GLOSSARY)) == []


def test_a_word_that_is_used_before_it_is_linked_would_be_told() -> None:
    linked = "A [Frame](cellnet/first-plate.md#frame) of frames."
    assert list(unexplained(f"# Frames\n\n`frame`\n\n{linked}", "first-plate.md")) == []
    assert list(unexplained(f"Frames first. {linked}", "first-plate.md")) == ["frame: Frames first. A"]
    assert list(unexplained("A [tile](other.md#tile).", "first-plate.md")) == ["tile: A [tile](other.md"]


def test_every_page_is_reached_from_the_readme() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    linked = {ROOT / target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)}
    pages = [page for page in PAGES if ROOT in (page.parent, page.parent.parent)]
    assert [str(page.relative_to(ROOT)) for page in pages if page not in linked] == ["README.md"]


@each(OF_NOW)
def test_the_program_takes_the_command_lines(page: Path) -> None:
    commands = list(commands_of(page.read_text(encoding="utf-8")))
    assert [reason for command in commands if (reason := why_not(command))] == []


def test_the_command_lines_of_the_pages_are_found() -> None:
    commands = [command for page in OF_NOW for command in commands_of(page.read_text(encoding="utf-8"))]
    assert sum(command.whole for command in commands) > 30
    verbs = {
        " ".join(command.words[:2] if command.words[0] in ("bank", "registry") else command.words[:1])
        for command in commands
    }
    assert verbs >= {"bank import", "train", "tune", "evaluate", "registry promote", "predict", "serve"}


def test_an_option_that_the_program_does_not_have_would_be_told() -> None:
    page = "Type\n\n    cellnet train bank --task classify --wrong   # so\n\nor `cellnet tune --wrong`.\n"
    assert ["--wrong" in why_not(command) for command in commands_of(page)] == [True, True]


@each(OF_NOW)
def test_options_in_sentences_and_comments_are_those_of_a_command(page: Path) -> None:
    known = {option for parser in parsers_of(program.parser()) for option in parser._option_string_actions}
    text = page.read_text(encoding="utf-8")
    in_sentences = {code.split()[0].partition("=")[0] for code in code_of(text) if code[:2] == "--"}
    lines = [line for block in blocks_of(text) for line in block.splitlines() if COMMAND.search(line)]
    in_comments = {option for line in lines for option in re.findall(r"--[a-z][\w-]*", line.partition(" # ")[2])}
    assert (in_sentences | in_comments) - known == set()


@each(OF_NOW)
def test_settings_are_those_of_a_configuration(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    known = {*settings_of(TrainConfig), *settings_of(TuneConfig), *settings_of(BankSettings), "KEY"}
    known |= {f"space.{key}" for key in settings_of(TrainConfig)}
    named = set(re.findall(r"--set '?([\w.]+)=", text))
    sections = {key.partition(".")[0] for key in known if "." in key}
    named |= {code for code in code_of(text) if re.fullmatch(rf"({'|'.join(sections)})\.[\w.]+", code)}
    assert named - known == set()


@each(OF_NOW)
def test_files_modules_and_targets_that_are_named_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = []
    for code in [*code_of(text), *(word for block in blocks_of(text) for word in block.split())]:
        path = re.match(rf"(?:{'|'.join(ROOMS)})/(?!\S*[A-Z]{{4}}\.)[\w./-]*", code)
        if path and not (ROOT / path[0]).exists():
            missing.append(code)
        if re.fullmatch(rf"({'|'.join(PACKAGES)})(\.\w+)+(:\w+)?", code) and not (page.parent / code).exists():
            try:
                pkgutil.resolve_name(code)
            except (ImportError, AttributeError, ValueError):
                missing.append(code)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    typed = [line for block in blocks_of(text) for line in block.splitlines()] + list(code_of(text))
    missing += [line for line in typed if (match := re.match(r"\s*make ([\w-]+)", line)) and match[1] not in targets]
    assert missing == []


def test_the_tree_shows_every_room() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    [tree] = [block for block in blocks_of(text) if block.lstrip().startswith("cellnet/")]
    shown: dict[str, set[str]] = {}
    for line in tree.splitlines():
        match = re.match(r"( {4}| {6})(\S+)", line)
        if match and len(match[1]) == 4:
            shown[package := match[2].rstrip("/")] = set()
        elif match:
            shown[package].add(match[2].rstrip("/"))
    for package in PACKAGES:
        rooms = {
            path.stem for path in (ROOT / package).iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
        }
        assert shown[package] == rooms - {"__init__"}
    assert shown.keys() == set(ROOMS)
