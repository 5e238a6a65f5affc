"""One small file per loss; each takes BCHW tensors in [0, 1] and returns a scalar."""
