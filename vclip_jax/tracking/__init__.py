"""The destinations of a run's metrics: `metrics.jsonl`, TensorBoard, Weights & Biases, MLflow."""
