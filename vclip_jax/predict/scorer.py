"""The zero-shot scorer: embeddings of images and prompts, their cosines, and a softmax."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vclip_jax.devices import cores
from vclip_jax.devices.ahead import ahead
from vclip_jax.devices.chips import COMPILER_OPTIONS
from vclip_jax.devices.sharding import BATCH
from vclip_jax.models.bert import COUNTED_PAD_ID, PAD_ID
from vclip_jax.models.build import Batch
from vclip_jax.models.clip import normalise
from vclip_jax.prompts import PromptSet

Variables = tuple[dict[str, Any], dict[str, Any]]
"""Parameters and batch statistics."""
TEXT_BATCH = 64
CPU_CHUNK = 8
"""The number of images that a CPU encodes at a time, so that the values of a layer fit into its
cache (see docs/performance.md)."""
CPU_BATCHES = 4
"""The largest number of batches that a CPU encodes at a time, which bounds the memory."""


class Scorer:
    """The jitted encoders of a model on a mesh, compiled once for all datasets.

    Args:
        graphdef: the model's structure, from `build.split_model`.
        mesh: the mesh; image batches are sharded over all its axes.
        tokenize: strings to int32 `[n, context_length]`.
        count_padding: pad the prompts of a class to the longest of them, and count the padding in
            the text tower's mean, as FLAIR does.
    """

    def __init__(
        self,
        graphdef: nnx.GraphDef,
        mesh: Mesh,
        tokenize: Callable[[Sequence[str]], np.ndarray],
        *,
        count_padding: bool = False,
    ):
        self.tokenize = tokenize
        self.count_padding = count_padding
        self.graphdef = graphdef
        self.mesh = mesh
        self.batch_sharding = NamedSharding(mesh, BATCH)
        self.replicated = NamedSharding(mesh, PartitionSpec())

        self._on_one_cpu = mesh.size == 1 and mesh.devices.flat[0].platform == "cpu"

        def encode_images(variables: Variables, batch: Batch) -> Batch:
            def encode(images: jax.Array) -> jax.Array:
                return nnx.merge(graphdef, *variables).encode_image(images)

            images = batch["image"]
            if self._on_one_cpu and len(images) % CPU_CHUNK == 0:
                chunks = images.reshape(-1, CPU_CHUNK, *images.shape[1:])
                embedding = jax.lax.map(encode, chunks).reshape(len(images), -1)
            else:
                embedding = encode(images)
            # Each of several hosts knows only the labels, numbers and reasons of its own rows.
            others = {name: rows for name, rows in batch.items() if name != "image"}
            return {**others, "embedding": embedding}

        def encode_texts(variables: Variables, tokens: jax.Array) -> jax.Array:
            return nnx.merge(graphdef, *variables).encode_text(tokens)

        compiled = partial(
            jax.jit,
            out_shardings=self.replicated,
            compiler_options=COMPILER_OPTIONS.get(mesh.devices.flat[0].platform),
        )
        self._encode_images, self._encode_texts = compiled(encode_images), compiled(encode_texts)

    def embed_images(
        self, variables: Variables, batches: Iterable[Batch]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return unit vectors float32 `[n, d]` and labels int32 `[n]` of records 0 to n - 1.

        Args:
            variables: the model's variables.
            batches: batches of `image`, `label` and `index`, the record's number, see
                `data.pipeline.eval_batches`. Rows may come in any order; those with the index -1
                are padding.

        Raises:
            ValueError: a record is missing or comes twice.
        """
        rows = self.embed_rows(variables, batches)
        return rows["embedding"], rows["label"]

    def embed_rows(
        self, variables: Variables, batches: Iterable[Batch]
    ) -> dict[str, npt.NDArray[Any]]:
        """Embed batches, and return all their arrays except `image`, in the order of the records.

        Returns:
            `embedding`, float32 unit vectors `[n, d]`, and the other arrays of the batches `[n]`,
            for records 0 to n - 1.

        Raises:
            ValueError: a record is missing or comes twice.
        """
        outputs = list(self._encoded(variables, batches))
        index = np.concatenate([out["index"] for out in outputs])
        order = np.argsort(index, kind="stable")[np.count_nonzero(index < 0) :]
        if not np.array_equal(index[order], np.arange(len(order))):
            raise ValueError("some records were not embedded, or twice: their numbers have gaps")
        return {name: np.concatenate([out[name] for out in outputs])[order] for name in outputs[0]}

    def _encoded(self, variables: Variables, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield what `_encode_images` returns for each batch, as arrays of the host.

        A CPU encodes a batch on each of up to `CPU_BATCHES` cores, because many operations on
        `CPU_CHUNK` images are too small to be divided among cores.
        """

        def encoded(batch: Batch) -> Batch:
            return jax.device_get(self._encode_images(variables, batch))

        if not self._on_one_cpu:
            yield from map(encoded, batches)
            return
        at_a_time = min(CPU_BATCHES, cores.usable())
        with ThreadPoolExecutor(at_a_time) as pool:
            yield from ahead(pool, encoded, batches, at_a_time)

    def embed_texts(self, variables: Variables, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors float32 `[n, d]`, each independent of the other texts."""
        return self._embed_tokens(variables, self.tokenize(texts))

    def _embed_tokens(self, variables: Variables, tokens: np.ndarray) -> np.ndarray:
        n = len(tokens)
        padding = -n % TEXT_BATCH
        tokens = np.pad(tokens, ((0, padding), (0, 0)), mode="edge")
        chunks = [
            jax.device_get(self._encode_texts(variables, tokens[start : start + TEXT_BATCH]))
            for start in range(0, len(tokens), TEXT_BATCH)
        ]
        return np.concatenate(chunks)[:n]

    def prompt_embeddings(self, variables: Variables, prompts: PromptSet) -> list[np.ndarray]:
        """Return the unit vectors of each class's prompts, float32 `[prompts of the class, d]`."""
        tokens = [self.tokenize(texts) for texts in prompts.prompts]
        if self.count_padding:
            tokens = [_padded_to_longest(rows) for rows in tokens]
        flat = self._embed_tokens(variables, np.concatenate(tokens))
        return np.split(flat, np.cumsum([len(rows) for rows in tokens])[:-1])

    def class_embeddings(self, variables: Variables, prompts: PromptSet) -> np.ndarray:
        """Return one vector for each class, float32 `[classes, d]`, see `class_means`."""
        return class_means(self.prompt_embeddings(variables, prompts), prompts.renormalise)

    def probabilities(
        self, variables: Variables, images: np.ndarray, prompts: PromptSet
    ) -> np.ndarray:
        """Return class probabilities float32 `[n, classes]` of image embeddings `[n, d]`."""
        classes = self.class_embeddings(variables, prompts)
        scale = variables[0]["logit_scale"]
        return np.asarray(class_probabilities(images, classes, scale))


def _padded_to_longest(tokens: np.ndarray) -> np.ndarray:
    """Return int32 `[n, length]` in which padding up to the longest row counts as tokens."""
    longest = (tokens != PAD_ID).sum(axis=1).max()
    within = np.arange(tokens.shape[1]) < longest
    return np.where(within & (tokens == PAD_ID), COUNTED_PAD_ID, tokens)


def class_means(parts: Sequence[np.ndarray], renormalise: bool = True) -> np.ndarray:
    """Return the mean of each class's prompt vectors, float32 `[classes, d]`.

    The means are normalised to unit vectors (Radford et al. 2021, section 3.1.4; Chinese-CLIP's
    zero-shot script) unless `renormalise` is False (FLAIR): then a class is less likely if its
    prompts disagree. `parts` come from `Scorer.prompt_embeddings`.
    """
    means = jnp.stack([part.mean(axis=0) for part in parts])
    return np.asarray(normalise(means) if renormalise else means)


@jax.jit
def class_probabilities(images: jax.Array, classes: jax.Array, logit_scale: jax.Array) -> jax.Array:
    """Return the softmax over classes of scaled cosines: `[n, d]`, `[c, d]`, scalar to `[n, c]`.

    Cosines are computed in float32 on every platform. By default a TPU would round the vectors to
    bfloat16, and a GPU to TF32, before a scale of up to 100 is applied.
    """
    logits = jnp.exp(logit_scale) * jnp.einsum(
        "nd,cd->nc", images, classes, precision="highest", preferred_element_type=jnp.float32
    )
    return jax.nn.softmax(logits, axis=-1)
