"""Networks, one page each, and their registry. Torch is imported by the page of a network only."""
