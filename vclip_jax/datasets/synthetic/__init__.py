"""Synthetic eyes: drawn cases, their pictures, their SynFundus-1M columns, their Chinese captions.

`builder.build` makes TFDS datasets of them; `record.record` makes one in memory.
"""
