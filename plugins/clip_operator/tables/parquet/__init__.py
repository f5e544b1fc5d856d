"""Parquet, read and written with its types, metadata and row groups kept."""
