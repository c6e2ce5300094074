"""The published datasets, a module each: how their files lie, and what their labels mean."""
