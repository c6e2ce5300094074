"""`configs/table1.py` on miniatures, with files of all five systems, beside their own pipelines.

Weights are random and the models small, but what lies between a file of a dataset and an answer is
each system's own: preprocessing, tokenizer, the ensemble of prompts, the logits. Their side reads
the photographs as they are stored in the built datasets.
"""

import importlib.util
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vclip_jax import datasets, prompts
from vclip_jax import main as trainer
from vclip_jax.data.images.fit import fit_square
from vclip_jax.datasets.__main__ import main as datasets_command
from vclip_jax.evaluation.metrics import paper, predictions
from vclip_jax.prompts import PromptSet

from .systems import (
    biomedclip,
    clip_of_transformers,
    flair,
    flair_image,
    flair_pixels,
    flair_text,
    imported,
    open_clip,
    stir,
    torch,
    transformers,
    write_bert_words,
    write_biomedclip,
    write_clip_of_transformers,
    write_clip_words,
)

cn_clip = pytest.importorskip("cn_clip.clip", reason="needs the [parity] extra: cn-clip")
pytestmark = pytest.mark.parity

TASKS = ("messidor", "fives", "refuge")
VISIONCLIP = {
    "embed_dim": 16,
    "image_resolution": 64,
    "vision_layers": [1, 2, 1, 1],
    "vision_width": 8,
    "vision_patch_size": None,
    "vocab_size": 21128,
    "text_attention_probs_dropout_prob": 0.0,
    "text_hidden_act": "gelu",
    "text_hidden_dropout_prob": 0.0,
    "text_hidden_size": 64,
    "text_initializer_range": 0.02,
    "text_intermediate_size": 128,
    "text_max_position_embeddings": 64,
    "text_num_attention_heads": 1,
    "text_num_hidden_layers": 2,
    "text_type_vocab_size": 2,
}


@dataclass(frozen=True)
class System:
    """A system's files, and what its own code makes of images and texts."""

    format: str
    source: Path
    options: tuple[Any, ...]
    pixels: Callable[[Image.Image], Any]
    """Prepares one photograph: `[3, s, s]`."""
    image: Callable[[Any], Any]
    """Features `[n, d]` of prepared photographs."""
    text: Callable[[list[str]], Any]
    """Features `[n, d]` of the prompts of one class."""
    projection: tuple[Any, ...]
    """The parameters that end in the image's features, `[d, ...]`."""
    scale: float
    """What cosines are multiplied by."""
    save: Callable[[], None]
    """Writes the files."""

    def features(self, photographs: Sequence[bytes]) -> Any:
        """`[n, d]`."""
        with torch.inference_mode():
            prepared = [self.pixels(Image.open(io.BytesIO(data))) for data in photographs]
            return self.image(torch.stack(prepared))


def unit(features: Any) -> np.ndarray:
    rows = np.asarray(features, np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def softmax(logits: np.ndarray) -> np.ndarray:
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def tell_apart(system: System, photographs: Sequence[bytes]) -> None:
    """Take out of the features what all images share, lest all fall into one class."""
    mean = system.features(photographs).mean(0).clone()
    mean /= mean.norm()
    with torch.no_grad():
        for parameter in system.projection:
            along = torch.tensordot(mean, parameter, 1)
            parameter.sub_(mean.reshape(-1, *(1,) * along.ndim) * along)


def hear_words(text_tower: Any) -> None:
    """Make the state of [CLS] depend on the words, which at initial weights it hardly does."""
    with torch.no_grad():
        for name, parameter in text_tower.named_parameters():
            if "encoder.layer" in name and parameter.ndim == 2:
                parameter.mul_(4)


# --- The systems.


def clip(work: Path) -> System:
    """OpenAI's CLIP as `transformers` has it."""
    words, source = work / "words", work / "clip"
    words.mkdir()
    model = clip_of_transformers(tiny=True)
    prepare = transformers.CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size=64)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(str(write_clip_words(words)))

    def text(texts: list[str]) -> Any:
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=77, return_tensors="pt")
        return model.text_projection(model.text_model(**tokens).pooler_output)

    def save() -> None:
        write_clip_of_transformers(source, model, words)
        prepare.save_pretrained(source)

    return System(
        "hf_clip",
        source,
        (),
        pixels=lambda image: prepare(images=image, return_tensors="pt")["pixel_values"][0],
        image=lambda x: model.visual_projection(model.vision_model(x).pooler_output),
        text=text,
        projection=(model.visual_projection.weight,),
        scale=model.logit_scale.exp().item(),
        save=save,
    )


def biomedclip_system(work: Path) -> System:
    """BiomedCLIP as open_clip has it."""
    source = work / "biomedclip"
    source.mkdir()
    bert = transformers.BertTokenizer(str(write_bert_words(work / "pubmed.txt")))
    bert.save_pretrained(source)
    model = biomedclip(True, len(bert))
    hear_words(model.text)
    tokenize = open_clip.tokenizer.HFTokenizer(str(source), context_length=256)
    return System(
        "open_clip",
        source,
        (),
        pixels=open_clip.image_transform(64, is_train=False),
        image=model.visual,
        text=lambda texts: model.text(tokenize(texts)),
        projection=(model.visual.head.proj.weight,),
        scale=model.logit_scale.exp().item(),
        save=lambda: write_biomedclip(source, model, bert, tiny=True),
    )


def flair_system(work: Path) -> System:
    """FLAIR, asked as its `compute_text_embeddings` does: a class's texts are padded together."""
    folder = work / "flair"
    folder.mkdir()
    tokenizer = transformers.BertTokenizer(str(write_bert_words(folder / "vocab.txt")))
    model = flair(True, len(tokenizer))
    source = folder / "flair_resnet.pth"

    def text(texts: list[str]) -> Any:
        tokens = tokenizer(texts, truncation=True, padding=True, max_length=77, return_tensors="pt")
        return flair_text(model, tokens["input_ids"], tokens["attention_mask"])

    return System(
        "flair",
        source,
        (),
        pixels=lambda image: flair_pixels(np.asarray(image))[0],
        image=lambda x: flair_image(model, x),
        text=text,
        projection=(model.vision_model.projection_head_vision.projection.weight,),
        scale=model.logit_scale.exp().item(),
        save=lambda: torch.save(model.state_dict(), source),
    )


def visionclip(work: Path) -> System:
    """Chinese-CLIP: its models, its preprocessing, its zero-shot evaluation's texts."""
    from cn_clip.clip.model import CLIP
    from cn_clip.training.data import _preprocess_text

    torch.manual_seed(0)
    model = stir(CLIP(**VISIONCLIP))
    hear_words(model.bert)
    source = work / "visionclip.pt"

    def save() -> None:
        state = {f"module.{name}": value for name, value in model.state_dict().items()}
        torch.save({"epoch": 1, "step": 2, "name": "x", "state_dict": state}, source)

    return System(
        "cn_clip",
        source,
        ("--vocab", Path(cn_clip.__file__).parent / "vocab.txt"),
        pixels=cn_clip.image_transform(64),
        image=model.encode_image,
        text=lambda texts: model.encode_text(cn_clip.tokenize([*map(_preprocess_text, texts)])),
        projection=(model.visual.attnpool.c_proj.weight, model.visual.attnpool.c_proj.bias),
        scale=model.logit_scale.exp().item(),
        save=save,
    )


BUILD = {
    "clip": clip,
    "biomedclip": biomedclip_system,
    "flair": flair_system,
    "visionclip": visionclip,
}
WEIGHTS = {name: "flair" if name == "flair_ek" else name for name in (*BUILD, "flair_ek")}
"""System -> whose weights it has."""


# --- The command on miniatures.


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Any:
    """That of `configs/table1.py`, with miniatures as distributed."""
    path = Path(__file__).parents[2] / "configs/table1.py"
    spec = importlib.util.spec_from_file_location("table1", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    work = tmp_path_factory.mktemp("datasets")
    config.data.data_dir = str(work / "built")
    config.bootstrap_resamples = 200
    config.heat_maps = False
    config.eval_batch_size = 8
    for task in TASKS:
        assert datasets_command(["fixture", task, str(work / task)]) == 0
        config.evals[task].source = str(work / task)
        datasets.prepare(task, config.evals[task].source, config.data.data_dir)
    return config


@pytest.fixture(scope="module")
def photographs(config) -> dict[str, list[dict[str, Any]]]:
    """Task -> the records that are scored, as stored."""
    return {
        task: list(datasets.open_source(task, config.data.data_dir, config.evals[task].split))
        for task in TASKS
    }


@pytest.fixture(scope="module")
def theirs(config, photographs, tmp_path_factory) -> dict[str, System]:
    """System -> its own code; its weights are imported, and the config names them."""
    work = tmp_path_factory.mktemp("weights")
    everything = [record["image"] for task in TASKS for record in photographs[task]]
    systems = {}
    for name, build in BUILD.items():
        system = systems[name] = build(work)
        tell_apart(system, everything)
        system.save()
        imported(system.format, system.source, work / "imported" / name, *system.options)
    for name, whose in WEIGHTS.items():
        config.systems[name].weights = str(work / "imported" / whose)
    return {name: systems[whose] for name, whose in WEIGHTS.items()}


@pytest.fixture(scope="module")
def run(config, theirs, tmp_path_factory) -> Path:
    """The workdir of the evaluation."""
    workdir = tmp_path_factory.mktemp("run")
    trainer.main(config, workdir, "eval")
    return workdir


def logits(system: System, photographs: Sequence[bytes], prompt_set: PromptSet) -> np.ndarray:
    """float64 `[n, classes]`, as the systems' own zero-shot evaluations compute them."""
    with torch.inference_mode():
        classes = np.stack(
            [unit(system.text(list(texts))).mean(axis=0) for texts in prompt_set.prompts]
        )
    if prompt_set.renormalise:
        classes = unit(classes)
    return system.scale * unit(system.features(photographs)) @ classes.T


def with_our_pixels(system: System) -> System:
    """FLAIR on photographs resized as `decode` does: with bytes in between, of at most one level
    from its own floats (`test_systems.py`)."""

    def pixels(image: Image.Image) -> Any:
        square = fit_square(np.asarray(image), 512, "flair")
        return torch.from_numpy(square.transpose(2, 0, 1).astype(np.float32) / 255)

    return replace(system, pixels=pixels)


def centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(axis=1, keepdims=True)


def test_all_five_rows_are_filled(run, photographs):
    table = json.loads((run / "table1.json").read_text())
    assert {name.lower() for name in table} == {name.lower() for name in paper.TABLE_1}
    for row in table.values():
        assert row["missing"] is None
        for task in TASKS:
            assert row["results"][task]["n"] == len(photographs[task])


@pytest.mark.parametrize("name", list(WEIGHTS))
def test_every_answer_is_that_of_the_systems_own_pipeline(
    config, theirs, run, photographs, table, name
):
    own, is_flair = theirs[name], WEIGHTS[name] == "flair"
    given = 0
    for task in TASKS:
        prompt_set = prompts.load(f"{config.systems[name].prompts}/{task}")
        # FLAIR alone leaves the mean of a class's prompts as short as it is.
        assert prompt_set.renormalise is not is_flair
        images = [record["image"] for record in photographs[task]]
        want = logits(own, images, prompt_set)

        answers = predictions.load(predictions.path_of(run / "systems" / name, task))
        keys = predictions.hash_keys(task, (record["key"] for record in photographs[task]))
        np.testing.assert_array_equal(answers.hash, keys)
        got = answers.probabilities.astype(np.float64)
        given += len(set(got.argmax(axis=1)))

        what = f"{name}, random weights"
        different = int((got.argmax(axis=1) != want.argmax(axis=1)).sum())
        table.check("answers of Table 1", what, "different", different, 0)
        off = float(np.abs(got - softmax(want)).max())
        bound = 5e-3 if is_flair else 1e-4  # see with_our_pixels
        table.check("probabilities of Table 1", what, "largest difference", off, bound)
        if is_flair:
            want = logits(with_our_pixels(own), images, prompt_set)
        # Probabilities tell logits up to what all classes share.
        off = float(np.abs(centred(np.log(got)) - centred(want)).max())
        table.check("logits of Table 1", what, "largest difference", off, 1e-4)
    assert given > len(TASKS)  # not always the same one
