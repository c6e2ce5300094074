"""Tokenizers: WordPiece vocabularies, `tokenizer.json` files, the text cleaning of open_clip."""
