"""The commands: one grammar, old names with a hint, one line for what goes wrong, nothing slow."""

import io
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from absl import flags, logging

from vclip_jax import __main__ as vclip
from vclip_jax.config import command_line
from vclip_jax.console import commands
from vclip_jax.evaluation.probe import METHODS

ROOT = Path(__file__).parents[2]
SLOW = ("jax", "orbax", "flax", "numpy", "cv2", "tensorflow_datasets", "tensorflow")
# Each line of standard input is a command; answers its status, what it said, and the slow modules
# that have been imported: never any, so that one process will do.
PROGRAM = f"""
import contextlib, io, json, runpy, sys
for line in sys.stdin:
    name, *sys.argv[1:] = line.split()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            code = end.code
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
    slow = [name for name in {SLOW!r} if name in sys.modules]
    print(json.dumps([code, out.getvalue(), err.getvalue(), slow]))
"""
MODULES = {
    "train": "vclip_jax.main",
    "predict": "vclip_jax.predict",
    "embed": "vclip_jax.predict.embed",
    "probe": "vclip_jax.evaluation.probe",
    "calibrate": "vclip_jax.evaluation.calibration",
    "audit": "vclip_jax.audit",
    "datasets": "vclip_jax.datasets",
    "config": "vclip_jax.config",
    "weights": "vclip_jax.interop",
    "report": "vclip_jax.report",
    "demo": "vclip_jax.demo",
    "drills": "vclip_jax.drills",
}
OLD = [
    ("predict --checkpoint W a.jpg", "--checkpoint is called --model now", {"model": "W"}),
    ("demo --checkpoint=W --data_dir=D", "--data_dir is called --data-dir now", {"data_dir": "D"}),
    ("probe --checkpoint W --dataset fives --test_split t", "--test_split", {"test_split": "t"}),
    ("audit a b --data_dir D --split_a x", "--split_a is called --split-a now", {"split_a": "x"}),
    ("report a b --output x.html", "--output is called --out now", {"out": "x.html"}),
    ("drills kill --folder F", "--folder is called --out now", {"out": "F"}),
    ("datasets build idrid --source S --data_dir D", "--data_dir", {"data_dir": "D"}),
    (
        "datasets build generic --source S --data-dir D --label_column x",
        "--label_column is called --label-column now",
        {"label_column": "x"},
    ),
    ("datasets export x --data-dir D --target T", "--target is called --out", {"out": Path("T")}),
    (
        "weights import --format flair --source S --workdir W",
        "--workdir is called --out now",
        {"source": Path("S"), "out": Path("W")},
    ),
    (
        "weights export --format onnx --source W --target F",
        "--source is called --model now",
        {"model": "W", "out": Path("F")},
    ),
    ("weights push --source F --repo a/b", "--source is called --model now", {"model": Path("F")}),
    ("export --format onnx --source W --target F", "--target is called --out now", {"model": "W"}),
]


NO_FILE = "there is no such file or folder"
MISSING = [
    ("predict nowhere.jpg", NO_FILE),
    ("predict --model nowhere README.md", "there is no nowhere: name a workdir"),
    ("report nowhere", NO_FILE),
    ("embed retina-small nowhere --out a.parquet", "no such dataset in data"),
    ("embed nowhere README.md --out a.parquet", "there is no nowhere: name a workdir"),
    ("embed retina-small README.md nowhere --out a.parquet", NO_FILE),
    ("probe --dataset nowhere", "the dataset 'nowhere' is not in data"),
    ("calibrate nowhere", "no such dataset in data"),
    ("audit nowhere there --data-dir d", "the dataset 'nowhere' is not in d"),
    ("export --format safetensors --model nowhere --out F", "there is no nowhere: name a workdir"),
    ("weights pack --model nowhere", "there is no nowhere: name a workdir"),
    ("eval --model nowhere --workdir W", "--config FILE is needed"),
    (
        "eval --config configs/quickstart.py --workdir nowhere",
        "nowhere has no checkpoint to evaluate: train first, or name another model",
    ),
    (
        "eval --config configs/quickstart.py --workdir W --model nowhere",
        "config.restore_from: there is no nowhere: name a workdir",
    ),
    ("predict --prompts zh/five README.md", "did you mean zh/fives?"),
]
"""Commands that name what is not there, and what they answer."""


def parser_of(name: str) -> commands.Parser:
    module = __import__(vclip.COMMANDS[name].module, fromlist=["_parser"])
    return module._export_parser() if name == "export" else module._parser()


@pytest.fixture(autouse=True)
def nothing_was_noted(monkeypatch):
    monkeypatch.setattr(commands, "_noted", set())


@pytest.fixture(scope="module")
def answers() -> dict[str, tuple[int, str, str, list[str]]]:
    """`python -m ...` -> exit status, standard output and error, and slow modules imported."""
    lines = [
        *(
            f"vclip_jax {name} {word}"
            for name in vclip.COMMANDS
            for word in ("--help", "--nosuch=1")
        ),
        *(f"{module} --help" for module in MODULES.values()),
        *(f"vclip_jax {line}" for line, _ in MISSING),  # last: some import NumPy and OpenCV
    ]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input="\n".join(lines),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert not done.stderr
    return dict(zip(lines, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", vclip.COMMANDS)
def test_help_and_errors_do_not_wait_for_jax(name, answers):
    status, out, err, slow = answers[f"vclip_jax {name} --help"]
    assert (status, err, slow) == (0, "", [])
    assert out.startswith(f"usage: vclip {name} ")
    status, out, err, slow = answers[f"vclip_jax {name} --nosuch=1"]
    assert (status in (1, 2), out, slow) == (True, "", [])
    assert "error: " in err.splitlines()[-1]
    assert f"vclip {name}" in err.splitlines()[-1]


@pytest.mark.parametrize(("line", "said"), MISSING)
def test_a_name_without_a_file_is_refused_before_jax(line, said, answers):
    status, out, err, slow = answers[f"vclip_jax {line}"]
    assert (status, out) == (1, "")
    assert re.fullmatch(rf"error: .*{re.escape(said)}.*", err.splitlines()[-1])
    assert not set(slow) - {"numpy", "cv2"}


@pytest.mark.parametrize("name", MODULES)
def test_the_modules_stay_callable(name, answers):
    assert set(MODULES) == set(vclip.COMMANDS) - {"eval", "plan", "export"}
    status, out, err, slow = answers[f"{MODULES[name]} --help"]
    assert (status, err, slow) == (0, "", [])
    program = f"vclip {name}" if name != "train" else "python -m vclip_jax.main"
    assert out.startswith(f"usage: {program} ")


def test_a_command_is_listed_and_a_misspelt_one_is_named(capsys):
    for words in ([], ["--help"]):
        with pytest.raises(SystemExit, match="0"):
            vclip.main(words)
        out = capsys.readouterr().out
        assert all(re.search(rf"^  {name} ", out, re.M) for name in vclip.COMMANDS)
    with pytest.raises(SystemExit, match="2"):
        vclip.main(["pedict", "a.jpg"])
    assert "there is no pedict: did you mean predict?" in capsys.readouterr().err


def test_the_console_script_is_the_module():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"vclip": f"{vclip.__name__}:{vclip.script.__name__}"}


@pytest.mark.parametrize(("line", "note", "values"), OLD)
def test_old_names_are_taken_with_one_hint(line, note, values, capsys):
    name, *words = line.split()
    options = parser_of(name).parse_args(words)
    assert {key: getattr(options, key) for key in values} == values
    lines = capsys.readouterr().err.splitlines()
    assert all(re.fullmatch(r"note: --\S+ is called --\S+ now", said) for said in lines)
    assert any(note in said for said in lines)
    parser_of(name).parse_args(words)
    assert not capsys.readouterr().err


def test_no_option_has_underscores_or_an_old_name():
    def options(parser):
        for action in parser._actions:
            yield from action.option_strings
            if isinstance(action.choices, dict):
                for inner in action.choices.values():
                    if isinstance(inner, commands.Parser):
                        yield from options(inner)

    names = {n for name in MODULES if name != "train" for n in options(parser_of(name))}
    assert names > {"--model", "--out", "--data-dir", "--prompts"}
    assert not {name for name in names if "_" in name}
    assert not names & {"--checkpoint", "--target", "--output", "--folder", "--workdir"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("predict --promts x a.jpg", "there is no --promts: did you mean --prompts?"),
        ("predict --chekpoint W a.jpg", "there is no --chekpoint: did you mean --model?"),
        ("predict --model W a.jpg --colour red", "unrecognized arguments: --colour red"),
        ("predict --model W", "the following arguments are required: IMAGE"),
        ("export --format onnx --out F", "the following arguments are required: --model"),
        ("datasets build idird --source S", "there is no idird: did you mean idrid?"),
        ("datasets biuld idrid", "there is no biuld: did you mean build?"),
        ("datasets build idrid --sorce S", "there is no --sorce: did you mean --source?"),
        ("predict --model W --format jsno a.jpg", "invalid choice: 'jsno'"),
        ("drills kil", "there is no kil: did you mean kill?"),
    ],
)
def test_what_was_meant_is_named_before_what_is_missing(line, message, capsys):
    name, *words = line.split()
    with pytest.raises(SystemExit, match="2"):
        vclip.main([name, *words])
    last = capsys.readouterr().err.splitlines()[-1]
    assert re.match(rf"vclip {name}[\w ]*: error: ", last)
    assert message in last


def test_abbreviations_and_words_after_two_hyphens_are_as_they_were(capsys):
    parser = commands.Parser(prog="x")
    parser.add_argument("word", nargs="?")
    parser.add_argument("--max-rejects")
    parser.add_argument("--out", old=["--target"])
    assert parser.parse_args(["--max=1"]).max_rejects == "1"
    assert parser.parse_args(["--", "--target"]).word == "--target"
    assert not capsys.readouterr().err
    assert parser.parse_args(["--max_rej", "1"]).max_rejects == "1"
    assert parser.parse_args(["--out", "a --target=b"]).out == "a --target=b"


# --- How a command ends.


def raises(error: BaseException):
    def main() -> None:
        raise error

    return main


@pytest.mark.parametrize(
    ("main", "status", "said"),
    [
        (lambda: None, 0, ""),
        (lambda: 3, 3, ""),
        (raises(ValueError("no\x1b[31m")), 1, "error: no\\x1b[31m\n"),
        (raises(OSError(2, "No such file", "a")), 1, "error: [Errno 2] No such file: 'a'\n"),
        (raises(KeyboardInterrupt()), 130, ""),
        (raises(BrokenPipeError(32, "Broken pipe")), 1, "error: [Errno 32] Broken pipe\n"),
    ],
)
def test_an_expected_error_is_one_line_and_a_status(main, status, said, capsys):
    assert commands.run(main) == status
    assert capsys.readouterr() == ("", said)


def test_another_error_is_a_bug_and_stays_one():
    with pytest.raises(KeyError):
        commands.run(raises(KeyError("a")))


@pytest.mark.parametrize("count", [1, 100_000])
def test_nothing_is_said_where_the_reader_is_gone(count):
    program = (
        "import sys; from vclip_jax.console import commands\n"
        f"commands.start(lambda: commands.run(lambda: print('a line\\n' * {count})))"
    )
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, b"")


def test_no_command_has_an_own_copy_of_the_ending():
    for path in (ROOT / "vclip_jax").rglob("__main__.py"):
        assert not re.search(r'"error: |except .*OSError\) as error:\n.*print', path.read_text())


def test_the_names_of_the_methods_are_those_of_their_functions():
    from vclip_jax.evaluation.probe import few_shot  # with JAX

    assert tuple(few_shot.METHODS) == METHODS


# --- The trainer's commands.


GOOD = ("--config", "configs/quickstart.py", "--workdir", "W")


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")  # by ml_collections
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", *GOOD, "--mode=eval"), "--mode is set by the command: vclip train, vclip ev"),
        (("train", *GOOD, "--config.lr=1"), "did you mean config.optimizer.learning_rate?"),
        (("train", *GOOD, "--topology=v5e:4x4"), "vclip plan and --topology, for example v5e:4x4"),
        (("plan", *GOOD), "vclip plan and --topology, for example v5e:4x4, go together"),
        (("eval", "--config=configs/quickstart.py"), "--workdir FOLDER is needed"),
        (("train", *GOOD, "--model", "F"), "unknown flag --model: "),
        (("train", *GOOD, "--num-processes=2"), "--coordinator, --num_processes and --process_id"),
    ],
)
def test_the_trainers_command_line_is_answered_in_one_line(words, message, monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "argv", ["vclip"])
    # Without absl's handler, which would stay.
    monkeypatch.setattr(command_line.app, "run", lambda _, flags_parser: flags_parser(sys.argv))
    verbosity = logging.get_verbosity()
    with pytest.raises(SystemExit) as ended:
        vclip.main(words)
    flags.FLAGS.unparse_flags()
    logging.set_verbosity(verbosity)
    said = str(ended.value)
    assert said.startswith("error: ")
    assert message in said
    assert "\n" not in said


@pytest.mark.parametrize(
    "form", [("--model=retina-small", "--step=7"), ("--model", "retina-small", "--step", "7")]
)
def test_eval_takes_the_model_as_other_commands_do(form, monkeypatch):
    program = (
        "import sys; sys.argv = ['vclip', 'eval', *sys.argv[1:]]\n"
        "from vclip_jax import __main__ as vclip; from vclip_jax.config import command_line as c\n"
        "vclip._start = lambda: print(c.MODE.value, c.CONFIG.value.restore_from,\n"
        "                             c.CONFIG.value.restore_step)\n"
        "vclip.script()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *GOOD, *form], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("eval retina-small 7\n", "")


def test_a_stream_without_a_descriptor_is_flushed_too(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert commands.run(lambda: print("a")) == 0
