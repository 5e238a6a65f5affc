"""Image files: headers, samples, metadata, and writing fills back into the original raster.

The only place that knows codecs. It must not know where holes come from or how they are filled.
"""
