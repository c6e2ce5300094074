"""A trained model for scripts and notebooks: `vclip_jax.load(path)`."""

import hashlib
import logging
import os
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import islice
from typing import Any

import jax
import numpy as np
from PIL import Image

from vclip_jax import prompts as prompts_lib
from vclip_jax.data.choices import GATES
from vclip_jax.data.images.decode import pillow_rgb, read_rgb
from vclip_jax.data.images.fit import check_fit
from vclip_jax.data.images.gate import judge
from vclip_jax.data.images.opening import ImageError, as_image_error
from vclip_jax.data.images.preprocess import preprocess_pixels
from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.devices import cores, sharding
from vclip_jax.files.foreign import MOST_IMAGE, read_bytes
from vclip_jax.interop import names
from vclip_jax.interop import weights as weights_lib
from vclip_jax.interop.source import folder_of, read_folder
from vclip_jax.interop.weights import Weights
from vclip_jax.models.build import compute_dtype
from vclip_jax.predict.scorer import Scorer, Variables
from vclip_jax.prompts import calibration as calibration_lib
from vclip_jax.prompts import own, reading
from vclip_jax.prompts.calibration import Calibration

ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray
Prompts = str | prompts_lib.PromptSet | Mapping[str, Sequence[str]] | Sequence[str]
Calibrating = str | os.PathLike[str] | Calibration | None
"""A calibration file, an entry of such a file, "off" for no calibration, or None for the
calibration in the model's folder."""

log = logging.getLogger("vclip_jax")

CORES = min(16, cores.usable())


def load(
    path: str | os.PathLike[str], *, step: int | str = "latest", dtype: str = "auto"
) -> "Pretrained":
    """Load a trained model, ready to embed and to classify.

    Args:
        path: the workdir of a run, a portable folder of `vclip_jax.interop`, the name of a packaged
            model such as "retina-small", or "hub:OWNER/NAME", a portable folder on the Hugging Face
            Hub. "@REVISION" after the Hub's name chooses a branch, a tag or a commit. Only the Hub
            needs the network. A path that exists comes before a packaged model of the same name.
        step: the checkpoint of a run's workdir: "latest", "best" (by the run's
            `config.keep_best`) or its number. `Pretrained.step` is the number.
        dtype: the dtype of the computation, "float32", "bfloat16", or "auto": bfloat16 on
            accelerators and float32 on CPUs.

    Raises:
        ValueError: one line: there is no such model or step, the files do not belong together, or a
            file of a packaged model is damaged.

    Examples:
        >>> import vclip_jax
        >>> clip = vclip_jax.load(model_folder)  # or a workdir, or hub:OWNER/NAME
        >>> probabilities = clip.classify([photograph], "zh/fives")
        >>> probabilities.shape, round(float(probabilities.sum()), 3)
        ((1, 4), 1.0)
    """
    source = folder_of(path)
    weights, tokenizer, loaded = read_folder(source, step)
    if weights.config["kind"] != "clip":
        raise ValueError(f"{path} holds only a text tower, which cannot embed images")
    return Pretrained(
        weights,
        tokenizer,
        dtype=dtype,
        prompts=own.load(source),
        step=loaded,
        calibrations=calibration_lib.beside(source),
    )


def say_step(path: str | os.PathLike[str], clip: "Pretrained") -> None:
    """Print on standard error which checkpoint of a run is used."""
    if clip.step is not None:
        print(f"{os.fspath(path)}: step {clip.step}", file=sys.stderr)


class Pretrained:
    """A model with its preprocessing and tokeniser, made by `load`.

    Attributes:
        config: the portable configuration, see `interop.weights.complete_config`.
        tokenizer: the tokenizer of the texts.
        prompts: the model's default prompts; None if they are unknown.
        embed_dim: dimensions of the embeddings.
        step: the step of the checkpoint; None for a portable folder.
        calibrations: the calibrations in the model's folder, one for each prompt set.
        batch_size: images that are embedded at a time; it depends on the kind of device.
        graphdef: the model's structure, see `build.split_model`.

    Examples:
        >>> clip.embed_dim, clip.config["data"]["image_size"]
        (10, 64)
        >>> clip.encode_image([photograph]).shape
        (1, 10)
    """

    def __init__(
        self,
        weights: Weights,
        tokenizer: Tokenizer,
        *,
        dtype: str = "auto",
        prompts: prompts_lib.PromptSet | None = None,
        step: int | None = None,
        calibrations: Sequence[Calibration] = (),
    ):
        """Put the weights on the first device of this process."""
        self.config = weights.config
        self.tokenizer = tokenizer
        self.prompts = prompts
        self.step = step
        self.calibrations = tuple(calibrations)
        self._asked: set[prompts_lib.PromptSet] = set()
        self.embed_dim: int = self.config["model"]["embed_dim"]
        self.batch_size = 32 if jax.default_backend() == "cpu" else 256
        data = self.config["data"]
        check_fit(data["image_size"], data["fit"], data["decode"])
        self._dtype = compute_dtype(dtype)
        self.graphdef, _, _ = weights_lib.abstract_clip(self.config, self._dtype)
        mesh = sharding.make_mesh(1, jax.local_devices()[:1])
        self._variables = jax.device_put(weights.variables, mesh.devices.item())
        flair = self.config["model"]["text_pool"] == "layers"
        self._scorer = Scorer(self.graphdef, mesh, self._tokenize, count_padding=flair)

    def encode_image(self, images: Sequence[ImageLike] | np.ndarray) -> np.ndarray:
        """Embed images as unit vectors float32 `[n, embed_dim]`.

        Args:
            images: paths, Pillow images or uint8 RGB arrays `[height, width, 3]`, in any mixture;
                or one array `[n, height, width, 3]`.

        Raises:
            ImageError: an image cannot be used; the error names it.
            TypeError: `images` is a single image, or holds something other than images.

        Examples:
            >>> vectors = clip.encode_image([photograph])  # or Pillow images, or arrays
            >>> vectors.shape, vectors.dtype
            ((1, 10), dtype('float32'))
            >>> round(float(vectors[0] @ vectors[0]), 3)
            1.0
        """
        _refuse_single(images, "encode_image")
        return self._look(images, judged=False)[0]

    def gate(self, images: Sequence[ImageLike] | np.ndarray) -> list[tuple[str, ...]]:
        """Return the reasons to refuse each image, `()` for a good one, see `data.images.gate`.

        Args:
            images: as for `encode_image`.

        Raises:
            ImageError, TypeError: as for `encode_image`.

        Examples:
            >>> import numpy as np
            >>> (reasons,) = clip.gate([np.zeros((64, 64, 3), np.uint8)])
            >>> "too dark" in reasons
            True
        """
        _refuse_single(images, "gate")
        with ThreadPoolExecutor(CORES) as pool:
            return list(pool.map(lambda item: judge(_pixels(item[1], item[0])), enumerate(images)))

    def _look(
        self, images: Sequence[ImageLike] | np.ndarray, *, judged: bool
    ) -> tuple[np.ndarray, list[tuple[str, ...]]]:
        """Return unit vectors float32 `[n, embed_dim]`, and the results of `gate` if `judged`."""
        parts = [np.empty((0, self.embed_dim), np.float32)]
        refused: list[tuple[str, ...]] = []

        def look(item: tuple[int, ImageLike]) -> tuple[np.ndarray, tuple[str, ...]]:
            rgb = _pixels(item[1], item[0])
            return preprocess_pixels(rgb, self.config["data"]), judge(rgb) if judged else ()

        with ThreadPoolExecutor(CORES) as pool:
            remaining = iter(enumerate(images))
            while chunk := list(islice(remaining, self.batch_size)):
                squares, reasons = zip(*pool.map(look, chunk), strict=True)
                parts.append(self.embed(np.stack(squares)))
                refused += reasons
        return np.concatenate(parts), refused

    def embed(self, squares: np.ndarray) -> np.ndarray:
        """Embed at most `batch_size` images from `preprocess`, uint8 `[n, size, size, 3]`.

        Examples:
            >>> square = clip.preprocess(photograph)
            >>> clip.embed(square[None]).shape
            (1, 10)
        """
        n = len(squares)
        # Pad to a full batch or a power of two, so that few shapes are compiled.
        padded = min(self.batch_size, 1 << (n - 1).bit_length())
        numbers = np.arange(padded, dtype=np.int32)
        batch = {
            "image": np.pad(squares, ((0, padded - n), (0, 0), (0, 0), (0, 0))),
            "label": np.zeros(padded, np.int32),
            "index": np.where(numbers < n, numbers, np.int32(-1)),
        }
        embeddings, _ = self._scorer.embed_images(self._variables, [jax.device_put(batch)])
        return embeddings

    def encode_text(self, texts: Sequence[str], *, quiet: bool = False) -> np.ndarray:
        """Embed texts as unit vectors float32 `[n, embed_dim]`.

        Texts are cut to the context length. Cut texts and unknown words are logged, unless
        `quiet`.

        Raises:
            TypeError: `texts` is a single string.

        Examples:
            >>> texts = clip.encode_text(["青光眼", "正常"])
            >>> texts.shape
            (2, 10)
            >>> cosines = clip.encode_image([photograph]) @ texts.T
            >>> cosines.shape
            (1, 2)
        """
        _refuse_single(texts, "encode_text")
        if not len(texts):
            return np.empty((0, self.embed_dim), np.float32)
        for note in () if quiet else self.readings(texts):
            log.warning("%s", note)
        return self._scorer.embed_texts(self._variables, texts)

    def readings(self, texts: Sequence[str] | prompts_lib.PromptSet) -> list[str]:
        """Return a sentence about each part of texts or prompts that the model does not read.

        Such parts are words that the vocabulary lacks, and the end of texts that are too long.

        Raises:
            ValueError: see `asked`.

        Examples:
            >>> clip.readings(["青光眼"])
            []
            >>> clip.readings(["glaucoma"])  # asked of a Chinese vocabulary
            ["the model's vocabulary lacks 100% of the texts' tokens, most in 'glaucoma'"]
        """
        length = self.config["tokenizer"]["context_length"]
        if isinstance(texts, prompts_lib.PromptSet):
            return reading.check_prompts(texts, self.tokenizer, length)
        return reading.check_texts(texts, self.tokenizer, length)

    def classify(
        self,
        images: Sequence[ImageLike] | np.ndarray,
        prompts: Prompts | None = None,
        *,
        calibration: Calibrating = None,
        gate: str = GATES[0],
    ) -> np.ndarray:
        """Return zero-shot class probabilities, float32 `[n, classes]`.

        Args:
            images: as for `encode_image`.
            prompts: a prompt set (`"zh/fives"`, the path of a JSON file, or a result of
                `vclip_jax.prompts.load`), class name -> phrases, or a list of phrases, one for
                each class. Classes keep their order. None takes the model's own prompts.
            calibration: a file of `vclip calibrate`, an entry of such a file, or "off". None takes
                the calibration in the model's folder for these prompts, if there is one.
            gate: "report" warns of images that `gate` refuses, "exclude" also makes their rows
                NaN, "off" does not judge images.

        Raises:
            ValueError: the prompts are not valid, or the model reads those of two classes as
                equal, see `asked`. Or the calibration is for another model or other prompts.

        Examples:
            >>> asked = {"healthy": ["正常"], "glaucoma": ["青光眼", "杯盘比增大"]}
            >>> (row,) = clip.classify([photograph], asked)
            >>> answer = dict(zip(asked, row, strict=True))
            >>> list(answer), round(float(answer["healthy"] + answer["glaucoma"]), 3)
            (['healthy', 'glaucoma'], 1.0)
        """
        _refuse_single(images, "classify")
        if gate not in GATES:
            raise ValueError(f"gate is one of {', '.join(GATES)}, got {gate!r}")
        prompt_set = self.asked(prompts)
        entry = self.calibration_of(prompt_set, calibration)
        embeddings, refused = self._look(images, judged=gate != "off")
        values = self.probabilities(embeddings, prompt_set, calibration=entry or "off")
        for number, reasons in enumerate(refused):
            if reasons:  # without the file's name, which may be a patient's
                log.warning("image %d is refused: %s", number, "; ".join(reasons))
        if gate == "exclude":
            values = np.array(values)
            values[[bool(reasons) for reasons in refused]] = np.nan
        return values

    def probabilities(
        self,
        embeddings: np.ndarray,
        prompts: Prompts | None = None,
        *,
        calibration: Calibrating = None,
    ) -> np.ndarray:
        """Classify embedded images: `[n, embed_dim]` to probabilities `[n, classes]`.

        Args:
            embeddings: unit vectors of `encode_image`.
            prompts, calibration: as for `classify`.

        Examples:
            >>> vectors = clip.encode_image([photograph])
            >>> for asked in ("zh/fives", ["正常", "青光眼"]):
            ...     print(clip.probabilities(vectors, asked).shape)
            (1, 4)
            (1, 2)
        """
        prompt_set = self.asked(prompts)
        entry = self.calibration_of(prompt_set, calibration)
        values = self._scorer.probabilities(self._variables, embeddings, prompt_set)
        return values if entry is None else entry.apply(values)

    def calibration_of(
        self, prompt_set: prompts_lib.PromptSet, calibration: Calibrating = None
    ) -> Calibration | None:
        """Return the calibration of the answers to a prompt set, or None for no calibration.

        Args:
            prompt_set: the prompts.
            calibration: as for `classify`.

        Raises:
            ValueError: one line: the calibration is for another model or other prompts, or the file
                is damaged.

        Examples:
            >>> asked = clip.asked("zh/fives")
            >>> print(clip.calibration_of(asked))  # nothing is stored with this model
            None
        """
        if calibration == calibration_lib.OFF:
            return None
        if calibration is None:
            entry = calibration_lib.matching(self.calibrations, prompt_set)
        elif isinstance(calibration, Calibration):
            entry = calibration
        else:
            entries = calibration_lib.load(calibration)
            entry = calibration_lib.matching(entries, prompt_set) or entries[0]
        if entry is not None:
            entry.check(self.weights_digest, prompt_set)
        return entry

    def class_embeddings(self, prompts: Prompts) -> np.ndarray:
        """Return the vector of each class, float32 `[classes, embed_dim]`.

        Examples:
            >>> clip.class_embeddings(["正常", "青光眼"]).shape
            (2, 10)
        """
        return self._scorer.class_embeddings(self._variables, self.asked(prompts))

    def prompt_embeddings(self, prompts: Prompts) -> list[np.ndarray]:
        """Return the unit vectors of each class's prompts, float32 `[prompts of the class, d]`.

        Examples:
            >>> asked = {"healthy": ["正常"], "glaucoma": ["青光眼", "杯盘比增大"]}
            >>> [vectors.shape for vectors in clip.prompt_embeddings(asked)]
            [(1, 10), (2, 10)]
        """
        return self._scorer.prompt_embeddings(self._variables, self.asked(prompts))

    @property
    def variables(self) -> Variables:
        """Return parameters and batch statistics, on the device."""
        return self._variables

    @cached_property
    def weights_digest(self) -> str:
        """Return the SHA-256 of the model, see `interop.weights.digest`."""
        return weights_lib.digest(self.config, names.flatten(*self._variables), self.tokenizer)

    @cached_property
    def digest(self) -> str:
        """Return the SHA-256 of everything that embeddings depend on, in hexadecimal.

        That is weights, configuration (with the preprocessing), tokenizer and dtype.
        """
        return hashlib.sha256(f"{self.weights_digest} {self._dtype}".encode()).hexdigest()

    @property
    def dtype(self) -> str:
        """Return the name of the computation's dtype, "float32" or "bfloat16"."""
        return str(self._dtype)

    @property
    def logit_scale(self) -> float:
        """Return the logarithm of the factor of cosines."""
        return float(self._variables[0]["logit_scale"])

    def asked(self, prompts: Prompts | None = None) -> prompts_lib.PromptSet:
        """Return prompts as a `PromptSet`, by default the model's own, and check them.

        Parts that the model does not read (`readings`) are logged once.

        Raises:
            ValueError: one line: the model reads the prompts of two classes as equal; or no
                prompts are given, and the model has no default prompts that it can read.

        Examples:
            >>> clip.asked({"healthy": "正常", "glaucoma": "青光眼"}).class_names
            ('healthy', 'glaucoma')
            >>> clip.asked().name
            'zh/fives'
        """
        prompt_set = self._usual() if prompts is None else self.prompt_set(prompts)
        if prompt_set not in self._asked:
            for note in self.readings(prompt_set):
                log.warning("%s", note)
            self._asked.add(prompt_set)
        return prompt_set

    def _usual(self) -> prompts_lib.PromptSet:
        if self.prompts is not None:
            return self.prompts
        usual = prompts_lib.load(own.USUAL)
        length = self.config["tokenizer"]["context_length"]
        chinese = isinstance(self.tokenizer, WordPiece)
        if not chinese or not own.reads(usual, self.tokenizer, length):
            raise ValueError(
                f"this model has no prompts of its own and cannot read {own.USUAL}: give --prompts "
                "(a prompt set such as en/fives, or a JSON file) or --prompt"
            )
        if usual not in self._asked:
            log.warning("this model has no prompts of its own: using %s", own.USUAL)
        return usual

    @staticmethod
    def prompt_set(prompts: Prompts) -> prompts_lib.PromptSet:
        """Return any form of prompts that `classify` takes as a `PromptSet`.

        Examples:
            >>> clip.prompt_set(["正常", "青光眼"]).class_names
            ('正常', '青光眼')
            >>> clip.prompt_set("zh/fives").class_names
            ('normal', 'age-related macular degeneration', 'diabetic retinopathy', 'glaucoma')
        """
        if isinstance(prompts, prompts_lib.PromptSet):
            return prompts
        if isinstance(prompts, str):
            return prompts_lib.load(prompts)
        if not isinstance(prompts, Mapping):
            prompts = {phrase: [phrase] for phrase in prompts}
        return prompts_lib.from_phrases(prompts)

    def preprocess(self, image: ImageLike | bytes, index: int | str = 0) -> np.ndarray:
        """Return the image tower's input for an image: uint8 RGB `[size, size, 3]`.

        A file, the image that Pillow opens, and an array of its upright pixels give the same
        result. Photographs are decoded in full, also for a model that was trained with
        `config.data.decode = "fast"`, whose training images were scaled while being decoded.

        Args:
            image: see `encode_image`; or the content of a file.
            index: the name in errors of an image without a path.

        Examples:
            >>> square = clip.preprocess(photograph)
            >>> square.shape, square.dtype
            ((64, 64, 3), dtype('uint8'))
        """
        return preprocess_pixels(_pixels(image, index), self.config["data"])

    def _tokenize(self, texts: Sequence[str]) -> np.ndarray:
        return self.tokenizer.encode(texts, self.config["tokenizer"]["context_length"])


def _pixels(image: ImageLike | bytes, index: int | str) -> np.ndarray:
    """Return an image as uint8 RGB `[height, width, 3]`, see `Pretrained.preprocess`."""
    if isinstance(image, str | os.PathLike | bytes):
        content = image if isinstance(image, bytes) else _read(image)
        return read_rgb(content, key=_name(image, index))
    if isinstance(image, Image.Image):
        try:
            return pillow_rgb(image)
        except Exception as error:  # Pillow may decode the image only now
            why = as_image_error(error)
            raise ImageError(f"image {index}: {why}", why.reason) from error
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.shape[2:] != (3,) or not image.size:
            raise TypeError(
                f"image {index} is {image.dtype} {list(image.shape)}, "
                "expected uint8 [height, width, 3]"
            )
        return np.ascontiguousarray(image)
    raise TypeError(
        f"image {index} is a {type(image).__name__}, expected a path, a Pillow image or "
        "a uint8 array"
    )


def _name(image: ImageLike | bytes, index: int | str) -> str:
    """Return the name of an image in messages: its path, or its number."""
    return os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {index}"


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        return read_bytes(path, MOST_IMAGE)
    except OSError as error:
        raise ImageError(f"{os.fspath(path)}: cannot read the file: {error.strerror}") from error
    except ValueError as error:  # too large, or a path with a null character
        raise ImageError(f"{os.fspath(path)}: cannot read the file: {error}") from error


def _refuse_single(items: Any, function: str) -> None:
    single = isinstance(items, str | os.PathLike | Image.Image)
    if single or (isinstance(items, np.ndarray) and items.ndim == 3):
        raise TypeError(f"{function} takes a sequence, not one item: use [item]")
