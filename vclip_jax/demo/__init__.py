"""The demo: a page to try a model on photographs, see `docs/demo.md`. Not for diagnosis."""
