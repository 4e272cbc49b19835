"""The network: pi^3-style, permutation-equivariant, any number of views."""
