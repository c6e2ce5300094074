"""The towers and the model that joins them."""
