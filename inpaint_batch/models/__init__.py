"""Networks, one page each, the layers that they share, and their weights on the disk.

Tensors in, tensors out: it must not know engines, or images as files. All but `spec`, which holds sizes alone, import
torch.
"""
