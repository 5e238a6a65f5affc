"""The plan of tiles around holes, and how overlapping tiles are blended.

Pure geometry and arrays: numbers in, boxes out; no files, no torch.
"""
