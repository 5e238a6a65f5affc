"""Engines that run a compiled model on batches of tiles, and the choice between them.

It knows arrays, not files of images. torch, tensorrt and onnxruntime are imported only by the engine that uses them.
"""
