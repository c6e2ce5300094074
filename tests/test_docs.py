"""What the documentation says can be typed: commands, keys, names, paths and links exist.

Nothing is run. Commands in blocks are parsed by the module's own parser, and configs are loaded and
validated; in running text a command may be cut short, but what is there must exist.
"""

import argparse
import ast
import copy
import importlib
import re
import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest
import yaml
from absl import flags
from ml_collections import config_flags

from vclip_jax import __main__ as vclip
from vclip_jax import config as config_lib
from vclip_jax import prompts
from vclip_jax.config import checks, command_line
from vclip_jax.console import commands
from vclip_jax.datasets.catalog import DATASETS
from vclip_jax.predict.pretrained import Pretrained

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
TRANSLATED = [
    (path.with_name(f"{path.name.removesuffix('.zh.md')}.md"), path)
    for path in PAGES
    if path.name.endswith(".zh.md")
]
each_translation = pytest.mark.parametrize(
    ("english", "chinese"), TRANSLATED, ids=lambda page: page.stem
)
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)

# What people are to replace -> an instance of it.
PLACEHOLDERS = {
    "configs/X.py": "configs/quickstart.py",
    "C": "configs/quickstart.py",
    "NAME": "fives",
    "--config.total_steps=STEPS": "--config.total_steps=100",
}
SHORT = {"drills": "vclip drills"}
# `vclip eval ... --step best`
DOTS = "--config configs/X.py --workdir W"
NO_KEYS = (
    "train.csv",
    "config.json",
    "config.py",
    "config.a.b",
    "config.KEY",
    "model.safetensors",
    "tokenizer.json",
)
FOREIGN_FLAGS = {
    "--no-deps",
    "--disable-pip",
    "--gpus-per-task",
    "--requeue",
    "--help",
    "--logdir",
    "--backend-store-uri",
    # The names of before, which docs/commands.md mentions.
    "--checkpoint",
    "--target",
    "--output",
    "--data_dir",
}


class Code(NamedTuple):
    """The code of a page."""

    blocks: list[tuple[str, str]]
    """Language ("" of an indented one) and content."""
    spans: list[str]

    @property
    def all(self) -> str:
        return "\n".join([content for _, content in self.blocks] + self.spans)


def code_of(text: str) -> Code:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, re.M | re.S)
    text = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.M | re.S)
    indented = re.findall(r"(?<=\n\n)((?: {4}.*\n+)+)", text)
    blocks += [("", re.sub("^    ", "", block, flags=re.M)) for block in indented]
    for block in indented:
        text = text.replace(block, "")
    return Code(blocks, [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text)])


def commands_in(code: Code) -> list[str]:
    """Whole commands; of spans those with flags, as others may be cut short."""
    lines = [
        line
        for language, block in code.blocks
        if language in ("", "bash", "sh")
        for line in re.sub(r" *\\\n *", " ", block).splitlines()
    ]
    for span in code.spans:
        first, _, rest = span.partition(" ")
        span = f"{SHORT[first]} {rest}" if first in SHORT else span
        if "--" in span or first == "drills":
            lines.append(span.replace("[--", "--").removesuffix("]"))
    known = "|".join(vclip.COMMANDS)
    found = (re.search(rf"python -m vclip_jax.*|\bvclip (?:{known})\b.*", line) for line in lines)
    return [match[0] for match in found if match]


def split_command(words: list[str]) -> tuple[str, list[str]]:
    """The name of a command in `vclip.COMMANDS` ("" for the trainer's module), and its words."""
    if words[0] == "vclip" or words[:3] == ["python", "-m", "vclip_jax"]:
        rest = words[1:] if words[0] == "vclip" else words[3:]
        assert rest, "no command"
        assert rest[0] in vclip.COMMANDS, rest[0]
        return rest[0], rest[1:]
    if words[2] == "vclip_jax.main":
        return "", words[3:]
    names = {c.module.removesuffix(".__main__"): n for n, c in reversed(vclip.COMMANDS.items())}
    assert words[2] in names, words[2]
    return names[words[2]], words[3:]


def parser_of(name: str) -> argparse.ArgumentParser:
    module = importlib.import_module(vclip.COMMANDS[name].module)
    return module._export_parser() if name == "export" else module._parser()


def parse_main(argv: list[str], built: Sequence[str] = ()) -> None:
    """The trainer's command line, with flags of its own so that nothing stays behind."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", flag_values=values, sys_argv=argv)
    for flag in flags.FLAGS.flags_by_module_dict()[command_line.__name__]:
        if not flag.name.startswith("config"):
            values[flag.name] = copy.deepcopy(flag)
    checks.check_overrides(argv)
    assert values(argv)[1:] == [], "words that are no flags"
    assert values.workdir, "no --workdir"
    assert (values.mode == "compile") == bool(values.topology)
    if values.topology:
        assert re.fullmatch(r"(\d+x)?(v4|v5e|v5p|v6e|7x|h100):\d+(x\d+)*", values.topology)
    checks.validate(values.config, devices=1, training=values.mode != "eval")
    for entry in values.config.evals.values():
        assert entry.dataset.partition("/")[0] in (*DATASETS, "synthetic", *built), entry.dataset
        if entry.prompts != "labels":
            prompts.load(entry.prompts)


def subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    choices = [a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(choices[0]) if choices else {}


def options_of(parser: argparse.ArgumentParser) -> set[str]:
    own = {option for action in parser._actions for option in action.option_strings}
    return own.union(*map(options_of, subcommands(parser).values()))


def known_flags() -> set[str]:
    """Of everything in the repository that takes any."""
    known = FOREIGN_FLAGS.union(
        *(options_of(parser_of(n)) for n, command in vclip.COMMANDS.items() if not command.mode)
    )
    known |= {"--config"} | {
        f"--{flag.name}" for flag in flags.FLAGS.flags_by_module_dict()[command_line.__name__]
    }
    scripts = [*(ROOT / "benchmarks").glob("*.py"), *(ROOT / "launch").glob("*.sh")]
    scripts.append(ROOT / "tests/parity/conftest.py")
    known |= {flag for path in scripts for flag in re.findall(r"--[\w-]+", path.read_text())}
    settings = "\n".join(path.read_text() for path in (ROOT / "launch").glob("*.sh"))
    return known | {f"--{name}" for name in re.findall(r"^ *option ([\w-]+)", settings, re.M)}


def slug(heading: str) -> str:
    return re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", heading.strip().lower()))


# --- The extraction itself: a test that finds nothing would pass.


def test_code_is_found_in_blocks_spans_and_short_forms():
    text = (
        "Say `vclip eval ... --step best`, `drills\nkill`, or `vclip audit` alone:\n\n"
        "    .venv/bin/vclip predict \\\n        --model W a.jpg\n\n"
        "```bash\nfind . | python -m vclip_jax.report W\n```\n"
    )
    assert commands_in(code_of(text)) == [
        "python -m vclip_jax.report W",
        "vclip predict --model W a.jpg",
        "vclip eval ... --step best",
        "vclip drills kill",
    ]


def test_there_are_commands_to_check():
    found = [command for page in PAGES for command in commands_in(code_of(page.read_text()))]
    assert len(found) > 40
    for name in set(vclip.COMMANDS) - {"config"}:  # which has no flags
        assert any(f"vclip {name}" in command for command in found), name


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize(
    "line",
    [
        "vclip trian --config configs/quickstart.py --workdir W",
        "python -m vclip_jax.mian --config configs/quickstart.py --workdir W",
        "python -m vclip_jax.main --config configs/quickstart.py --workdir W --mode compile",
        "vclip train --config configs/quickstart.py --workdir W --config.sed=1",
        "vclip train ... --speed 9",
        "vclip train ... --mode eval",
        "vclip train ... --model F",
        "vclip train --config configs/none.py --workdir W",
        "vclip eval --config configs/external.py:messydor --workdir W",
        "vclip plan ...",
        "vclip train ... --config.data.fit=round",
        "vclip datasets build messydor --source DIR --data-dir D",
        "vclip predict --model W",
        "vclip predict --checkpoint W a.jpg",
    ],
)
def test_a_wrong_command_is_found(line, monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises((AssertionError, ValueError, OSError, AttributeError, flags.Error)):
        check_command(line)


def check_command(line: str, built: Sequence[str] = ()) -> None:
    """Raises unless the program accepts the command; `built` are names of datasets, beside ours."""
    words = shlex.split(line.replace(" ...", f" {DOTS}", 1), comments=True)
    name, arguments = split_command([PLACEHOLDERS.get(word, word) for word in words])
    try:
        if not name or vclip.COMMANDS[name].mode:
            mode = vclip.COMMANDS[name].mode if name else ""
            parse_main([line, *command_line._own_flags(arguments, mode)], built)
            return
        with mock.patch.object(commands, "note_once", side_effect=AssertionError("an old name")):
            options = parser_of(name).parse_args(arguments)
    except SystemExit as end:
        raise AssertionError(f"refused: {line}") from end
    named = [getattr(options, name, None) for name in ("dataset", "name", "training", "evaluation")]
    for name in filter(None, named):
        assert name.partition("/")[0] in (*DATASETS, "synthetic", *built), name


# --- The pages.


@each_page
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # by ml_collections
def test_every_command_is_one_that_its_program_accepts(page, monkeypatch, tmp_path):
    code = code_of(page.read_text())
    # Where a page has people write a file, it is there.
    monkeypatch.chdir(tmp_path)
    for path in ("configs", "launch"):
        Path(path).symlink_to(ROOT / path)
    for language, block in code.blocks:
        if language == "python" and (name := re.match(r"# (\w+\.py)\n", block)):
            Path(name[1]).write_text(block)
        if language == "json":
            Path("words.json").write_text(block)
    built = re.findall(r"--name (\w+)", code.all)
    for line in commands_in(code):
        try:
            check_command(line, built)
        except Exception as error:
            raise AssertionError(f"{page.name}: {line}: {error}") from error


@each_page
def test_every_program_and_subcommand_exists(page):
    code = code_of(page.read_text()).all
    for line in re.findall(r"(?:\bvclip|python -m vclip_jax)(?:[. ][a-z][\w.]*(?: [a-z]+)?)", code):
        name, words = split_command(line.rstrip(".").split())
        inner = {} if not name or vclip.COMMANDS[name].mode else subcommands(parser_of(name))
        assert not (words and inner) or words[0] in inner, line
    for path in re.findall(r"python ((?:benchmarks|tests)/[\w/.]+)", code):
        assert (ROOT / path).is_file(), path
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    for target in re.findall(r"\bmake ([a-z]+)", code):
        assert target in targets, f"make {target}"


@each_page
def test_every_flag_exists(page):
    code = code_of(page.read_text()).all
    named = set(re.findall(r"(?<![\w-])--[a-zA-Z][\w-]*", code))
    assert not {flag for flag in named if flag.startswith("--xla_")} - {
        "--xla_force_host_platform_device_count"
    }
    assert not {flag for flag in named if not flag.startswith("--xla_")} - known_flags()


@each_page
def test_every_configuration_key_exists(page):
    code = code_of(page.read_text()).all
    for key in set(re.findall(r"(?<![\w./])(?:--)?(config\.[\w.]*\w)", code)):
        if key not in NO_KEYS:
            checks.check_overrides([f"--{key}"])


@each_page
def test_every_value_of_a_key_is_one_that_it_takes(page):
    """`loss.kind = "sigmoid"`, with or without `config.`, and keys alone as tables name them."""
    sections = "|".join(
        key for key, value in config_lib.default().items() if hasattr(value, "keys")
    )
    for span in code_of(page.read_text()).spans:
        found = re.fullmatch(rf"(?:config\.)?((?:(?:{sections})\.)?\w+(?:\.\w+)*) = (.+)", span)
        if found:
            config = config_lib.default()
            config.eval_every = 10  # some keys need it
            config.update_from_flattened_dict({found[1]: ast.literal_eval(found[2])})
            checks.validate(config, devices=1, training=False)
        elif re.fullmatch(rf"(?:{sections})\.[a-z_]+", span) and span not in NO_KEYS:
            checks.check_overrides([f"--config.{span}"])


@each_page
def test_every_prompt_set_exists(page):
    code = code_of(page.read_text()).all
    named = set(re.findall(r"(?<![\w/.])((?:zh|zh_grammar|en|flair|flair_ek)/\w+)(?![\w/])", code))
    assert named <= set(prompts.known())


@each_page
def test_every_path_of_the_repository_exists(page):
    code = code_of(page.read_text())
    folders = r"(?:vclip_jax|tests|benchmarks|configs|launch|docs)/"
    named = [span for span in code.spans if re.fullmatch(folders + r"[\w/.-]*", span)]
    for _, block in code.blocks:  # "vclip_jax/models/losses.py optim.py  what they are"
        for line in block.splitlines():
            if re.match(folders, line):
                first, *others = re.split(r"\s{2,}|$", line)[0].split()
                if not first.endswith(".sh"):
                    folder = first.partition("/")[0]
                    named += [first, *(f"{folder}/{other}" for other in others)]
    for path in set(named) - set(PLACEHOLDERS):
        assert (ROOT / path).exists() or re.search(r"[A-Z]{3,}", path), path


@each_page
def test_every_relative_link_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        if re.match(r"\w+:", link):
            continue
        target = (page.parent / path) if path else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)", target.read_text(), re.M)
            assert anchor in map(slug, headings), link


@each_page
def test_python_is_valid_and_calls_what_the_model_has(page):
    for language, block in code_of(page.read_text()).blocks:
        if language == "python":
            for node in ast.walk(ast.parse(block)):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    if node.value.id == "clip":
                        assert hasattr(Pretrained, node.attr) or node.attr in Pretrained.__doc__
                    if node.value.id == "vclip_jax":
                        assert hasattr(importlib.import_module("vclip_jax"), node.attr)


# --- Pages together.


def test_the_table_of_datasets_is_complete():
    text = (ROOT / "docs/datasets.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|", text, re.M)
    assert sorted(rows) == sorted([*DATASETS, "synthetic"])


def test_the_quickstarts_environment_is_the_documented_one():
    makefile = (ROOT / "Makefile").read_text()
    exports = re.findall(r"^quickstart: export (\w+) = (\S+)", makefile, re.M)
    assert exports
    text = (ROOT / "docs/performance.md").read_text()
    assert all(f"{name}={value}" in text for name, value in exports)


def test_every_page_is_in_the_navigation_once():
    def pages(entry):
        values = entry.values() if isinstance(entry, dict) else entry
        return [entry] if isinstance(entry, str) else [p for value in values for p in pages(value)]

    nav = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert sorted(nav) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


@each_translation
def test_both_languages_hold_the_same_code_figures_and_links(english, chinese):
    """If this fails: what was added to the one page is to be said in the other one too."""
    for find in (
        lambda text: code_of(text).spans,
        lambda text: re.findall(r"\d+\.\d+", text),
        lambda text: re.findall(r"\]\(([^)\s]+)\)", text),
        lambda text: commands_in(code_of(text)),
    ):
        own = set(find(english.read_text())) - {chinese.name}
        assert own == set(find(chinese.read_text())) - {english.name}


@each_translation
def test_both_languages_lead_to_each_other(english, chinese):
    assert f"]({chinese.name})" in english.read_text()
    assert f"]({english.name})" in chinese.read_text()


def test_the_readmes_fit_two_screens():
    """What does not is to go into a page of docs/."""
    for name in ("README.md", "README.zh.md"):
        assert len((ROOT / name).read_text().splitlines()) <= 90, name


def test_the_citation_names_this_version_and_the_paper():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["title"], citation["version"]) == (project["name"], project["version"])
    assert citation["license"] == project["license"]
    (paper,) = citation["references"]
    names = [author["family-names"] for author in paper["authors"]]
    assert names == ["Wei", "Liu", "Zhang", "Shi", "Yuan"]
    assert paper["year"] == 2024


def test_what_the_hooks_run_is_what_make_test_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {repo["repo"] for repo in hooks} == {"local"}
    makefile = (ROOT / "Makefile").read_text()
    for hook in (hook for repo in hooks for hook in repo["hooks"]):
        tool = hook["entry"].split()[0].removeprefix(".venv/bin/")
        assert f"$(BIN)/{tool}" in makefile, hook["id"]
