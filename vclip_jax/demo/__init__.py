"""A page to try a model on photographs by hand, see `docs/demo.md`. Not for diagnosis."""
