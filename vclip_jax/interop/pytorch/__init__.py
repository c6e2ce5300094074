"""PyTorch's checkpoint files, read without PyTorch and without running what they hold."""
