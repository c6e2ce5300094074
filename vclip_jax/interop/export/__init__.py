"""Models for others: towers as StableHLO and ONNX, and portable folders on the Hugging Face Hub."""

from typing import Final

FORMATS: Final = ("stablehlo", "onnx")
"""Names of the programs that towers are exported as, see `towers`."""
