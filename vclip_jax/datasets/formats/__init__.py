"""File formats of datasets: tables (CSV, Excel, JSON, Parquet), WebDataset, Chinese-CLIP's files,
images in tables.
"""
