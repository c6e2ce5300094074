"""Synthetic eyes: random cases, their pictures, SynFundus-1M columns and Chinese captions.

`builder.build` makes TFDS datasets; `record.record` makes one record in memory.
"""
