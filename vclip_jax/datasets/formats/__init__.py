"""File formats of datasets: tables (CSV, Excel, JSON, Parquet), WebDataset, images in tables."""
