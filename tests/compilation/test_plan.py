"""Steps compiled for accelerators that are not there.

What needs a compiler of TPUs is marked; libtpu is enough (`pip install 'vclip_jax[tpu]'`):

    JAX_PLATFORMS=cpu pytest -m tpu_compile tests/compilation/test_plan.py
"""

import importlib.util
import json
import math
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from vclip_jax import config as config_lib
from vclip_jax.compilation import topologies
from vclip_jax.compilation.plan import memory_savers, report_step, vocabulary_size
from vclip_jax.config import checks
from vclip_jax.devices import sharding
from vclip_jax.devices.chips import chip_named
from vclip_jax.train.build import make_training, step_arguments

ROOT = Path(__file__).parents[2]
QUICK = {"exec_time_optimization_effort": -1.0}
"""Several times faster to compile, for the same memory and collectives."""


def recipe(name: str, *arguments: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"configs/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(*arguments)


# --- advice --------------------------------------------------------------------------------------


@pytest.fixture
def slices():
    return topologies.Topology("2xv5e:4x4", chip_named("v5e"), (4, 4), 2, (None,) * 32)


def test_what_saves_memory_is_named_from_the_cheapest_on(slices):
    config = config_lib.default()
    assert memory_savers(config, slices) == [
        "--config.remat.image=norms --config.remat.text=products",
        "--config.mesh.fsdp=4",
        "--config.micro_batches=2",
    ]
    config.remat.image, config.remat.text, config.mesh.fsdp = "norms", "products", 4
    config.micro_batches = 4
    assert memory_savers(config, slices) == [
        "--config.remat.image=blocks --config.remat.text=blocks",
        "--config.micro_batches=8",
    ]
    config.remat.image = config.remat.text = "blocks"
    assert memory_savers(config, slices) == ["--config.micro_batches=8"]


def test_the_vocabulary_is_the_runs_own_the_configs_or_berts(tmp_path):
    config = config_lib.default()
    assert vocabulary_size(config, tmp_path) == 21128
    words = tmp_path / "vocab.txt"
    words.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "眼", "底"]) + "\n")
    config.tokenizer.vocab = str(words)
    assert vocabulary_size(config, tmp_path / "elsewhere") == 7
    config.tokenizer.vocab = "captions"
    assert vocabulary_size(config, tmp_path) == 7


def compile_quickstart(workdir, *arguments):
    command = [sys.executable, "-m", "vclip_jax.main", "--config", "configs/quickstart.py"]
    command += ["--workdir", str(workdir), "--mode", "compile", *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT)


def test_a_mode_without_its_topology_is_refused(tmp_path):
    run = compile_quickstart(tmp_path)
    assert run.returncode == 1
    assert "--mode compile and --topology, for example v5e:4x4, go together" in run.stderr


# --- recipes -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["visionclip_h100_8", "visionclip"])
def test_a_recipe_traces_on_eight_devices(name):
    config = recipe(name)
    checks.validate(config, devices=8)
    mesh = sharding.make_mesh(1, jax.devices()[:8])
    training = make_training(config, mesh, 21128)
    state, batch = step_arguments(config, mesh, training)
    after, metrics = training.step.trace(state, batch).out_info
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert metrics["loss"].shape == ()


@pytest.mark.tpu_compile
@pytest.mark.parametrize(
    ("name", "topology", "changes"),
    [
        ("visionclip", "v5e:4x4", {"global_batch_size": 4096}),
        ("visionclip_tpu_v5e_256", "v5e:16x16", {}),
        # Not 512: BERT has as many positions.
        ("visionclip", "2xv5e:2x2", {"global_batch_size": 640, "mesh.fsdp": 4}),
    ],
)
def test_the_paper_sized_step_fits_on_the_chips_it_is_meant_for(name, topology, changes):
    pytest.importorskip("libtpu", reason="needs libtpu")
    config = recipe(name)
    config.update_from_flattened_dict(changes)
    chips = topologies.parse(topology)
    checks.validate(config, devices=len(chips.devices))
    report, compilation = report_step(config, chips, 21128, options=QUICK)
    assert report["fits"]
    assert report["global_batch"] == config.global_batch_size
    # The pairs of a chip, and of all of them only embeddings: no image, no mask, no activation.
    pairs, everyone = config.global_batch_size // len(chips.devices), config.global_batch_size
    assert f"[{pairs},224,224,3]" in compilation.text
    for sizes in set(re.findall(rf"\[{everyone},([\d,]+)\]", compilation.text)):
        # Between slices they travel in parts of their 1024 columns.
        assert 1024 % math.prod(map(int, sizes.split(","))) == 0, sizes


@pytest.mark.tpu_compile
def test_the_command_leaves_a_report_and_the_program(tmp_path):
    pytest.importorskip("libtpu", reason="needs libtpu")
    run = compile_quickstart(tmp_path, "--topology", "v5e:2x2")
    assert run.returncode == 0, run.stderr
    report = json.loads((tmp_path / "compile.json").read_text())
    assert {
        "topology",
        "devices",
        "global_batch",
        "compile_seconds",
        "per_device",
        "collectives",
        "placements",
    } <= report.keys()
    assert (report["topology"], report["devices"]) == ("v5e:2x2", 4)
    assert report["per_device"]["predicted_ms"] > 0
    assert "all-reduce" in report["collectives"]
    assert "HloModule" in (tmp_path / "compile_hlo.txt").read_text()
    assert "predicted step" in run.stdout


@pytest.mark.tpu_compile
def test_a_step_that_does_not_fit_ends_in_advice():
    pytest.importorskip("libtpu", reason="needs libtpu")
    config = recipe("visionclip")
    config.global_batch_size = 4 * 1024
    with pytest.raises(ValueError, match=r"of v5e:2x2 needs .* of 15\.75 GiB: try --config\.remat"):
        report_step(config, topologies.parse("v5e:2x2"), 21128, options=QUICK)
