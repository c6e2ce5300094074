"""Models for others: towers as StableHLO and ONNX, and portable folders on the Hugging Face Hub."""
