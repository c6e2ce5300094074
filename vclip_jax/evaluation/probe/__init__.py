"""Few-shot probes of a model's image embeddings: linear, adapters, retrieval; a command."""
