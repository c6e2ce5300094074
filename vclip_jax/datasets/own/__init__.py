"""A user's own dataset: tables in any shape, folders of classes, photographs named by either, read
or refused with the reason.
"""
