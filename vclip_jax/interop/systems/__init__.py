"""The weights of other systems: Chinese-CLIP, open_clip, Hugging Face's CLIP and BERT, FLAIR.

Each module converts the names and shapes of one system to ours.
"""
