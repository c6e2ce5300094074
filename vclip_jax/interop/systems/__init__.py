"""The weights of other systems: how Chinese-CLIP, open_clip, Hugging Face's CLIP and BERT, and
FLAIR name and shape them, and what becomes of each array here.
"""
