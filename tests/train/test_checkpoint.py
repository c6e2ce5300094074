"""Checkpoints: what is used is what was saved, and nothing is lost silently."""

import contextlib
import json
import logging
import os
import re
import shutil
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from vclip_jax.devices import sharding
from vclip_jax.train import array_checksums, verification
from vclip_jax.train.checkpoint import Checkpoints
from vclip_jax.train.state import TrainState
from vclip_jax.train.verification import DamagedError, VerifiedReader

# Orbax leaves reads behind that nobody waits for when one of them fails.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

RULES = ((".*", "fsdp"),)


def make_state(step: int) -> TrainState:
    rng = np.random.default_rng(step)
    params = {
        "a": {"kernel": rng.standard_normal((64, 48)).astype("f4")},
        "b": rng.standard_normal(7).astype("f4"),
        "logit_scale": np.float32(2.5),
    }
    opt_state = optax.adamw(1e-3).init(jax.tree.map(jax.numpy.asarray, params))
    state = TrainState(jax.numpy.int32(step), params, {"mean": np.zeros(5, "f4")}, opt_state)
    return jax.tree.map(jax.numpy.asarray, state)


@pytest.fixture(params=["one", "sharded"])
def layout(request, monkeypatch):
    monkeypatch.setattr(sharding, "MIN_SHARDED_SIZE", 2**8)
    devices, fsdp = {"one": (1, 1), "sharded": (8, 4)}[request.param]
    mesh = sharding.make_mesh(fsdp, jax.devices()[:devices])
    return sharding.state_sharding(make_state(0), mesh, RULES)


ABSTRACT = jax.eval_shape(lambda: make_state(0))


def save(workdir: Path, layout, steps=(2, 4, 6), **options) -> None:
    with Checkpoints(workdir, **{"keep": len(steps)} | options) as checkpoints:
        for step in steps:
            checkpoints.save(jax.device_put(make_state(step), layout), step)


def restored_step(workdir: Path, layout, *, model: bool = False, read_only: bool = False) -> int:
    """Restores the newest good checkpoint, which must be exactly what was saved."""
    with Checkpoints(workdir, keep=9, read_only=read_only) as checkpoints:
        if model:
            params, batch_stats, step = checkpoints.restore_model(ABSTRACT, layout)
            expected = make_state(step)
            same((params, batch_stats), (expected.params, expected.batch_stats))
            return step
        state = checkpoints.restore(ABSTRACT, layout)
    same(state, make_state(int(state.step)))
    return int(state.step)


def same(one, other) -> None:
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


def data_files(workdir: Path, step: int) -> list[Path]:
    """The files with the arrays' content, the largest first."""
    files = [p for p in (workdir / f"checkpoints/{step}/state").rglob("*") if p.parent.name == "d"]
    return sorted(files, key=lambda path: -path.stat().st_size)


def flip(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position // 8] ^= 1 << position % 8
    path.write_bytes(content)


DAMAGE = {
    "a flipped bit": lambda w: flip(data_files(w, 6)[0], data_files(w, 6)[0].stat().st_size * 4),
    "a page of zeros": lambda w: data_files(w, 6)[0].write_bytes(
        bytes(512) + data_files(w, 6)[0].read_bytes()[512:]
    ),
    "a data file cut off": lambda w: os.truncate(data_files(w, 6)[0], 100),
    "no data file": lambda w: [path.unlink() for path in data_files(w, 6)],
    "no arrays": lambda w: shutil.rmtree(w / "checkpoints/6/state"),
    "no position": lambda w: shutil.rmtree(w / "checkpoints/6/position"),
    "an empty position": lambda w: (w / "checkpoints/6/position/metadata").write_text(""),
    "a position that is no object": lambda w: (w / "checkpoints/6/position/metadata").write_text(
        "[1]"
    ),
    "nothing but the folder": lambda w: [
        shutil.rmtree(p) if p.is_dir() else p.unlink() for p in (w / "checkpoints/6").iterdir()
    ],
    "arrays of another step": lambda w: (
        shutil.rmtree(w / "checkpoints/6/state"),
        shutil.copytree(w / "checkpoints/4/state", w / "checkpoints/6/state"),
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_named_set_aside_and_the_one_before_used(
    tmp_path, layout, caplog, damage
):
    save(tmp_path, layout)
    DAMAGE[damage](tmp_path)
    with caplog.at_level(logging.WARNING, "vclip_jax"):
        assert restored_step(tmp_path, layout) == 4
    assert re.search(r"checkpoint 6 in .*checkpoints is damaged: ", caplog.text)
    assert f"kept as {tmp_path}/checkpoints/corrupt-6" in caplog.text
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"2", "4", "corrupt-6"}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_reader_passes_over_a_damaged_one_and_leaves_it(tmp_path, damage):
    layout = _alone()
    save(tmp_path, layout)
    DAMAGE[damage](tmp_path)
    assert restored_step(tmp_path, layout, model=True, read_only=True) == 4
    assert (tmp_path / "checkpoints/6").exists()


def _alone():
    return sharding.state_sharding(make_state(0), sharding.make_mesh(1, jax.devices()[:1]), RULES)


def test_every_bit_of_the_position_counts(tmp_path):
    layout = _alone()
    save(tmp_path, layout, steps=(2,))
    path = tmp_path / "checkpoints/2/position/metadata"
    good = path.read_bytes()
    rng = np.random.default_rng(0)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        for position in rng.choice(len(good) * 8, 60, replace=False):
            flip(path, position)
            with pytest.raises(DamagedError):
                checkpoints.position(2)
            path.write_bytes(good)
        assert checkpoints.position(2)["next_batch"] == 2


def renamed(value, name):
    """JSON with every string in it replaced."""
    if isinstance(value, dict):
        return {key: renamed(item, name) for key, item in value.items()}
    if isinstance(value, list):
        return [renamed(item, name) for item in value]
    return name if isinstance(value, str) else value


def metadata_files(workdir: Path) -> list[Path]:
    """Orbax's own, which name handlers and types."""
    return [
        path
        for path in sorted((workdir / "checkpoints").rglob("*"))
        if path.is_file() and path.name.strip("_").lower().endswith("metadata")
    ]


def test_no_class_that_a_checkpoints_metadata_names_is_imported(tmp_path, monkeypatch, layout):
    note, modules = tmp_path / "was run", tmp_path / "modules"
    modules.mkdir()
    (modules / "vclip_trap.py").write_text(f"open({str(note)!r}, 'w').close()\nF = int\n")
    monkeypatch.syspath_prepend(modules)
    save(tmp_path, layout, steps=(2,))
    paths = metadata_files(tmp_path)
    assert len(paths) > 2
    for path in paths:
        before = path.read_text()
        content = json.loads(before)
        names = {"custom_metadata": {"class": "vclip_trap.F"}} if isinstance(content, dict) else {}
        path.write_text(json.dumps(renamed(content, "vclip_trap.F") | names))
        with contextlib.suppress(ValueError):
            restored_step(tmp_path, layout, read_only=True)
        path.write_text(before)
    assert not note.exists()
    assert "vclip_trap" not in sys.modules


def test_deep_metadata_of_a_checkpoint_is_one_line(tmp_path, layout):
    save(tmp_path, layout, steps=(2,))
    for path in metadata_files(tmp_path):
        before = path.read_text()
        path.write_text('{"a": ' + "[" * 100_000)
        with contextlib.suppress(ValueError):
            restored_step(tmp_path, layout, read_only=True)
        path.write_text(before)


@pytest.mark.parametrize(
    "content",
    [
        "[1]",
        '{"item_handlers": 3}',
        '{"init_timestamp_nsecs": "x"}',
        f'{{"commit_timestamp_nsecs": 1{"0" * 30}}}',
        "[" * 100_000,
    ],
)
def test_metadata_of_another_form_are_named(tmp_path, content):
    save(tmp_path, _alone(), steps=(2,))
    (tmp_path / "checkpoints/2/_CHECKPOINT_METADATA").write_text(content)
    said = r"^a _CHECKPOINT_METADATA of the steps in .*checkpoints cannot be read: [^\n]+$"
    with pytest.raises(DamagedError, match=said):
        Checkpoints(tmp_path, read_only=True)


@pytest.mark.parametrize("place", ["state", "state/d", "position", "."])
@pytest.mark.parametrize("read_only", [True, False])
def test_a_pipe_in_a_checkpoint_is_not_waited_for(tmp_path, place, read_only):
    save(tmp_path, _alone(), steps=(2,))
    os.mkfifo(tmp_path / "checkpoints/2" / place / "pipe")
    with pytest.raises(DamagedError, match=r"2/.*pipe is neither a file nor a folder$"):
        Checkpoints(tmp_path, read_only=read_only)


def test_a_checkpoint_may_lie_elsewhere_behind_a_link(tmp_path):
    save(tmp_path / "run", _alone(), steps=(2,))
    (tmp_path / "run/checkpoints/2").rename(tmp_path / "2")
    (tmp_path / "run/checkpoints/2").symlink_to(tmp_path / "2")
    assert restored_step(tmp_path / "run", _alone(), read_only=True) == 2


def test_where_all_are_damaged_the_run_does_not_start_afresh(tmp_path):
    layout = _alone()
    save(tmp_path, layout, steps=(2, 4))
    for step in (2, 4):
        flip(data_files(tmp_path, step)[0], 800)
    for _ in range(2):  # the second time they have been set aside already
        with Checkpoints(tmp_path) as checkpoints:
            assert checkpoints.any_exist()
            with pytest.raises(DamagedError, match=r"no checkpoint in .* is good.*--workdir"):
                checkpoints.restore(ABSTRACT, layout)


def test_a_step_asked_for_is_not_replaced_by_another(tmp_path):
    layout = _alone()
    save(tmp_path, layout)
    flip(data_files(tmp_path, 6)[0], 800)
    with (
        Checkpoints(tmp_path, read_only=True) as checkpoints,
        pytest.raises(DamagedError, match=r"checkpoint 6 in .* is damaged"),
    ):
        checkpoints.restore_model(ABSTRACT, layout, 6)


def test_another_layout_restores_the_same(tmp_path, layout):
    save(tmp_path, layout)
    assert restored_step(tmp_path, _alone()) == 6


def test_arrays_of_another_config_are_no_damage(tmp_path):
    layout = _alone()
    save(tmp_path, layout, steps=(2,))
    wider = ABSTRACT.replace(params=ABSTRACT.params | {"b": jax.ShapeDtypeStruct((8,), "float32")})
    with Checkpoints(tmp_path) as checkpoints:
        with pytest.raises(
            ValueError, match=r"does not fit this config: params/b is float32\[7\] .*float32\[8\]"
        ) as caught:
            checkpoints.restore(wider, layout)
        assert not isinstance(caught.value, DamagedError)
        assert checkpoints.steps() == (2,)


def test_a_type_is_not_cast_silently(tmp_path):
    layout = _alone()
    save(tmp_path, layout, steps=(2,))
    half = ABSTRACT.replace(params=ABSTRACT.params | {"b": jax.ShapeDtypeStruct((7,), "bfloat16")})
    with (
        Checkpoints(tmp_path) as checkpoints,
        pytest.raises(
            ValueError,
            match=r"params/b is float32\[7\] in the checkpoint, bfloat16\[7\] in the model",
        ),
    ):
        checkpoints.restore(half, layout)


def test_checkpoints_of_earlier_versions_are_restored_and_said_to_be(tmp_path, caplog):
    layout = _alone()
    save(tmp_path, layout, steps=(2,))
    path = tmp_path / "checkpoints/2/position/metadata"
    path.write_text(json.dumps({"step": 2, "next_batch": 2}))
    with caplog.at_level(logging.INFO, "vclip_jax"):
        assert restored_step(tmp_path, layout) == 2
    assert "without fingerprints" in caplog.text


def test_more_is_kept_beside_the_arrays(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(make_state(2), 2, guards={"skipped": 3})
        checkpoints.check(wait=True)
        assert checkpoints.position(2)["guards"] == {"skipped": 3}


def test_the_newest_and_the_best_stay(tmp_path):
    losses = {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5, 5: 0.5}
    best = lambda steps: min(steps, key=lambda step: losses[step])  # noqa: E731
    with Checkpoints(tmp_path, keep=2, best=best) as checkpoints:
        kept = []
        for step in losses:
            checkpoints.save(make_state(step), step)
            checkpoints.check(wait=True)
            kept.append(checkpoints.steps())
    assert kept == [(1,), (1, 2), (2, 3), (2, 3, 4), (4, 5)]
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"4", "5"}


@pytest.fixture
def failing(monkeypatch):
    """The save of a step 4 fails: "at once", or "in the background"."""

    def install(when: str) -> None:
        from orbax.checkpoint import CheckpointManager

        save, finalize = CheckpointManager.save, CheckpointManager._finalize

        def failing_save(self, step, *args, **kwargs):
            if step == 4:
                (self.directory / "4.orbax-checkpoint-tmp").mkdir()
                raise OSError(28, "No space left on device")
            return save(self, step, *args, **kwargs)

        def failing_finalize(self, step, remove):
            finalize(self, step, [] if step == 4 else remove)
            if step == 4:
                shutil.rmtree(self.directory / "4")
                raise OSError(28, "No space left on device")

        if when == "at once":
            monkeypatch.setattr(CheckpointManager, "save", failing_save)
        else:
            monkeypatch.setattr(CheckpointManager, "_finalize", failing_finalize)

    return install


@pytest.mark.parametrize("when", ["at once", "in the background"])
def test_a_save_that_fails_stops_the_run_and_spares_what_was_there(tmp_path, failing, when):
    failing(when)
    with pytest.raises(OSError, match=r"checkpoint 4 could not be written.*No space left.*is 2"):
        save(tmp_path, _alone(), steps=(2, 4), keep=1)
    assert restored_step(tmp_path, _alone()) == 2
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["2"]


@pytest.mark.parametrize("when", ["at once", "in the background"])
def test_a_run_that_is_told_so_goes_on_past_a_failed_save(tmp_path, failing, caplog, when):
    failing(when)
    with (
        caplog.at_level(logging.WARNING, "vclip_jax"),
        Checkpoints(tmp_path, keep=1, on_error="continue") as checkpoints,
    ):
        checkpoints.save(make_state(2), 2)
        checkpoints.save(make_state(4), 4)
        checkpoints.check(wait=True)
        assert (checkpoints.failed, checkpoints.steps()) == (1, (2,))
        checkpoints.save(make_state(6), 6)
    assert "checkpoint 4 could not be written" in caplog.text
    assert restored_step(tmp_path, _alone()) == 6


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_cannot_be_read_back_is_noticed_when_it_is_written(tmp_path, monkeypatch, damage):
    from orbax.checkpoint import CheckpointManager

    layout, finalize = _alone(), CheckpointManager._finalize

    def spoiling(self, step, remove):
        finalize(self, step, remove)
        if step == 6:
            DAMAGE[damage](tmp_path)

    monkeypatch.setattr(CheckpointManager, "_finalize", spoiling)
    with pytest.raises(
        OSError,
        match=r"checkpoint 6 could not be .*: it cannot be read back \(.*the newest .* is 4",
    ):
        save(tmp_path, layout)
    assert restored_step(tmp_path, layout) == 4


def test_the_large_arrays_are_read_back_by_structure_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(verification, "SMALLEST_ON_DEVICE", 0)
    read = []
    monkeypatch.setattr(VerifiedReader, "read", lambda *a, **options: read.append(a))
    save(tmp_path, _alone(), steps=(2,))
    assert not read


_NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=60
).filter(lambda name: name not in (".", ".."))


# Each example saves and restores by Orbax. The names below hold the known kinds of trouble.
@settings(max_examples=12)
@given(_NAMES)
@example("run[1]")
@example("a\\b")
@example("**")
@example("-dash first")
@example("眼底 照片")
@example("~")
@example("x" * 250)
@example("a%20b#c")
def test_under_every_path_that_is_not_refused_a_checkpoint_can_be_read(tmp_path_factory, name):
    workdir = tmp_path_factory.mktemp("names") / name
    layout = _alone()
    if any(character in "*?[\\" for character in name):
        with pytest.raises(ValueError, match="checkpoints cannot be kept in"):
            save(workdir, layout, steps=(2,))
        assert not workdir.exists()
        return
    save(workdir, layout, steps=(2,))
    assert restored_step(workdir, layout) == 2
    assert not [p for p in (workdir / "checkpoints").iterdir() if "corrupt" in p.name]


def test_a_path_that_is_refused_can_be_reached_through_a_link(tmp_path):
    odd, link = tmp_path / "run[1]", tmp_path / "link"
    odd.mkdir()
    link.symlink_to(odd)
    save(link, _alone(), steps=(2,))
    assert restored_step(link, _alone()) == 2


def test_large_arrays_are_verified_on_the_devices(tmp_path, layout, monkeypatch):
    monkeypatch.setattr(array_checksums, "SMALLEST_ON_DEVICE", 0)
    save(tmp_path, layout)
    flip(data_files(tmp_path, 6)[0], data_files(tmp_path, 6)[0].stat().st_size * 4)
    assert restored_step(tmp_path, layout) == 4
