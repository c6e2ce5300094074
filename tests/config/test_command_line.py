"""A command line that is wrong is answered in one line, before JAX is imported."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from absl import flags

from vclip_jax.config import command_line
from vclip_jax.config.command_line import check_recipe

ROOT = Path(__file__).parents[2]
GOOD = ["vclip", "--config=configs/quickstart.py", "--workdir=W"]


@pytest.fixture(autouse=True)
def checkout(monkeypatch):
    monkeypatch.chdir(ROOT)
    yield
    flags.FLAGS.unparse_flags()
    for name in list(flags.FLAGS):
        if name.startswith("config."):  # defined where a command line has it
            delattr(flags.FLAGS, name)


def refusal(arguments: list[str], capsys, monkeypatch) -> str:
    monkeypatch.setattr(sys, "argv", arguments)  # where ml_collections looks for keys
    with pytest.raises(SystemExit) as ended:
        command_line.parse(arguments)
    message = str(ended.value)
    assert message.startswith("error: ")
    assert "\n" not in message
    assert not capsys.readouterr().err
    return message.removeprefix("error: ")


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (GOOD[:2], "--workdir FOLDER is needed: the folder for the run's files"),
        ([GOOD[0], GOOD[2]], "--config FILE is needed, for example configs/quickstart.py"),
        ([*GOOD, "--mode=fly"], "flag --mode=fly: value should be one of <train|eval|compile>"),
        (
            [*GOOD, "--config.total_steps=ten"],
            "flag --config.total_steps=ten: must be a whole number",
        ),
        (
            [*GOOD, "--config.optimizer.learning_rate=fast"],
            "flag --config.optimizer.learning_rate=fast: must be a number",
        ),
        (
            [*GOOD, "--config.optimizer.lr=1"],
            "unknown key config.optimizer.lr: did you mean config.optimizer.learning_rate?",
        ),
        (
            [*GOOD, "--lr=1"],
            "unknown flag --lr: keys are set with --config.KEY=VALUE, here "
            "--config.optimizer.learning_rate",
        ),
        ([*GOOD[:2], "--workdri", "W"], "unknown flag --workdri: did you mean --workdir?"),
        ([*GOOD, "--nosuch=1"], "unknown flag --nosuch: --help lists all flags"),
        ([*GOOD, "train"], "unexpected argument 'train': flags are --NAME=VALUE"),
        (
            [*GOOD, "--workdir=README.md"],
            "--workdir=README.md is not a folder: name a folder, new or not",
        ),
        (
            [*GOOD, "--config.model.vision_layers=(3,4)"],
            "config.model.vision_layers=(3, 4) must be "
            "four stages (a ResNet), such as (3, 4, 6, 3), or one number (a Vision Transformer), "
            "such as (12,)",
        ),
        (
            [*GOOD, "--config.epochs=2.5", "--config.total_steps=9"],
            "config.total_steps=9 and config.epochs=2.5 both set the length of the run: leave out "
            "one of them, or add --config.epochs=0",
        ),
        ([*GOOD, "--config.epochs=-1"], "config.epochs=-1.0 must be from 0 to 1,000,000"),
        (
            [*GOOD, "--config.data.mixture.mine"],
            "--config.data.mixture.mine: write --config.data.mixture.NAME=WEIGHT, for each dataset",
        ),
        (
            [*GOOD, "--config.data.mixture.mine=much"],
            "--config.data.mixture.mine=much: the weight must be a number",
        ),
        (
            [*GOOD, "--config.data.mixture.mine=0"],
            "config.data.mixture.mine=0.0 must be a positive number",
        ),
        (
            [*GOOD, "--config.data.mixture.mine=1"],
            "config.data.dataset='synthetic/synfundus_like-128px-12000-s0' and config.data.mixture "
            "do not go together: set it to '', or give it a weight in the mixture",
        ),
        (
            [*GOOD, "--config.evals.mine.dataset=mine"],
            "config.evals.mine: the recipe has no such entry: use fives_far, fives_like, idrid, "
            "idrid_sample, messidor_far, messidor_like, refuge_far, refuge_like, or add it there",
        ),
        (
            [*GOOD, "--config.systems.clip.weights=M"],
            "config.systems.clip: the recipe has no such entry: it has none; add it there",
        ),
        (
            [*GOOD, "--mode=compile"],
            "--mode compile and --topology, for example v5e:4x4, go together",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(arguments, message, capsys, monkeypatch):
    assert refusal(arguments, capsys, monkeypatch) == message


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("evals.fives_like.prompts={tmp}/nope.json", "{tmp}/nope.json: No such file or directory"),
        ("evals.fives_like.prompts={tmp}/bad.json", "{tmp}/bad.json is not JSON"),
        ("evals.fives_like.prompts=zh/fivs", "no prompt set is called 'zh/fivs'; did you mean zh/"),
        ("evals.fives_like.dataset=fivs", "no dataset is called 'fivs', did you mean fives?"),
        ("evals.idrid.source={tmp}/none", "{tmp}/none: No such file or directory"),
        ("data.dataset=idird", "no dataset is called 'idird', did you mean idrid?"),
        ("tokenizer.vocab={tmp}/none", "{tmp}/none: No such file or directory"),
    ],
)
def test_what_a_key_names_is_looked_for_first(setting, message, tmp_path, capsys, monkeypatch):
    (tmp_path / "bad.json").write_text("{")
    arguments = [
        *GOOD,
        f"--config.data.data_dir={tmp_path}",
        f"--config.{setting.format(tmp=tmp_path)}",
    ]
    said = refusal(arguments, capsys, monkeypatch)
    assert said.startswith(f"config.{setting.split('=')[0]}: {message.format(tmp=tmp_path)}")


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("recipe", [GOOD[1:2], ["--config", "configs/quickstart.py"]])
def test_the_recipe_may_stand_anywhere(recipe, place, capsys, monkeypatch):
    words = [["--model=retina-small"], ["--workdir=W"], ["--config.total_steps=ten"]]
    words.insert(place, recipe)
    monkeypatch.setattr(sys, "argv", ["vclip eval", *(word for part in words for word in part)])
    with pytest.raises(SystemExit) as ended:
        command_line.run(lambda: None, "eval")
    assert "flag --config.total_steps=ten: must be a whole number" in str(ended.value)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_weights_of_a_mixture_are_set_one_by_one(tmp_path, monkeypatch):
    drawn = "synthetic/synfundus_like-32px-40-s0"
    words = ["--config.data.dataset=", f"--config.data.mixture.{drawn}=2.5"]
    arguments = [*GOOD, *words, f"--config.data.data_dir={tmp_path}"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert command_line.parse(arguments) == arguments[:1]
    assert command_line.CONFIG.value.data.mixture.to_dict() == {drawn: 2.5}


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_a_weight_replaces_that_of_the_recipe(tmp_path, monkeypatch):
    drawn = "synthetic/synfundus_like-32px-40-s0"
    (tmp_path / "recipe.py").write_text(
        "from vclip_jax import config as config_lib\n\n\ndef get_config():\n"
        "    config = config_lib.small()\n"
        f"    config.data.mixture = {{{drawn!r}: 3}}\n    return config\n"
    )
    arguments = [*GOOD[:1], f"--config={tmp_path / 'recipe.py'}", "--workdir=w"]
    arguments += [f"--config.data.data_dir={tmp_path}", f"--config.data.mixture.{drawn}=2.5"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert command_line.parse(arguments) == arguments[:1]
    assert command_line.CONFIG.value.data.mixture.to_dict() == {drawn: 2.5}


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_a_dataset_of_a_mixture_that_there_is_not_is_named_first(tmp_path, capsys, monkeypatch):
    words = ["--config.data.dataset=", "--config.data.mixture.idird:a+b=1"]
    said = refusal([*GOOD, *words, f"--config.data.data_dir={tmp_path}"], capsys, monkeypatch)
    assert said.startswith(
        "config.data.mixture.idird:a+b: no dataset is called 'idird', did you mean idrid?"
    )


def options(name: str) -> set[str]:
    return set(re.findall(r"^  --(\S+)$", command_line.help_of([name, "--help"]), re.M))


def test_the_help_of_eval_lists_the_options_that_name_a_model():
    assert {"model", "step"} <= options("vclip eval")
    assert not {"model", "step"} & (options("vclip train") | options("vclip plan"))


def test_the_help_of_a_command_lists_all_flags_but_those_of_other_commands():
    flags_of_all = {flag.name for flag in flags.FLAGS.get_key_flags_for_module(command_line)}
    keys = {"config.KEY=VALUE", "data-dir"}
    assert options("vclip train") - keys == flags_of_all - {"mode", "topology"}
    assert options("vclip plan") - options("vclip train") == {"topology"}
    assert options("main.py") - keys == flags_of_all


RECIPES = sorted(
    path.name
    for path in (ROOT / "configs").glob("*.py")
    if re.search(r"def get_config\(\w", path.read_text())
)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_typing_error_in_a_recipes_argument_is_named_first(recipe, capsys, monkeypatch):
    mode = "eval" if recipe in ("external.py", "table1.py") else "train"
    arguments = ["vclip", f"--config=configs/{recipe}:idird", GOOD[2], f"--mode={mode}"]
    assert "no dataset is called 'idird'" in refusal(arguments, capsys, monkeypatch)


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_what_is_compiled_for_another_machine_may_name_what_is_there(monkeypatch):
    arguments = [*GOOD, "--config.data.dataset=ours", "--mode=compile", "--topology=v5e:4x4"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert command_line.parse(arguments) == arguments[:1]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("configs/quikstart.py", "no configs/quikstart.py: did you mean configs/quickstart.py?"),
        ("configs/none.py", "there is no configs/none.py: configs has external.py, "),
        ("configs", "there is no configs"),
        ("configs/quickstart.py:a", "it takes no argument after the colon, or needs one"),
    ],
)
def test_a_recipe_that_is_not_there_or_refuses_is_named(recipe, message):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        check_recipe(recipe)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("def get_config(:", "line 1: "),
        ("x = 1\ny = x + none", "line 2: NameError: name 'none' is not defined"),
        ("x = 1", "AttributeError"),
        ("def get_config(): return {}", "returns a dict, not a ConfigDict"),
        ("def get_config(): raise ValueError('no such thing')", "recipe.py: no such thing"),
    ],
)
def test_a_recipe_that_fails_is_named_with_its_line(tmp_path, content, message):
    path = tmp_path / "recipe.py"
    path.write_text(content)
    with pytest.raises(ValueError, match="recipe") as caught:
        check_recipe(str(path))
    assert message in str(caught.value)


def test_a_recipe_of_the_checkout_is_found_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"no configs/idrid.py here: it is in {ROOT}, run the"):
        check_recipe("configs/idrid.py")


def test_an_error_of_the_command_line_does_not_wait_for_jax():
    script = (
        "import sys\nfrom vclip_jax.config import command_line\n"
        "sys.argv = ['vclip', '--config=configs/quickstart.py', '--config.lr=1']\n"
        "try:\n    command_line.parse(sys.argv)\n"
        "except SystemExit as end:\n    print(end)\n"
        "sys.exit('jax' in sys.modules)\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "did you mean config.optimizer.learning_rate" in ended.stdout


def test_workers_of_the_trainer_do_not_import_the_trainer(tmp_path):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "import multiprocessing\n\n"
        "def get_config():\n"
        "    with multiprocessing.get_context('spawn').Pool(1) as pool:\n"
        "        modules = pool.apply(eval, ('[*__import__(\"sys\").modules]',))\n"
        "    raise ValueError(f'{len(modules)} modules, JAX {\"jax\" in modules}')\n"
    )
    command = [sys.executable, "-m", "vclip_jax.main", "--config", recipe, "--workdir", tmp_path]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "modules, JAX False" in ended.stderr


@pytest.mark.parametrize("mode", ["train", "eval", "compile", ""])
@pytest.mark.parametrize("words", [["--data-dir=D"], ["--data-dir", "D"], ["--data_dir=D"]])
def test_the_folder_of_datasets_has_the_name_of_the_other_commands(monkeypatch, mode, words):
    monkeypatch.setattr(command_line.app, "run", lambda *_, **__: None)
    monkeypatch.setattr(sys, "argv", ["vclip", *words])
    command_line.run(lambda: None, mode)
    assert "=".join(sys.argv[1 + bool(mode) :]) == "--config.data.data_dir=D"
