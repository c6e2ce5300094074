"""What commit afca5a4 left behind is read today: its run, its datasets, its portable folder.

tests/fixtures/afca5a4.tar.xz was made by that commit on CPUs, with 8 virtual devices: a run of 8
steps as it stood after step 4, the figures of all 8, its two synthetic datasets, and its portable
folder with embeddings.
"""

import json
import tarfile
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

import vclip_jax
from vclip_jax import config as config_lib
from vclip_jax import main, prompts
from vclip_jax.datasets.synthetic.builder import RENDER_VERSION

FIXTURE = Path(__file__).parent / "fixtures/afca5a4.tar.xz"


@pytest.fixture(scope="module")
def left(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("afca5a4")
    with tarfile.open(FIXTURE) as archive:
        archive.extractall(folder, filter="data")
    # The run's own drawings, which today's renderer would draw otherwise.
    for drawn in (folder / "data/synthetic").glob("*/*.0.0"):
        today = drawn.rename(drawn.with_name(f"{RENDER_VERSION}.0.0"))
        info = today / "dataset_info.json"
        info.write_text(json.dumps(json.loads(info.read_text()) | {"version": today.name}))
    return folder


def rows(path: Path) -> dict[tuple[int, str], float]:
    """(step, figure) -> value."""
    lines = map(json.loads, path.read_text().splitlines())
    return {(line["step"], key): value for line in lines for key, value in line.items()}


@pytest.mark.slow
def test_its_run_goes_on_to_the_same_figures(left):
    config = config_lib.default()
    saved = json.loads((left / "run/config.json").read_text())
    with config.unlocked():
        config.update(ConfigDict(saved))
    config.data.data_dir = str(left / "data")
    # The prompts of that commit: one of zh/messidor has changed since.
    words = resources.files(prompts).joinpath("zh/messidor.json").read_text("utf-8")
    assert "散在硬性渗出" in words
    (left / "messidor.json").write_text(words.replace("散在硬性渗出", "少量硬性渗出"), "utf-8")
    for entry in config.evals.values():
        if entry.prompts == "zh/messidor":
            entry.prompts = str(left / "messidor.json")
    main.main(config, left / "run")
    found, expected = rows(left / "run/metrics.jsonl"), rows(left / "expected.jsonl")
    assert expected.keys() <= found.keys()
    for key, value in expected.items():
        # Bit by bit on the machine that made them; others sum in another order.
        assert found[key] == pytest.approx(value, rel=1e-3, abs=1e-5), key


def test_its_portable_folder_gives_the_same_embeddings(left):
    clip = vclip_jax.load(left / "portable")
    expected = json.loads((left / "expected_embeddings.json").read_text())
    picture = (np.arange(40 * 48 * 3, dtype=np.uint32).reshape(40, 48, 3) % 251).astype(np.uint8)
    np.testing.assert_allclose(clip.encode_image([picture]), expected["image"], atol=2e-5)
    np.testing.assert_allclose(clip.encode_text(expected["texts"]), expected["text"], atol=2e-5)
