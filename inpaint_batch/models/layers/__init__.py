"""Building blocks shared by networks."""
