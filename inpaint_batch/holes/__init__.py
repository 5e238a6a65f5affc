"""From a mask file to a boolean hole map; connected holes, their boxes and depths; synthetic holes.

It may read a mask through `imaging`; it must not know tiles or engines.
"""
