"""A user's own dataset: tables in many forms, folders of classes, and photographs named by either.

What cannot be read is refused with the reason.
"""
