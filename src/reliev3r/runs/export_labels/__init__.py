"""``reliev3r export-labels``: weak labels for the supervised trainers of other repositories."""
