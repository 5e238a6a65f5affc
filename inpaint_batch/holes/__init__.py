"""From a mask to a boolean hole map; connected holes, their boxes and depths; damage that is found in an image by
itself; synthetic holes.

Masks and images come to it as arrays, or as what reads them part by part. It must not know formats, tiles or engines.
"""
