"""The timetable of a run: the steps after which it logs, saves, evaluates or stops."""

from dataclasses import dataclass

from ml_collections import ConfigDict


@dataclass(frozen=True)
class Due:
    """The work that is due after a step."""

    log: bool
    save: bool
    stop: bool
    measure: bool


@dataclass(frozen=True)
class Timetable:
    """The steps of a run after which work is due."""

    total_steps: int
    log_every: int
    checkpoint_every: int
    eval_every: int
    """0 for no evaluation besides the one at the end."""

    @classmethod
    def of(cls, config: ConfigDict) -> "Timetable":
        """Make the timetable that a config asks for."""
        return cls(config.total_steps, config.log_every, config.checkpoint_every, config.eval_every)

    def measures(self, step: int) -> bool:
        """Return whether an evaluation follows this step, besides the one at the end."""
        if not self.eval_every or not 0 < step < self.total_steps:
            return False
        return step % self.eval_every == 0

    def after(self, step: int, *, stop: bool = False) -> Due:
        """Return the work due after `step`, at which the run may have to `stop`."""
        last = step == self.total_steps
        measure = self.measures(step)
        return Due(
            log=step % self.log_every == 0 or last or step == 1,
            # A state that is evaluated is saved too, and so is the last one before a stop.
            save=step % self.checkpoint_every == 0 or last or stop or measure,
            stop=stop,
            measure=measure,
        )
