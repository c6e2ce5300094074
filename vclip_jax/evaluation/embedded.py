"""The embedded images of a dataset, with their labels and the reasons of the gate."""

import dataclasses

import numpy as np

from vclip_jax.data.images.gate import of_bits


@dataclasses.dataclass(frozen=True)
class Embedded:
    """The embedded images of a dataset.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.evaluation.embedded import Embedded
        >>> embedded = Embedded(np.eye(2, 8, dtype=np.float32), np.array([1, -1], np.int32))
        >>> embedded.images.shape, embedded.labels.tolist()  # the second has no label
        ((2, 8), [1, -1])
    """

    images: np.ndarray
    """Unit vectors float32 `[n, d]`."""
    labels: np.ndarray
    """int32 `[n]`, -1 for no label."""
    gate: np.ndarray | None = None
    """The reasons to refuse each image, int32 `[n]`, see `gate.as_bits`; None without a gate."""

    def scored(self, labels: np.ndarray, gate: str) -> np.ndarray:
        """Return which images are scored, bool `[n]`.

        Args:
            labels: int `[n]`, -1 for no label, which is not scored.
            gate: one of `choices.GATES`; "exclude" leaves out refused images.

        Examples:
            >>> import numpy as np
            >>> from vclip_jax.evaluation.embedded import Embedded
            >>> labels = np.array([1, 0, -1], np.int32)
            >>> refused = np.array([0, 1, 0], np.int32)
            >>> embedded = Embedded(np.eye(3, 8, dtype=np.float32), labels, refused)
            >>> embedded.scored(labels, "report").tolist()
            [True, True, False]
            >>> embedded.scored(labels, "exclude").tolist()
            [True, False, False]
        """
        return (labels >= 0) & self.kept(gate)

    def kept(self, gate: str) -> np.ndarray:
        """Return which images the gate does not leave out, bool `[n]`; all unless "exclude".

        Examples:
            >>> import numpy as np
            >>> from vclip_jax.evaluation.embedded import Embedded
            >>> images, refused = np.eye(2, 8, dtype=np.float32), np.array([0, 1], np.int32)
            >>> embedded = Embedded(images, np.array([-1, 0], np.int32), refused)
            >>> embedded.kept("report").tolist(), embedded.kept("exclude").tolist()
            ([True, True], [True, False])
        """
        if gate == "exclude" and self.gate is not None:
            return np.asarray(self.gate == 0)
        return np.ones(len(self.images), np.bool_)

    def reasons(self, which: np.ndarray) -> list[str]:
        """Return the gate's reasons in words for the images of bool `[n]`; [] without a gate.

        Examples:
            >>> import numpy as np
            >>> from vclip_jax.evaluation.embedded import Embedded
            >>> images, labels = np.eye(2, 8, dtype=np.float32), np.array([1, 0], np.int32)
            >>> Embedded(images, labels).reasons(labels >= 0)
            []
            >>> judged = Embedded(images, labels, np.array([0, 0], np.int32))
            >>> judged.reasons(labels > 0)
            ['']
        """
        if self.gate is None:
            return []
        return ["; ".join(of_bits(bits)) for bits in self.gate[which].tolist()]
