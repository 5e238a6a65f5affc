"""From a checkpoint to something that runs fast: ONNX export, quantisation, engine builds, the quality gate.

Needs the `train` extra. It must not know files other than models, nor the command line.
"""
