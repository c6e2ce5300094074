"""The model card of a portable folder, written from the files of the training run.

A card is a README.md with metadata that the Hugging Face Hub reads. Nothing in it is guessed: facts
that the run's files do not contain are left out, or called unknown.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.files import packaged
from vclip_jax.files.foreign import parse_json, read_bytes, read_json
from vclip_jax.interop.weights import Weights
from vclip_jax.prompts import PromptSet
from vclip_jax.prompts.calibration import LABELS, Calibration

_HUB_LICENCES: Final = {
    "CC BY-NC-SA 4.0": "cc-by-nc-sa-4.0",
    "CC BY 4.0": "cc-by-4.0",
    "Apache-2.0": "apache-2.0",
}
_MOST_RESULTS: Final = 64 << 20
"""The largest accepted size in bytes of a run's JSON file, curves and examples included."""
_MOST_LOG: Final = 1 << 30
"""The largest accepted size in bytes of a run's `metrics.jsonl`."""
_OWN_LICENCE: Final = "Apache-2.0"
_METRICS: Final = ("accuracy", "balanced_accuracy", "auc")
_EXAMPLES: Final = {"zh": '"正常眼底", "青光眼"', "en": '"normal fundus", "glaucoma"'}

SYNFUNDUS: Final = (
    "SynFundus-1M (Shang et al., arXiv:2312.00377) is CC BY-NC-SA 4.0: attribution, no commercial "
    "use, adaptations under the same licence. It is not settled whether weights are an adaptation "
    "of the images that they were trained on. These weights are therefore shared under the same "
    "licence: name SynFundus-1M as the source, do not use them commercially, and share works that "
    "you derive from them, including fine-tuned weights, under CC BY-NC-SA 4.0."
)
_CITATION: Final = """\
```bibtex
@article{wei2024visionclip,
  title  = {{VisionCLIP}: An {Med-AIGC} based Ethical Language-Image Foundation Model for
            Generalizable Retina Image Analysis},
  author = {Wei, Hao and Liu, Bowen and Zhang, Minqing and Shi, Peilun and Yuan, Wu},
  year   = {2024}
}
```
"""
_SYNFUNDUS_CITATION: Final = """\
```bibtex
@article{shang2023synfundus,
  title   = {{SynFundus-1M}: A High-quality Million-scale Synthetic fundus images Dataset with
             Fifteen Types of Annotation},
  author  = {Shang, Fangxin and others},
  journal = {arXiv:2312.00377},
  year    = {2023}
}
```
"""


@dataclass(frozen=True)
class SavedRun:
    """The contents of a training run's files; a missing file is empty."""

    step: int
    """The step of the checkpoint that holds the weights."""
    config: Mapping[str, Any]
    environment: Mapping[str, Any] = field(default_factory=dict)
    goodput: Mapping[str, Any] = field(default_factory=dict)
    zero_shot: Mapping[str, Any] = field(default_factory=dict)
    scored_step: int | None = None
    """The step of the checkpoint that `zero_shot` was measured on, if the run recorded it."""


def read_saved_run(workdir: Path, step: int) -> SavedRun:
    """Read the files of a run, for the card of its checkpoint of `step`.

    Raises:
        ValueError: one line: a file is not JSON.
    """
    config, environment, goodput, zero_shot = (
        _json(workdir / f"{name}.json")
        for name in ("config", "environment", "goodput", "zero_shot")
    )
    # Runs of an earlier version have the step only in metrics.jsonl.
    steps = {result["step"] for result in zero_shot.values() if "step" in result}
    scored_step = max(steps) if steps else _scored_step(workdir / "metrics.jsonl")
    return SavedRun(step, config, environment, goodput, zero_shot, scored_step)


_CALIBRATION: Final = "## Calibration"
_CALIBRATED: Final = "Answers to the prompts below are calibrated"
_AFTER_CALIBRATION: Final = "## Training data and licence"


def write(
    weights: Weights,
    tokenizer: Tokenizer,
    origin: str,
    run: SavedRun | None = None,
    prompts: PromptSet | None = None,
    calibrations: Sequence[Calibration] = (),
) -> str:
    """Return the text of the card.

    Args:
        weights, tokenizer: the model.
        origin: the source of the weights, in a few words.
        run: the training run; None if the model was trained elsewhere.
        prompts: the model's default prompts, for the example; None if they are unknown.
        calibrations: the calibrations that are stored with the model.
    """
    metadata = _metadata(weights, tokenizer, run)
    sections = _sections(weights, tokenizer, origin, run, prompts, calibrations)
    return f"---\n{metadata}\n---\n\n" + "\n\n".join(sections)


def _metadata(weights: Weights, tokenizer: Tokenizer, run: SavedRun | None) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    clip = weights.config["kind"] == "clip"
    results = [
        EvalResult(
            task_type="zero-shot-image-classification",
            dataset_type=dataset,
            dataset_name=dataset,
            metric_type=metric,
            metric_value=round(result[metric], 4),
        )
        for dataset, result in (run.zero_shot.items() if run else ())
        for metric in _METRICS
        if result.get(metric) is not None
    ]
    data = ModelCardData(
        library_name="vclip_jax",
        pipeline_tag="zero-shot-image-classification" if clip else None,
        language=_language(tokenizer),
        license=_HUB_LICENCES.get(_licence(run.config), "other") if run else None,
        tags=["retina", "fundus", "clip", "medical"] if clip else None,
        model_name=_name(run) if results else None,
        eval_results=results or None,
    )
    return data.to_yaml().strip()


def _name(run: SavedRun | None) -> str:
    return f"vclip_jax on {' and '.join(_datasets(run.config))}" if run else "vclip_jax"


def _sections(
    weights: Weights,
    tokenizer: Tokenizer,
    origin: str,
    run: SavedRun | None,
    prompts: PromptSet | None,
    calibrations: Sequence[Calibration],
) -> Iterator[str]:
    if weights.config["kind"] == "text":
        yield "# A text tower for vclip_jax"
        yield _text_line(weights) + "\n" + _size_lines(weights, origin)
        return
    yield "# A language-image model of the retina, for vclip_jax"
    yield (
        "A CLIP model: it maps colour photographs of the retina and "
        f"{'Chinese' if _language(tokenizer) == 'zh' else 'English'} text into one space, so that "
        "words can classify photographs without any training on them (zero-shot)."
    )
    yield "## Use\n\n" + (
        "```python\nimport vclip_jax\n\n"
        "clip = vclip_jax.load(PATH)  # this folder, or hub:OWNER/NAME\n"
        'clip.encode_image(["photo.jpg"])  # unit vectors\n'
        + _example(tokenizer, prompts)
        + "\n```"
    )
    yield (
        "## Intended use\n\n"
        "Research on colour fundus photographs: zero-shot classification, retrieval, and features "
        "for your own models. Out of scope: diagnosis, screening or triage of patients, any "
        "decision about a person, and images other than colour fundus photographs."
    )
    yield "## Limits\n\n" + "\n".join(_limits(run))
    if calibrations:
        yield _calibration_section(calibrations)
    if run is None:
        yield (
            "## Training data and licence\n\nThese weights were not trained by the program that "
            f"wrote this card ({origin}). Only their authors can state data, licence and results: "
            "add them here before you share the weights."
        )
    else:
        yield "## Training data and licence\n\n" + _licence_text(run.config)
        yield "## Training\n\n" + "\n".join(_training(run))
        yield "## Results\n\n" + _results(run)
    yield (
        "## Model\n\n"
        + _image_lines(weights)
        + _text_line(weights)
        + "\n"
        + _size_lines(weights, origin)
    )
    synfundus = run is not None and "synfundus" in _datasets(run.config)
    yield "## Citation\n\n" + _CITATION + (f"\n{_SYNFUNDUS_CITATION}" if synfundus else "")


def _example(tokenizer: Tokenizer, prompts: PromptSet | None) -> str:
    """Return example code that classifies a photograph with the model's own prompts."""
    if prompts is None:
        return f'clip.classify(["photo.jpg"], [{_EXAMPLES[_language(tokenizer)]}])  # probabilities'
    words = {
        name: list(texts[:1])
        for name, texts in zip(prompts.class_names[:2], prompts.prompts, strict=False)
    }
    example = json.dumps(words, ensure_ascii=False)
    classes = " | ".join(" ".join(name.split()) for name in prompts.class_names)
    return (
        f'clip.classify(["photo.jpg"])  # {classes}\n'
        f'clip.classify(["photo.jpg"], {example})  # with other prompts'
    )


def _limits(run: SavedRun | None) -> Iterator[str]:
    yield "- Not a medical device: the model was not validated for diagnosis or on any population."
    if run is not None and {"synfundus", "synthetic"}.issuperset(_datasets(run.config)):
        yield (
            "- Trained only on generated images. The model has not learnt anything that the "
            "generator does not draw, such as rare findings and poor photographs, and it has "
            "learnt the generator's mistakes."
        )
    if run is not None and any("synthetic/" in name for name in _scored(run).values()):
        yield (
            "- Results on generated images show that training and evaluation work; they say "
            "nothing about real photographs."
        )
    yield "- Predictions depend on the wording of the prompts: compare several."
    errors = {name: r["ece"] for name, r in (run.zero_shot if run else {}).items() if r.get("ece")}
    if errors:
        worst = max(errors, key=lambda name: errors[name])
        yield (
            "- Without calibration, the expected calibration error is up to "
            f"{errors[worst]:.2f} ({worst})."
        )


def _calibration_section(calibrations: Sequence[Calibration]) -> str:
    return f"{_CALIBRATION}\n\n" + "\n".join(_calibration_lines(calibrations))


def _calibration_lines(calibrations: Sequence[Calibration]) -> Iterator[str]:
    yield (
        f"{_CALIBRATED}: their logits are divided by a temperature, "
        "and an offset of the class is added. Answers to other prompts are not calibrated. Switch "
        'calibration off with `clip.classify(images, calibration="off")` or `--calibration off`.\n'
    )
    for entry in calibrations:
        offsets = ", ".join(
            f"{' '.join(name.split())} {value:+.2f}"
            for name, value in zip(entry.classes, entry.offsets, strict=True)
        )
        made = f"fitted on {entry.n} labelled photographs of {entry.data}"
        stated = ", ".join(
            f"{' '.join(name.split())} {share:g}"
            for name, share in (entry.prevalence or {}).items()
        )
        if entry.method == LABELS and stated:
            made += f", then moved to the stated shares of a site ({stated})"
        if entry.method != LABELS:
            made = (
                f"set on {entry.n} photographs of {entry.data} without labels, so that the mean "
                f"answer is a stated prevalence ({stated})"
            )
        yield f"- {entry.prompts}: temperature {entry.temperature:.2f}; {offsets}; {made}."


def _licence_text(config: Mapping[str, Any]) -> str:
    text = "\n\n".join(map(_terms_text, _named(config)))
    if config.get("restore_from"):
        text += (
            f"\n\nTraining started from other weights{_origin(config)}, whose licence applies as "
            "well: name it here before you share these weights."
        )
    return text


def _terms_text(name: str) -> str:
    """Return the paragraph about one training dataset, named as in a config."""
    dataset = _plain(name)
    title, licence = _title(dataset), _terms(dataset)
    text = f"Trained on `{name}`" + (f": {title}.\n\n" if title else ".\n\n")
    if dataset == "synfundus":
        text += SYNFUNDUS
    elif dataset == "synthetic":
        text += (
            "The images and captions were generated by vclip_jax, which is under Apache-2.0; no "
            "other terms apply. The weights are shared under the same licence."
        )
    elif licence:
        text += (
            f"The terms of the data are: {licence}. Follow them when you use or share the "
            "weights, and name the dataset as their source."
        )
    else:
        text += (
            "The terms of this dataset are not known to the program that wrote this card: state "
            "them here before you share the weights."
        )
    return text


def _origin(config: Mapping[str, Any]) -> str:
    """Return ", NAME" for weights whose name is public, "" for a path of this machine."""
    name = str(config["restore_from"])
    return f", {name}" if name.startswith("hub:") or name in packaged.names() else ""


def _training(run: SavedRun) -> Iterator[str]:
    config = run.config
    pairs = run.step * config["global_batch_size"]
    yield (
        f"- {run.step:,} steps of {config['global_batch_size']:,} pairs ({pairs:,} pairs seen), "
        f"loss: {config['loss']['kind']}, learning rate {config['optimizer']['learning_rate']:g}, "
        f"augmentation: {config['data']['augment']}, seed {config['seed']}."
    )
    devices = Counter(device["kind"] for device in run.environment.get("devices", ()))
    if devices:
        names = ", ".join(f"{count} x {kind}" for kind, count in devices.items())
        yield f"- Devices: {names}."
    seconds = run.goodput.get("seconds", {})
    if seconds:
        hours = sum(seconds.values()) / 3600
        starts = run.goodput.get("starts", 1)
        share = run.goodput.get("step_fraction")
        yield (
            f"- Time: {hours:.2f} hours of wall time"
            + (f", {hours * devices.total():.2f} device-hours" if devices else "")
            + f", evaluations included, in {starts} start{'s' if starts > 1 else ''}"
            + (f"; {share:.0%} of it in steps." if share is not None else ".")
        )
    versions = run.environment.get("versions", {})
    known = [f"{name} {versions[name]}" for name in ("jax", "flax", "optax") if versions.get(name)]
    if known:
        python = f", Python {run.environment['python']}" if "python" in run.environment else ""
        yield f"- Software: vclip_jax with {', '.join(known)}{python}."
    if run.environment.get("git_commit"):
        yield f"- Commit of vclip_jax: {run.environment['git_commit']}."


def _results(run: SavedRun) -> str:
    if not run.zero_shot:
        return "None: the run has not been evaluated (there is no zero_shot.json)."
    lines = [
        "| dataset | images | classes | accuracy [95 % CI] | balanced accuracy | AUC | chance |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, result in run.zero_shot.items():
        classes = len(result["classes"])
        cells = " | ".join(_with_interval(result, metric) for metric in _METRICS)
        lines.append(f"| {name} | {result['n']:,} | {classes} | {cells} | {1 / classes:.3f} |")
    text = "Zero-shot classification with prompts.\n\n"
    trained_on = {name.partition(":")[0] for name in _named(run.config)}
    if same := sorted(name for name, source in _scored(run).items() if source in trained_on):
        text = (
            "Classification with prompts only. The model was trained on another split of "
            f"{', '.join(same)}.\n\n"
        )
    units = {result.get("bootstrap", {}).get("unit", "image") for result in run.zero_shot.values()}
    over = {"image": "the images", "patient": "the patients"}.get(
        units.pop() if len(units) == 1 else "", "the patients where they are known, else the images"
    )
    text += "\n".join(lines) + (
        f"\n\nIntervals are over {over}: Wilson's for accuracy, bootstrap for the other metrics."
    )
    prompts = {
        name: result["prompts"].get("name")
        for name, result in run.zero_shot.items()
        if isinstance(result.get("prompts"), Mapping)
    }
    if prompts:
        text += f" Prompts: {', '.join(f'{name}: {words}' for name, words in prompts.items())}."
    if run.scored_step is not None and run.scored_step != run.step:
        text += (
            f"\n\nThese results are of step {run.scored_step:,}, the weights of step {run.step:,}: "
            "evaluate the run again (`vclip eval`) and export it again."
        )
    return text


def _with_interval(result: Mapping[str, Any], metric: str) -> str:
    if result.get(metric) is None:
        return "–"
    interval = result.get(f"{metric}_ci95")
    text = f"{result[metric]:.3f}"
    return text if interval is None else f"{text} [{interval[0]:.3f}, {interval[1]:.3f}]"


def _scored(run: SavedRun) -> dict[str, str]:
    """Return the dataset of each evaluation that has results."""
    return {
        name: str(task.get("dataset", ""))
        for name, task in run.config.get("evals", {}).items()
        if name in run.zero_shot
    }


def _image_lines(weights: Weights) -> str:
    data, model = weights.config["data"], weights.config["model"]
    layers = "-".join(str(blocks) for blocks in model["vision_layers"])
    tower = "ResNet" if len(model["vision_layers"]) == 4 else "Vision Transformer"
    owner = {"clip": "CLIP's", "imagenet": "the ImageNet models'"}.get(
        model["vision_kind"], f"`{model['vision_kind']}`,"
    )
    contrast = ", local contrast instead of colours" if data["enhance"] else ""
    return (
        f"- Image: {owner} {tower}, {layers} blocks, width {model['vision_width']}, "
        f"{data['image_size']} x {data['image_size']} pixels; photographs are made square with "
        f"`{data['fit']}`{contrast}.\n"
    )


def _text_line(weights: Weights) -> str:
    model, tokenizer = weights.config["model"], weights.config["tokenizer"]
    towers = {"bert": "BERT", "clip": "CLIP's Transformer"}
    tower = towers.get(model["text_kind"], f"`{model['text_kind']}`")
    return (
        f"- Text: {tower}, {model['text_layers']} layers of width {model['text_width']}, "
        f"{tokenizer['vocab_size']} tokens, captions of at most {tokenizer['context_length']} "
        f"tokens, pooling: {model['text_pool']}."
    )


def _size_lines(weights: Weights, origin: str) -> str:
    space = ""
    if weights.config["kind"] == "clip":
        space = f"- Shared space: {weights.config['model']['embed_dim']} dimensions.\n"
    return f"{space}{_count_line(weights)}\n- Origin: {origin}.\n"


def _count_line(weights: Weights) -> str:
    halved = any(array.dtype == np.float16 for array in weights.arrays.values())
    dtype = "stored as float16 (vectors as float32), loaded as float32" if halved else "float32"
    return f"- {weights.count:,} parameters, {dtype}."


def with_calibrations(card: str, calibrations: Sequence[Calibration]) -> str:
    """Return a portable folder's card with a section about these calibrations, or without one.

    A section that `write` made is replaced; one of other words stays.
    """
    own = rf"^{_CALIBRATION}\n\n{_CALIBRATED}.*?(?=^## |\Z)"
    card = re.sub(own, "", card, flags=re.MULTILINE | re.DOTALL)
    if not calibrations:
        return card
    section, place = _calibration_section(calibrations) + "\n\n", card.find(_AFTER_CALIBRATION)
    return card[:place] + section + card[place:] if place >= 0 else f"{card}\n{section}"


def with_dtype(card: str, weights: Weights) -> str:
    """Return a portable folder's card with the dtype in which its weights are stored now.

    The line that `write` made is replaced; a card that has another line stays as it is.
    """
    lines = re.escape(f"- {weights.count:,} parameters, ") + r"(float32|stored as float16 .*)\."
    return re.sub(f"^{lines}$", lambda _: _count_line(weights), card, flags=re.MULTILINE)


def _language(tokenizer: Tokenizer) -> str:
    """Return "zh" if a tenth of the vocabulary are Chinese characters, else "en".

    In BERT-base-Chinese a third are.
    """
    if not isinstance(tokenizer, WordPiece):
        return "en"
    chinese = sum("\u4e00" <= token <= "\u9fff" for token in tokenizer.vocabulary)
    return "zh" if 10 * chinese >= tokenizer.vocab_size else "en"


def _named(config: Mapping[str, Any]) -> list[str]:
    """Return the training datasets as the config names them: one, or those of its mixture."""
    data = config["data"]
    return sorted(data.get("mixture") or ()) or [str(data["dataset"])]


def _datasets(config: Mapping[str, Any]) -> list[str]:
    """Return the training datasets by their names in the catalogue."""
    return list(dict.fromkeys(map(_plain, _named(config))))


def _plain(name: str) -> str:
    return name.partition("/")[0].partition(":")[0]


def _title(dataset: str) -> str:
    """Return the catalogue's line about a dataset and licence; "" if its terms are unknown."""
    from vclip_jax.datasets.catalog import DATASETS

    if dataset == "synthetic":
        return f"fundus photographs and captions generated by vclip_jax ({_OWN_LICENCE})"
    return DATASETS[dataset].line if dataset in DATASETS and DATASETS[dataset].licence else ""


def _licence(config: Mapping[str, Any]) -> str:
    """Return the terms of the training data; "" if they are unknown, or differ."""
    terms = {_terms(dataset) for dataset in _datasets(config)}
    return terms.pop() if len(terms) == 1 else ""


def _terms(dataset: str) -> str:
    """Return the terms of a dataset from the catalogue; "" if they are unknown."""
    from vclip_jax.datasets.catalog import DATASETS

    if dataset == "synthetic":
        return _OWN_LICENCE
    return DATASETS[dataset].licence if dataset in DATASETS else ""


def _json(path: Path) -> dict[str, Any]:
    # A run may write NaN and infinities, which Python's JSON reads.
    return read_json(path, _MOST_RESULTS, constants=True) if path.exists() else {}


def _scored_step(path: Path) -> int | None:
    """Return the last step at which a zero-shot evaluation was written to `metrics.jsonl`."""
    if not path.exists():
        return None
    steps = []
    for line in read_bytes(path, _MOST_LOG).splitlines():
        try:
            row = parse_json(line, path.name, constants=True)
        except ValueError:  # the last line of a run that is being written
            continue
        if any(key.startswith("eval/") for key in row):
            steps.append(row["step"])
    return max(steps, default=None)
