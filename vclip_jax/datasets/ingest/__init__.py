"""The building of a dataset: from a listing of photographs to shards of records, a data card and
the list of rejects.
"""
