"""The values of the data's options, apart from the modules that implement them.

Nothing slow is imported here: command lines and configurations are checked first.
"""

from typing import Final

MODES: Final = ("exact", "fast")
"""Ways to decode a JPEG, see `vclip_jax.data.images.decode`."""

ORDERS: Final = ("permutation", "grain")
"""Values of `config.data.shuffle`: the order of `vclip_jax.data.order`, and Grain's, for older
runs.

Grain's keeps records that are neighbours, or in one batch, together more often than by chance.
"""

BALANCES: Final = ("", "label", "finding")
"""Values of `config.data.balance`: the records as they are, or equally many examples of each class,
or of each finding and of none, see `vclip_jax.data.balance`."""

GATES: Final = ("report", "exclude", "off")
"""The treatment of pictures that `vclip_jax.data.images.gate` refuses: answer and count them, leave
them out and count them, or judge no picture."""

AUTOMATIC: Final = -1
"""As many worker processes as `vclip_jax.data.workers` chooses."""
