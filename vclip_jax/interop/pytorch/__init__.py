"""PyTorch's checkpoint files, read without PyTorch and without running code from them."""
