"""Watching a run: what trackers hear and see, and that none of them can spoil it.

TensorBoard, W&B and MLflow themselves are tried where they are installed; W&B and MLflow otherwise
by stand-ins for what of them is used.
"""

import json
import logging
import shutil
import sys
import types
from types import SimpleNamespace

import numpy as np
import pytest

from vclip_jax import config as config_lib
from vclip_jax import main as trainer
from vclip_jax.config import checks
from vclip_jax.data import pipeline
from vclip_jax.drills.tiny import get_config
from vclip_jax.tracking import pictures, tracker, trackers
from vclip_jax.tracking.tracker import LoggedImage, LoggedPoints
from vclip_jax.tracking.trackers import Trackers, check_installed, open_trackers
from vclip_jax.train import inputs

STEPS = 6


class Recording:
    """A tracker that keeps everything."""

    def __init__(self):
        self.id = "recording"
        self.rows, self.shown, self.projected, self.closed = [], [], [], []

    def scalars(self, step, values, seconds):
        self.rows.append({"step": step, "time": seconds, **values})

    def pictures(self, step, pictures):
        self.shown += [(step, picture) for picture in pictures]

    def embeddings(self, embeddings):
        self.projected.append(embeddings)

    def close(self, ended):
        self.closed.append(ended)


@pytest.fixture
def recorded(monkeypatch):
    """The trackers that runs have opened so far, one a start."""
    opened = []

    def open_recording(config, workdir, known):
        opened.append(Recording())
        return opened[-1]

    monkeypatch.setitem(trackers._OPEN, "tensorboard", open_recording)
    monkeypatch.setattr(trainer, "check_installed", lambda names: None)
    return opened


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def config(data_dir):
    """Trains by the program of `tests/test_main.py`, which the compilation cache holds by then."""
    config = get_config()
    config.optimizer = config_lib.default().optimizer
    config.total_steps = STEPS
    config.eval_every = 0
    config.keep_best = ""
    config.trackers = ("tensorboard",)
    config.data.data_dir = str(data_dir)
    config.data.augment = "recipe"
    config.model.vision_layers = (1,)
    config.model.vision_width = 64
    config.model.vision_patch_size = 16
    return config


def logged(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "evaluation"} for row in lines]


@pytest.mark.slow
def test_a_tracker_hears_every_row_once_and_a_resume_repeats_nothing(config, recorded, tmp_path):
    config.tracker_samples = 3
    trainer.main(config, tmp_path)
    first = recorded[0]
    assert first.rows == logged(tmp_path)
    assert first.closed == [True]
    shown = [(step, picture.name) for step, picture in first.shown]
    assert shown[:6] == [
        *((1, f"train/pair_{i}") for i in (1, 2, 3)),
        *((1, f"validation/pair_{i}") for i in (1, 2, 3)),
    ]
    matrices = {(step, name) for step, name in shown[6:]}
    scored = json.loads((tmp_path / "zero_shot.json").read_text())
    assert matrices == {(STEPS, f"confusion/{name}") for name in scored}
    assert all(p.image.dtype == np.uint8 and p.image.shape[2] == 3 for _, p in first.shown)
    assert first.shown[0][1].image.shape == (32, 32, 3)

    shutil.rmtree(tmp_path / f"checkpoints/{STEPS}")
    trainer.main(config, tmp_path)
    again = recorded[1]
    assert (again.rows, again.shown, again.projected) == ([], [], [])
    assert first.rows == logged(tmp_path)


@pytest.mark.parametrize(("places", "rows"), [((1, 3), [2, 3, 6]), ((0, 3), [0, 1, 6])])
def test_samples_of_a_process_whose_devices_do_not_stand_together_keep_their_rows(places, rows):
    values = np.arange(8) * 10
    shards = [
        SimpleNamespace(index=(slice(2 * place, 2 * place + 2),), data=values[2 * place :][:2])
        for place in places[::-1]
    ]
    found, images = pictures.first_rows(SimpleNamespace(addressable_shards=shards), 3)
    assert found == rows
    np.testing.assert_array_equal(images, values[rows])


@pytest.mark.slow
def test_samples_are_the_pairs_that_the_step_is_trained_on(config, recorded, tmp_path):
    config.tracker_samples = 16
    train, validation = inputs.open_training_data(config)
    trainer.main(config, tmp_path)
    pairs = {p.name: p for _, p in recorded[0].shown}
    by_caption = {}
    for record in train:
        by_caption.setdefault(record["caption"], []).append(
            pipeline._decode(record, "train", 32, config.data.fit, config.data.decode)
        )
    for number in range(1, 17):
        pair = pairs[f"train/pair_{number}"]
        assert any(np.array_equal(pair.image, image) for image in by_caption[pair.caption])
    assert pairs["validation/pair_2"].caption == validation[1]["caption"]


def test_without_samples_no_photograph_and_no_caption_leaves_the_run(config, recorded, tmp_path):
    _, validation = inputs.open_training_data(config)
    trainer.main(config, tmp_path)
    assert {p.name.partition("/")[0] for _, p in recorded[0].shown} == {"confusion"}
    (points,) = recorded[0].projected
    assert points.thumbnails is None
    words = {word for column in points.columns.values() for word in column}
    assert not words & {record["caption"] for record in validation}
    assert not words & {record["key"] for record in validation}
    same = points.columns["caption"]
    captions = [record["caption"] for record in validation]
    assert len(set(zip(same, captions, strict=True))) == len(set(same)) == len(set(captions))
    assert points.vectors.shape == (16, 16)


def test_a_tracker_that_is_new_to_a_run_is_told_what_came_before(config, tmp_path, recorded):
    rows = [{"step": 1, "time": 5.0, "loss": 2.0}, {"step": 2, "time": 6.0, "loss": 1.0}]
    open_trackers(config, tmp_path, rows)
    assert recorded[0].rows == rows
    open_trackers(config, tmp_path, rows)
    assert recorded[1].rows == []


def test_only_the_lead_process_has_trackers(config, tmp_path, recorded):
    assert not open_trackers(config, tmp_path, [], enabled=False)
    assert recorded == []
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_fails_is_left_out_with_a_word(caplog):
    class Gone(Recording):
        def scalars(self, step, values, seconds):
            raise ConnectionError("no route\nto host")

    good, bad = Recording(), Gone()
    both = Trackers({"bad": bad, "good": good})
    with caplog.at_level(logging.WARNING, "vclip_jax"):
        for step in (1, 2):
            both.scalars(step, {"loss": 1.0}, 0.0)
    both.close(ended=True)
    assert [row["step"] for row in good.rows] == [1, 2]
    assert good.closed == [True]
    assert len(caplog.records) == 1
    assert "tracker bad failed and is not used any more: no route to host" in caplog.text


def test_a_run_that_breaks_off_is_not_told_to_have_ended():
    tracker = Recording()
    with pytest.raises(RuntimeError), Trackers({"one": tracker}):
        raise RuntimeError
    assert tracker.closed == [False]


def test_a_package_that_is_missing_is_named_before_anything_is_built(config, tmp_path, monkeypatch):
    config.data.data_dir = str(tmp_path / "data")
    monkeypatch.setattr(trackers.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="not installed: pip install tensorboard"):
        trainer.main(config, tmp_path / "run")
    assert not (tmp_path / "data").exists()


def test_a_folder_of_a_trackers_name_is_no_package(tmp_path, monkeypatch):
    (tmp_path / "left_by_a_run").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match="pip install left_by_a_run"):
        check_installed(["left_by_a_run"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trackers": ("tensorbord",)}, "'tensorbord',\\) must be any of tensorboard, wandb"),
        ({"tracker_samples": -1}, "tracker_samples=-1 must be at least 0"),
    ],
)
def test_settings_that_mean_nothing_are_refused(config, changes, message):
    config.update(changes)
    with pytest.raises(ValueError, match=message):
        checks.validate(config, devices=1)


def test_one_that_does_not_start_is_named_in_a_line(config, tmp_path, monkeypatch):
    def refuse(config, workdir, known):
        raise RuntimeError("not\nlogged in")

    monkeypatch.setitem(trackers._OPEN, "tensorboard", refuse)
    with pytest.raises(ValueError, match=r"tensorboard does not start \(not logged in\)"):
        open_trackers(config, tmp_path, [])


def test_no_path_of_the_machine_is_among_the_parameters(config):
    config.data.source = "/secret/clinic"
    config.evals.messidor_like.source = "/secret/eyes"
    config.predictions_secret = "/secret/key"
    shown = tracker.parameters(config)
    assert shown["data.image_size"] == 32
    assert "/secret" not in json.dumps(shown)
    assert config.data.data_dir not in shown.values()


PICTURE = LoggedImage("train/pair_1", np.arange(48, dtype=np.uint8).reshape(4, 4, 3), "青光眼")
POINTS = LoggedPoints(
    "validation",
    np.linspace(-1, 1, 15, dtype=np.float32).reshape(5, 3),
    {"pair": list("01234"), "text": ["a", "b\tc", "d\ne", "青光眼", "f"]},
    np.arange(5 * 4 * 4 * 3, dtype=np.uint8).reshape(5, 4, 4, 3),
)


class TestTensorBoard:
    """With TensorBoard's own readers."""

    @pytest.fixture(autouse=True)
    def _installed(self, config):
        pytest.importorskip("tensorboard", reason="needs the [tensorboard] extra")

    @pytest.fixture
    def started_twice(self, config, tmp_path):
        with open_trackers(config, tmp_path, []) as first:
            first.scalars(1, {"loss": 2.5, "eval/a/auc": 0.5}, 10.0)
            first.pictures(1, [PICTURE])
        with open_trackers(config, tmp_path, [{"step": 1, "time": 10.0, "loss": 2.5}]) as second:
            second.scalars(2, {"loss": 1.5}, 11.0)
            second.embeddings(POINTS)
        return tmp_path / "tensorboard"

    def test_both_starts_are_one_series(self, started_twice):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(started_twice))
        events.Reload()
        losses = [(e.step, e.wall_time, e.value) for e in events.Scalars("loss")]
        assert losses == [(1, 10.0, 2.5), (2, 11.0, 1.5)]
        assert [(e.step, e.value) for e in events.Scalars("eval/a/auc")] == [(1, 0.5)]

    def test_pictures_come_with_their_captions(self, started_twice):
        import io

        from PIL import Image
        from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

        events = EventAccumulator(str(started_twice))
        events.Reload()
        assert events.SummaryMetadata(PICTURE.name).summary_description == "青光眼"
        (event,) = events.Tensors(PICTURE.name)
        width, height, png = event.tensor_proto.string_val
        assert (width, height) == (b"4", b"4")
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(png))), PICTURE.image)

    def test_the_projector_serves_points_words_and_pictures(self, started_twice):
        import io

        from PIL import Image
        from tensorboard.backend.event_processing import (
            data_provider,
            plugin_event_multiplexer,
        )
        from tensorboard.plugins import base_plugin
        from tensorboard.plugins.projector.projector_plugin import ProjectorPlugin
        from werkzeug.test import Client
        from werkzeug.wrappers import Response

        multiplexer = plugin_event_multiplexer.EventMultiplexer()
        multiplexer.AddRunsFromDirectory(str(started_twice))
        multiplexer.Reload()
        provider = data_provider.MultiplexerDataProvider(multiplexer, str(started_twice))
        plugin = ProjectorPlugin(
            base_plugin.TBContext(
                logdir=str(started_twice), multiplexer=multiplexer, data_provider=provider
            )
        )
        routes = plugin.get_plugin_apps()

        def get(route, **query):
            answer = Client(routes[route], Response).get("/", query_string=query)
            assert answer.status_code == 200, answer.data
            return answer

        (run,) = get("/runs").json
        (entry,) = get("/info", run=run).json["embeddings"]
        assert entry["tensorName"] == "validation"
        assert entry["tensorShape"] == [5, 3]
        assert entry["sprite"]["singleImageDim"] == [4, 4]
        floats = np.frombuffer(get("/tensor", run=run, name="validation").data, np.float32)
        np.testing.assert_allclose(floats.reshape(5, 3), POINTS.vectors, rtol=1e-5)
        table = get("/metadata", run=run, name="validation").data.decode().splitlines()
        assert table[0].split("\t") == ["pair", "text"]
        assert [line.split("\t")[1] for line in table[1:]] == ["a", "b c", "d e", "青光眼", "f"]
        sprite = np.asarray(
            Image.open(io.BytesIO(get("/sprite_image", run=run, name="validation").data))
        )
        assert sprite.shape == (12, 12, 3)
        for number, thumbnail in enumerate(POINTS.thumbnails):
            row, column = divmod(number, 3)
            assert np.array_equal(
                sprite[4 * row : 4 * row + 4, 4 * column : 4 * column + 4], thumbnail
            )

    def test_nothing_imports_tensorflow(self, started_twice):
        assert "tensorflow" not in sys.modules

    def test_what_was_written_outlives_a_kill(self, config, tmp_path):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        left_open = open_trackers(config, tmp_path, [])
        left_open.scalars(1, {"loss": 2.5}, 10.0)
        (path,) = (tmp_path / "tensorboard").glob("events.*")
        with path.open("ab") as file:  # half a record
            file.write(b"\x20\x00\x00")
        with open_trackers(config, tmp_path, []) as later:
            later.scalars(2, {"loss": 1.5}, 11.0)
        events = EventAccumulator(str(tmp_path / "tensorboard"))
        events.Reload()
        assert [e.step for e in events.Scalars("loss")] == [1, 2]
        left_open.close(ended=False)


class WandbStandIn(types.ModuleType):
    """What is used of W&B, by its documentation."""

    def __init__(self):
        super().__init__("wandb")
        self.started, self.logged, self.defined, self.finished = [], [], [], []
        self.Settings = SimpleNamespace

    def Image(self, image, caption):
        return ("image", image.shape, caption)

    def init(self, **arguments):
        self.started.append(arguments)
        return SimpleNamespace(
            log=self.logged.append,
            define_metric=lambda name, **options: self.defined.append((name, options)),
            finish=lambda exit_code: self.finished.append(exit_code),
        )


@pytest.fixture
def wandb(monkeypatch):
    stand_in = WandbStandIn()
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_NAME", "WANDB_ERROR_REPORTING"):
        monkeypatch.delenv(name, raising=False)
    return stand_in


def test_wandb_is_offline_unless_it_is_told_otherwise(config, tmp_path, monkeypatch, wandb):
    config.trackers = ("wandb",)
    open_trackers(config, tmp_path, [])
    assert wandb.started[0]["mode"] == "offline"
    assert wandb.started[0]["dir"] == tmp_path
    settings = wandb.started[0]["settings"]
    assert (settings.console, settings.save_code, settings.disable_git) == ("off", False, True)
    monkeypatch.setenv("WANDB_MODE", "online")
    open_trackers(config, tmp_path, [])
    assert wandb.started[1]["mode"] == "online"
    assert wandb.started[1]["resume"] == "allow"
    assert wandb.started[1]["id"] == wandb.started[0]["id"]


def test_wandb_hears_steps_in_any_order(config, tmp_path, wandb):
    config.trackers = ("wandb",)
    with open_trackers(config, tmp_path, []) as opened:
        opened.scalars(4, {"loss": 1.0}, 0.0)
        opened.scalars(2, {"eval/a/auc": 0.5}, 0.0)
        opened.pictures(2, [PICTURE])
    assert ("*", {"step_metric": "step"}) in wandb.defined
    assert wandb.logged == [
        {"step": 4, "loss": 1.0},
        {"step": 2, "eval/a/auc": 0.5},
        {"step": 2, "train/pair_1": ("image", (4, 4, 3), "青光眼")},
    ]
    assert wandb.finished == [0]


def test_the_real_wandb_writes_a_run_of_its_own_offline(config, tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="needs the [wandb] extra")
    monkeypatch.setenv("WANDB_MODE", "offline")
    config.trackers = ("wandb",)
    for step in (1, 2):
        with open_trackers(config, tmp_path, []) as opened:
            opened.scalars(step, {"loss": 1.0 / step}, 0.0)
            opened.pictures(step, [PICTURE])
            assert opened
    run = json.loads((tmp_path / trackers.IDS).read_text())["wandb"]
    files = list(tmp_path.glob(f"wandb/offline-run-*/run-{run}.wandb"))
    assert files
    assert all(file.stat().st_size for file in files)


class MlflowStandIn:
    """What is used of MLflow's client, by its documentation; one server."""

    def __init__(self):
        self.uris, self.runs, self.params, self.metrics = [], {}, [], []
        self.images, self.texts, self.experiments = [], {}, {}

    def MlflowClient(self, tracking_uri):
        self.uris.append(tracking_uri)
        return self

    def get_experiment_by_name(self, name):
        number = self.experiments.get(name)
        return None if number is None else SimpleNamespace(experiment_id=number)

    def create_experiment(self, name, artifact_location):
        return self.experiments.setdefault(name, "7")

    def create_run(self, experiment_id, run_name):
        self.runs["r1"] = "RUNNING"
        return SimpleNamespace(info=SimpleNamespace(run_id="r1"))

    def update_run(self, run_id, status):
        assert run_id in self.runs, "no such run"
        self.runs[run_id] = status

    set_terminated = update_run

    def log_batch(self, run_id, metrics=(), params=()):
        assert len(params) <= 100
        self.metrics += metrics
        self.params += params

    def log_image(self, run_id, image, key, step):
        self.images.append((key, step, image.size))

    def log_text(self, run_id, text, artifact_file):
        self.texts[artifact_file] = text


@pytest.fixture
def mlflow(monkeypatch):
    server = MlflowStandIn()
    module, entities = types.ModuleType("mlflow"), types.ModuleType("mlflow.entities")
    module.MlflowClient = server.MlflowClient
    entities.Metric = lambda key, value, timestamp, step: (key, value, timestamp, step)
    entities.Param = lambda key, value: (key, value)
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return server


def test_mlflow_goes_on_in_the_same_run_and_keeps_captions_beside_images(config, tmp_path, mlflow):
    config.trackers = ("mlflow",)
    with open_trackers(config, tmp_path, []) as opened:
        opened.scalars(1, {"loss": 2.0}, 10.5)
        opened.pictures(1, [PICTURE])
    assert mlflow.runs == {"r1": "FINISHED"}
    assert dict(mlflow.params)["global_batch_size"] == "16"
    again = open_trackers(config, tmp_path, [{"step": 1, "loss": 2.0}])
    assert mlflow.runs == {"r1": "RUNNING"}
    again.close(ended=False)
    assert mlflow.runs == {"r1": "KILLED"}
    assert mlflow.metrics == [("loss", 2.0, 10500, 1)]
    assert mlflow.images == [("train/pair_1", 1, (4, 4))]
    assert mlflow.texts == {"captions/train_1.tsv": "train/pair_1\t青光眼\n"}
    assert all(uri.startswith(f"sqlite:///{tmp_path}") for uri in mlflow.uris)


def test_mlflow_takes_the_server_that_it_is_given(config, tmp_path, monkeypatch, mlflow):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    config.trackers = ("mlflow",)
    open_trackers(config, tmp_path, [])
    assert mlflow.uris == ["http://127.0.0.1:5000"]
    assert not (tmp_path / "mlflow").exists()


def test_the_real_mlflow_reads_back_what_was_told(config, tmp_path, monkeypatch):
    pytest.importorskip("sqlalchemy", reason="needs the [mlflow] extra")
    real = pytest.importorskip("mlflow", reason="needs the [mlflow] extra")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    config.trackers = ("mlflow",)
    for step in (1, 2):
        with open_trackers(config, tmp_path, []) as opened:
            opened.scalars(step, {"loss": 1.0 / step, "eval/a/auc": 0.5}, 10.0)
            opened.pictures(step, [PICTURE])
            assert opened
    client = real.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow/mlflow.db'}")
    run = json.loads((tmp_path / trackers.IDS).read_text())["mlflow"]
    assert [(m.step, m.value) for m in client.get_metric_history(run, "loss")] == [(1, 1), (2, 0.5)]
    assert client.get_run(run).info.status == "FINISHED"
    assert client.get_run(run).data.params["data.image_size"] == "32"
    kept = {file.path for file in client.list_artifacts(run)}
    assert kept >= {"captions", "images"}
