"""Rows from tables (CSV, TSV, JSON Lines, Parquet), from folders of images, and from one image; streaming, each
complaint with its line.

It may import `storage`, which brings a manifest from a store. It must not open an image or a mask.
"""
