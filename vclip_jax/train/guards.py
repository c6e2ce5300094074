"""Guards of a training: updates that are not finite are skipped, and what looks wrong is said.

The update is skipped inside the compiled step, so that it depends on nothing but the step's own
numbers and a resumed run skips the same ones. The host looks at the figures when it logs them.
"""

import logging
import math
import statistics
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vclip_jax.devices.tree import path_string
from vclip_jax.files.writing import write_json
from vclip_jax.models.build import Batch
from vclip_jax.models.clip import MAX_LOGIT_SCALE
from vclip_jax.train.state import Metrics, TrainState

WINDOW = 50
"""Logged losses that a new one is compared with."""
MANY_REPEATED = 0.5

log = logging.getLogger("vclip_jax")
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


class SkippedError(ValueError):
    """Too many updates in a row were skipped; one line."""


# --- Inside the compiled step.


def guarded(train_step: TrainStep) -> TrainStep:
    """`train_step`, which changes nothing but the step's number if loss or gradients are not
    finite. Its metrics are also `skipped`, 1 or 0.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        moved, metrics = train_step(state, batch)
        good = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
        kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), moved, state)
        skipped = 1.0 - good.astype(jnp.float32)
        return kept.replace(step=moved.step), metrics | {"skipped": skipped}

    return step


def group_norms(grads: Any, depth: int = 2) -> dict[str, jax.Array]:
    """L2 norms of gradients by the first `depth` parts of their paths."""
    groups: dict[str, list[jax.Array]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        groups.setdefault("/".join(path_string(path).split("/")[:depth]), []).append(leaf)
    return {name: optax.tree.norm(leaves) for name, leaves in groups.items()}


def measuring() -> optax.GradientTransformation:
    """An optimizer that changes nothing and whose new state is `group_norms` of the gradients.

    With it in place of the optimizer, a training step is its own diagnosis.
    """
    return optax.GradientTransformation(
        lambda params: group_norms(params),
        lambda grads, state, params=None: (
            jax.tree.map(jnp.zeros_like, grads),
            group_norms(grads),
        ),
    )


# --- On the host.


def repeated(numbers: jax.Array) -> float:
    """The share of `[b]` integers, of those that are this process's, that equal another one before.

    Counted here, as it would be one more collective in the step.
    """
    own = [np.asarray(part.data) for part in numbers.addressable_shards if part.replica_id == 0]
    return 1 - len(np.unique(np.concatenate(own))) / sum(map(len, own))


@dataclass
class Watch:
    """Reads the figures of steps as they are logged; warns, and says when to stop."""

    batch_size: int
    patience: int
    """So many updates in a row may be skipped."""
    softmax: bool
    pairs: bool
    """Whether an image belongs to the text of its own pair alone, see `config.loss.targets`."""
    quiet_steps: int
    """Early on a loss of nothing learnt is no sign of anything."""
    skipped: int = 0
    """In all."""
    in_a_row: int = 0
    _pending: list[jax.Array] = field(init=False, default_factory=list)
    _losses: deque[float] = field(init=False, default_factory=lambda: deque(maxlen=WINDOW))
    _said: set[str] = field(init=False, default_factory=set)
    _flat: int = field(init=False, default=0)

    @classmethod
    def of(cls, config: ConfigDict, counters: Mapping[str, int]) -> "Watch":
        """The watch that a config asks for; `counters` are those of `counters` at a resume."""
        return cls(
            config.global_batch_size,
            config.max_skipped,
            quiet_steps=config.optimizer.warmup_steps,
            softmax=config.loss.kind.startswith("softmax"),
            pairs=config.loss.targets == "pair",
            skipped=counters.get("skipped", 0),
            in_a_row=counters.get("in_a_row", 0),
        )

    def record(self, metrics: Metrics) -> None:
        """Remember a step's flag, without waiting for the step."""
        self._pending.append(metrics["skipped"])

    def counters(self) -> dict[str, int]:
        """The counters, up to the last step that was added: to be kept with a checkpoint."""
        for flag in jax.device_get(self._pending):
            self.skipped += int(flag)
            self.in_a_row = self.in_a_row + 1 if flag else 0
        self._pending.clear()
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def should_stop(self) -> bool:
        """Whether it is time to stop."""
        return self.counters()["in_a_row"] >= self.patience

    def check(self, step: int, values: dict[str, float]) -> dict[str, float]:
        """Warn of what looks wrong; returns those values that can be logged."""
        self.counters()
        loss = values["loss"]
        if not math.isfinite(loss) or values["skipped"]:
            log.warning(
                "warning: step %d was skipped: loss %g, gradient norm %g; %d in a row",
                step,
                loss,
                values["grad_norm"],
                self.in_a_row,
            )
        else:
            self._look_at_loss(step, loss)
        if values["logit_scale"] >= 0.999 * math.exp(MAX_LOGIT_SCALE):
            self._once(
                "clamp",
                "warning: step %d: logit_scale is at its clamp, %g",
                step,
                values["logit_scale"],
            )
        share = values.get("repeated_captions", 0.0)
        if share > MANY_REPEATED and self.pairs:
            self._once(
                "repeated",
                "warning: step %d: %.0f %% of a batch's captions are there "
                "already, and count as wrong ones: config.loss.targets=caption would count "
                "them as right",
                step,
                100 * share,
            )
        kept = {k: v for k, v in values.items() if k != "skipped" and math.isfinite(v)}
        return kept | ({"skipped_steps": float(self.skipped)} if self.skipped else {})

    def diagnosis(
        self,
        step: int,
        keys: Sequence[str],
        norms: Mapping[str, Any],
        checkpoints: Sequence[int],
        workdir: Path,
    ) -> SkippedError:
        """What to end a run with that is `should_stop`, in one line; in full in `diagnosis.json`.

        Args:
            step: the last step, whose update was skipped.
            keys: of that step's records.
            norms: `group_norms` of that step's gradients.
            checkpoints: the steps that are saved.
            workdir: of the run.
        """
        first = step - self.in_a_row + 1
        good = max((saved for saved in checkpoints if saved < first), default=None)
        told = {name: float(norm) for name, norm in norms.items()}
        bad = [name for name, norm in told.items() if not math.isfinite(norm)]
        if jax.process_index() == 0:
            content = {
                "step": step,
                "first_skipped": first,
                "in_a_row": self.in_a_row,
                "skipped": self.skipped,
                "records": list(keys),
                "last_good_checkpoint": good,
                "gradient_norms": {k: v if math.isfinite(v) else str(v) for k, v in told.items()},
            }
            write_json(workdir / "diagnosis.json", content)
        some = ", ".join(keys[:3]) + (", ..." if len(keys) > 3 else "")
        where = f"in {', '.join(bad[:4])}{', ...' if len(bad) > 4 else ''}" if bad else "nowhere"
        return SkippedError(
            f"{self.in_a_row} updates in a row were skipped, of steps {first} to {step}: loss or "
            f"gradients are not finite (gradients {where}; records {some}); the last checkpoint "
            f"before is {'none' if good is None else good}: lower config.optimizer.learning_rate, "
            f"or look at {workdir / 'diagnosis.json'} and these records"
        )

    def _look_at_loss(self, step: int, loss: float) -> None:
        if len(self._losses) >= 10:
            middle = statistics.median(self._losses)
            spread = statistics.median(abs(earlier - middle) for earlier in self._losses)
            if loss > middle + max(10 * spread, 0.5 * abs(middle)):
                log.warning(
                    "warning: step %d: the loss jumps from about %.3g to %.3g", step, middle, loss
                )
        self._losses.append(loss)
        # Equal embeddings give all texts the same probability.
        nothing = self.softmax and abs(loss - math.log(self.batch_size)) < 1e-3
        self._flat = self._flat + 1 if nothing and step > self.quiet_steps else 0
        if self._flat == 3:
            self._once(
                "collapse",
                "warning: step %d: the loss is log(%d) = %.3f, as if all embeddings were the same",
                step,
                self.batch_size,
                loss,
            )

    def _once(self, what: str, message: str, *values: Any) -> None:
        if what not in self._said:
            self._said.add(what)
            log.warning(message, *values)
