"""Image files: headers, samples, metadata, and writing fills back into the original raster.

The only place that knows codecs. It must not know where holes come from or how they are filled.

`read.open_image` gives an `ImageSource`, `write.write_filled` and `write.verify_written` put patches into a copy of
its file; `masks.read_mask` reads the user's mask, `colour` translates between samples and RGB. Each format is
one or a few modules of its own; `vips` alone touches libvips. Nothing is imported here, so that importing the package
stays free of codecs.
"""
