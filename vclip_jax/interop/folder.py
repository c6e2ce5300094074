"""Our portable form of a model: a folder that needs nothing of the run that made it.

model.safetensors   the weights by dotted name, with the configuration in its metadata
config.json         the same configuration, see `weights.complete_config`
vocab.txt           the tokeniser's vocabulary, one token a line
README.md           a model card
"""

import json
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from vclip_jax.data.tokenizer import Tokenizer
from vclip_jax.interop import names
from vclip_jax.interop.weights import Weights, complete_config, expected_arrays

MODEL, CONFIG, VOCAB, CARD = FILES = ("model.safetensors", "config.json", "vocab.txt", "README.md")
METADATA_KEY = "vclip_jax"
_WORDS = "bert.embeddings.word_embeddings.embedding"


def save(
    folder: str | Path,
    weights: Weights,
    tokenizer: Tokenizer,
    *,
    origin: str,
    overwrite: bool = False,
) -> None:
    """Write a model as a portable folder.

    Each file appears complete. Other files of the folder stay as they are.

    Args:
        folder: made if it is not there.
        weights: of both towers, or of the text tower alone.
        tokenizer: with as many tokens as the text tower has embeddings.
        origin: for the model card: where the weights come from, in a few words.
        overwrite: replace the four files if they are there.

    Raises:
        ValueError: one line: a file is there already, the folder is a training run's, or the
            vocabulary is another model's.
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    check_target(folder, overwrite=overwrite)
    check_vocabulary(weights, tokenizer)
    config = json.dumps(weights.config, indent=1, ensure_ascii=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    writers = {
        # save_file takes memory as it lies, whatever the strides.
        MODEL: lambda path: save_file(
            {name: np.asarray(array, order="C") for name, array in weights.arrays.items()},
            path,
            {METADATA_KEY: json.dumps(weights.config)},
        ),
        CONFIG: lambda path: path.write_text(config, "utf-8"),
        VOCAB: tokenizer.save,
        CARD: lambda path: path.write_text(_card(weights, origin), "utf-8"),
    }
    for name, write in writers.items():
        temporary = folder / f"{name}.tmp"
        try:
            temporary.touch()
            mode = temporary.stat().st_mode
            write(temporary)
            temporary.chmod(mode)  # safetensors leaves its files to their owner alone
            temporary.replace(folder / name)
        finally:
            temporary.unlink(missing_ok=True)


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Raises ValueError if `save` may not write there."""
    if (folder / "checkpoints").exists():
        raise ValueError(f"{folder} is the workdir of a training run: choose another folder")
    if not overwrite and (there := [name for name in FILES if (folder / name).exists()]):
        raise ValueError(f"{folder} already has {', '.join(there)}: pass --overwrite to replace")


def load(folder: str | Path) -> tuple[Weights, Tokenizer]:
    """Read a portable folder.

    Raises:
        ValueError: one line: a file is missing or damaged, the configuration and the weights do
            not belong together, or every weight that is missing, unexpected or of another shape.
    """
    folder = Path(folder)
    if missing := [name for name in (MODEL, CONFIG, VOCAB) if not (folder / name).is_file()]:
        raise ValueError(f"{folder} is not a portable folder: it lacks {', '.join(missing)}")
    weights = load_file_alone(folder / MODEL)
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error})") from error
    if complete_config(config, origin=str(path)) != weights.config:
        raise ValueError(
            f"{path} is not the configuration in {MODEL}'s metadata: "
            "take both files from the same model"
        )
    tokenizer = Tokenizer.from_vocab(folder / VOCAB)
    check_vocabulary(weights, tokenizer)
    return weights, tokenizer


def load_file_alone(path: str | Path) -> Weights:
    """Read a portable folder's `model.safetensors`, which knows its configuration.

    Raises:
        ValueError: as `load`.
    """
    arrays, metadata = read_safetensors(path)
    if METADATA_KEY not in metadata:
        raise ValueError(
            f"{path} has no configuration of vclip_jax in its metadata: was it made by "
            "`python -m vclip_jax.interop`? BERTs are imported with --format hf_bert"
        )
    try:
        config = json.loads(metadata[METADATA_KEY])
    except ValueError as error:
        raise ValueError(f"{path} has metadata that is not JSON ({error})") from error
    config = complete_config(config, origin=str(path))
    expected = expected_arrays(config)
    names.check(arrays, {name: leaf.shape for name, leaf in expected.items()}, origin=str(path))
    return Weights(config, {name: arrays[name].astype(np.float32, copy=False) for name in expected})


def read_safetensors(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """A safetensors file: name -> array, and the metadata.

    Raises:
        ValueError: it is damaged.
        OSError: it cannot be read.
    """
    try:
        with safe_open(path, framework="np") as file:
            keys = file.keys()
            return {name: file.get_tensor(name) for name in keys}, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is truncated or damaged ({error}): get it again") from error


def check_vocabulary(weights: Weights, tokenizer: Tokenizer) -> None:
    """Raises ValueError unless the text tower has one embedding a token."""
    rows = weights.arrays[_WORDS].shape[0]
    if tokenizer.vocab_size != rows:
        raise ValueError(
            f"the vocabulary has {tokenizer.vocab_size} tokens, the model {rows}: "
            "give the model's own vocab.txt"
        )


def _card(weights: Weights, origin: str) -> str:
    config, model = weights.config, weights.config["model"]
    text = (
        f"- Text: BERT, {model['text_layers']} layers of width {model['text_width']}, "
        f"{config['tokenizer']['vocab_size']} tokens, captions of at most "
        f"{config['tokenizer']['context_length']} tokens, pooling: {model['text_pool']}.\n"
    )
    size = f"- {weights.count:,} parameters, float32.\n- Origin: {origin}.\n"
    if config["kind"] == "text":
        return (
            "---\nlibrary_name: vclip_jax\nlanguage: zh\n---\n\n# A text tower for vclip_jax\n\n"
            f"{text}{size}"
        )
    data = config["data"]
    layers = "-".join(str(blocks) for blocks in model["vision_layers"])
    tower = "ResNet" if len(model["vision_layers"]) == 4 else "Vision Transformer"
    contrast = ", local contrast instead of colours" if data["enhance"] else ""
    return (
        "---\nlibrary_name: vclip_jax\npipeline_tag: zero-shot-image-classification\n"
        "language: zh\n---\n\n# A language-image model for vclip_jax\n\n"
        f"- Image: CLIP's {tower}, {layers} blocks, width {model['vision_width']}, "
        f"{data['image_size']} x {data['image_size']} pixels; photographs are made square by "
        f"`{data['fit']}`{contrast}.\n"
        f"{text}"
        f"- Common space: {model['embed_dim']} dimensions.\n"
        f"{size}\n"
        "## Use\n\n"
        "```python\nimport vclip_jax\n\n"
        "clip = vclip_jax.load(PATH)  # this folder, or hub:OWNER/NAME\n"
        'clip.encode_image(["photo.jpg"])  # unit vectors\n'
        'clip.classify(["photo.jpg"], ["正常眼底", "青光眼"])  # probabilities\n```\n\n'
        "## Limits\n\n"
        "For research. Not a medical device: it was not validated for diagnosis.\n"
    )
