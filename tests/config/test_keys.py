"""The declarations of keys, and what is made from them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from vclip_jax import config as config_lib
from vclip_jax.config import checks, keys, saved
from vclip_jax.config.__main__ import main
from vclip_jax.config.page import page
from vclip_jax.files import packaged
from vclip_jax.models import kinds, losses, remat, vit
from vclip_jax.tracking import trackers

ROOT = Path(__file__).parents[2]
ALL = [*keys.KEYS, *(key for entry in keys.USER_NAMED_SECTIONS.values() for key in entry)]


def test_the_page_of_keys_is_what_they_declare():
    """If this fails: `vclip config > docs/config.md`."""
    assert page() == (ROOT / "docs/config.md").read_text(encoding="utf-8")


def test_every_key_is_declared_once_with_a_meaning_and_a_section():
    names = [key.name for key in keys.KEYS]
    assert len(set(names)) == len(names)
    assert {name.rpartition(".")[0] for name in names} | set(keys.USER_NAMED_SECTIONS) == set(
        keys.SECTIONS
    )
    for key in ALL:
        assert key.meaning.endswith("."), key.name
        assert "  " not in key.meaning, key.name
    mappings = {key.name for key in keys.KEYS if isinstance(key.default, dict)}  # empty
    assert {*config_lib.flatten(config_lib.default())} | mappings == {*names}


@pytest.mark.parametrize("key", ALL, ids=lambda key: key.name)
def test_a_default_is_allowed(key):
    key.check(key.default)


def test_an_error_names_the_key_its_value_and_what_is_allowed():
    (fit,) = (key for key in keys.KEYS if key.name == "data.fit")
    with pytest.raises(ValueError, match=r"^config\.data\.fit='oval' must be one of squash, pad"):
        fit.check("oval")


def test_every_alias_leads_to_a_key_and_to_one_alone():
    names = [word for key in keys.KEYS for word in key.aliases.split()]
    assert len(set(names)) == len(names)


def test_what_is_offered_is_what_there_is():
    assert tuple(kinds.LOSSES) == losses.KINDS
    assert {tower: tuple(kept) for tower, kept in remat.KEPT.items()} == keys.KEPT
    assert tuple(vit.ACTIVATIONS) == keys.ACTIVATIONS
    assert set(keys.TRACKERS) == set(trackers._OPEN)


def test_a_section_of_free_keys_is_free_with_keys_that_it_had_before():
    assert {"remat", "profile", "mesh", "evals", "systems"} <= saved.FREE_ON_RESUME
    assert not {"", "data", "model", "loss", "optimizer"} & saved.FREE_ON_RESUME


def test_only_a_kept_key_says_what_was_before_it():
    assert {key.name: key.before for key in ALL if key.before is not None} == saved.KEPT_ON_RESUME


def test_an_entry_with_an_unknown_key_is_refused_with_those_there_are():
    with pytest.raises(
        TypeError,
        match=r"prompt is no key .*: use dataset, prompts, kind, split, development, "
        r"prevalence, source",
    ):
        config_lib.zero_shot_eval("idrid", "zh/idrid", prompt="zh")


def test_a_recipe_is_printed_key_by_key(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    main(["configs/quickstart.py"])
    lines = dict(line.split(" = ", 1) for line in capsys.readouterr().out.splitlines())
    assert json.loads(lines["data.image_size"]) == 128
    assert main(["configs/quickstrat.py"]) == 1
    assert "did you mean configs/quickstart.py?" in capsys.readouterr().err


def test_keys_are_printed_without_jax():
    code = (
        "import sys\nfrom vclip_jax.config.__main__ import main\nmain([])\n"
        "print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_a_recipe_that_starts_from_a_model_has_its_sizes_and_is_valid():
    mine = config_lib.starting_from("retina-small")
    saved = json.loads((packaged.path_of("retina-small") / "config.json").read_text("utf-8"))
    for section, values in saved.items():
        for key, value in values.items() if section in ("model", "data") else ():
            found = mine[section][key]
            assert (list(found) if isinstance(found, tuple) else found) == value
    assert mine.model.whiten_pairs == 0
    mine.data.dataset = "mine"
    checks.validate(mine, devices=1)


def test_a_recipe_cannot_start_from_what_is_no_model(tmp_path):
    with pytest.raises(OSError, match=r"config\.json"):
        config_lib.starting_from(tmp_path)
    (tmp_path / "config.json").write_text('{"model": 3}')
    with pytest.raises(ValueError, match="is not the configuration of a model: it has no 'model'"):
        config_lib.starting_from(tmp_path)
