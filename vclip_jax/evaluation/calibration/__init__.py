"""Calibration of a model's answers, with labels or by a stated prevalence: `vclip calibrate`.

Defaults of options stand here, so that the command line is parsed before JAX is imported. A
calibration and its file are defined in `prompts.calibration`.
"""

from typing import Final

FOLDS: Final = 10
"""Folds of the cross-validation, for too few labelled photographs to hold some back."""
