"""The audit of two datasets for near-duplicates, by perceptual hashes and embeddings; a command."""
