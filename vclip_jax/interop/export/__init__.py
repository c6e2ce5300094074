"""Export: towers as StableHLO and ONNX, and portable folders on the Hugging Face Hub."""

from typing import Final

FORMATS: Final = ("stablehlo", "onnx")
"""Formats of exported towers, see `towers`."""
