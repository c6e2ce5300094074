"""The contrastive loss."""

import jax
import jax.numpy as jnp

from vclip_jax.models.layers import at_least_float32


def contrastive_loss(image: jax.Array, text: jax.Array, logit_scale: jax.Array) -> jax.Array:
    """CLIP's symmetric cross-entropy over the global batch (Radford et al. 2021, figure 3).

    Under `jit` with embeddings sharded along the batch this is the loss over the all-gathered
    batch, with exact gradients: the compiler gathers, nobody else has to.

    Args:
        image, text: unit vectors float32 `[b, d]`; row i of both belong together.
        logit_scale: float32 scalar, the logarithm of the inverse temperature.

    Returns:
        float32 scalar, the mean of image-to-text and text-to-image cross-entropy in nats.
    """
    logits = jnp.exp(logit_scale) * jnp.einsum(
        "id,td->it", image, text, preferred_element_type=at_least_float32(image)
    )
    matching = jnp.diagonal(logits)
    image_to_text = jax.nn.logsumexp(logits, axis=1) - matching
    text_to_image = jax.nn.logsumexp(logits, axis=0) - matching
    return (image_to_text.mean() + text_to_image.mean()) / 2
