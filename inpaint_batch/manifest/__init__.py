"""Rows from CSV files and folders, checked, with line numbers in every complaint. It must not open an image."""
