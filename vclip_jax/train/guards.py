"""Guards of training: skip updates that are not finite, and warn of values that look wrong.

An update is skipped inside the compiled step, so that the decision depends only on the step's own
values, and a resumed run skips the same updates. The host checks values when it logs them.
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
from vclip_jax.files.errors import few
from vclip_jax.files.writing import write_json
from vclip_jax.models.build import Batch
from vclip_jax.models.clip import MAX_LOGIT_SCALE
from vclip_jax.train.state import Metrics, TrainState

WINDOW = 50
"""The number of logged losses with which a new loss is compared."""
MANY_REPEATED = 0.5
"""The share of repeated captions in a batch from which on a warning is due."""

log = logging.getLogger("vclip_jax")
TrainStep = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]


class SkippedError(ValueError):
    """Too many updates in a row were skipped; one line."""


# --- Inside the compiled step.


def guarded(train_step: TrainStep) -> TrainStep:
    """Wrap `train_step` to change only the step number if loss or gradients are not finite.

    The metrics get `skipped`, 1 or 0.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        moved, metrics = train_step(state, batch)
        good = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["grad_norm"])
        kept = jax.tree.map(lambda new, old: jnp.where(good, new, old), moved, state)
        skipped = 1.0 - good.astype(jnp.float32)
        return kept.replace(step=moved.step), metrics | {"skipped": skipped}

    return step


def group_norms(grads: Any) -> dict[str, jax.Array]:
    """Return L2 norms of gradients, scalars, grouped by the first two parts of their paths."""
    groups: dict[str, list[jax.Array]] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        groups.setdefault("/".join(path_string(path).split("/")[:2]), []).append(leaf)
    return {name: optax.tree.norm(leaves) for name, leaves in groups.items()}


def measuring() -> optax.GradientTransformation:
    """Return an optimizer that changes nothing; its new state is `group_norms` of the gradients.

    With this optimizer, a training step diagnoses itself.
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
    """Return the share of `[b]` integers that equal an earlier one, among this process's.

    Counted on the host, because in the step it would be one more collective.
    """
    local = [np.asarray(part.data) for part in numbers.addressable_shards if part.replica_id == 0]
    return 1 - len(np.unique(np.concatenate(local))) / sum(map(len, local))


@dataclass
class Watch:
    """A watch over the metrics of steps as they are logged: it warns, and says when to stop."""

    batch_size: int
    patience: int
    """The number of skipped updates in a row that ends the run."""
    softmax: bool
    pairs: bool
    """True if only the text of its own pair matches an image, see `config.loss.targets`."""
    quiet_steps: int
    """Steps at the start during which a flat loss is normal."""
    skipped: int = 0
    """The number of skipped updates since the run began."""
    in_a_row: int = 0
    """The number of skipped updates since the last good one."""
    _pending: list[jax.Array] = field(init=False, default_factory=list)
    _losses: deque[float] = field(init=False, default_factory=lambda: deque(maxlen=WINDOW))
    _said: set[str] = field(init=False, default_factory=set)
    _flat: int = field(init=False, default=0)

    @classmethod
    def of(cls, config: ConfigDict, counters: Mapping[str, int]) -> "Watch":
        """Make the watch that a config asks for; a resumed run passes its saved `counters`."""
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
        """Remember the `skipped` flag of a step, without waiting for the step."""
        self._pending.append(metrics["skipped"])

    def counters(self) -> dict[str, int]:
        """Return the counters up to the last recorded step, to be saved with a checkpoint."""
        for flag in jax.device_get(self._pending):
            self.skipped += int(flag)
            self.in_a_row = self.in_a_row + 1 if flag else 0
        self._pending.clear()
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def should_stop(self) -> bool:
        """Return whether too many updates in a row were skipped."""
        return self.counters()["in_a_row"] >= self.patience

    def check(self, step: int, values: dict[str, float]) -> dict[str, float]:
        """Warn of values that look wrong, and return the values to log."""
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
            self._check_loss(step, loss)
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
                "warning: step %d: %.0f %% of the batch's captions occur more than once, and the "
                "loss counts the copies as wrong answers: config.loss.targets=caption counts them "
                "as right",
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
        """Return the one-line error of a run that `should_stop`, and write `diagnosis.json`.

        Args:
            step: the last step, whose update was skipped.
            keys: the keys of that step's records.
            norms: `group_norms` of that step's gradients.
            checkpoints: the steps of the saved checkpoints.
            workdir: the run's workdir.
        """
        first = step - self.in_a_row + 1
        good = max((saved for saved in checkpoints if saved < first), default=None)
        numbers = {name: float(norm) for name, norm in norms.items()}
        bad = [name for name, norm in numbers.items() if not math.isfinite(norm)]
        if jax.process_index() == 0:
            content = {
                "step": step,
                "first_skipped": first,
                "in_a_row": self.in_a_row,
                "skipped": self.skipped,
                "records": list(keys),
                "last_good_checkpoint": good,
                "gradient_norms": {
                    name: norm if math.isfinite(norm) else str(norm)
                    for name, norm in numbers.items()
                },
            }
            write_json(workdir / "diagnosis.json", content)
        records = few(keys, 3)
        where = f"in {few(bad, 4)}" if bad else "nowhere"
        return SkippedError(
            f"{self.in_a_row} updates in a row were skipped, of steps {first} to {step}: loss or "
            f"gradients are not finite (gradients {where}; records {records}); the last checkpoint "
            f"before is {'none' if good is None else good}: lower config.optimizer.learning_rate, "
            f"or look at {workdir / 'diagnosis.json'} and these records"
        )

    def _check_loss(self, step: int, loss: float) -> None:
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
