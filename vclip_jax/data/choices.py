"""The values that options of the data may have, apart from the modules that act on them.

Nothing slow is imported here: command lines and configurations are checked first.
"""

from typing import Final

MODES: Final = ("exact", "fast")
"""How a JPEG is decoded, see `vclip_jax.data.images.decode`."""

ORDERS: Final = ("permutation", "grain")
"""Names of `config.data.shuffle`: that of `vclip_jax.data.order`, and Grain's of the runs before,
in which records that are neighbours, or in one batch, are so again more often than by chance."""

AUTOMATIC: Final = -1
"""As many worker processes as `vclip_jax.data.workers` thinks right."""
