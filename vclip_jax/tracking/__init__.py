"""Where the figures of a run go: `metrics.jsonl`, TensorBoard, Weights & Biases, MLflow."""
