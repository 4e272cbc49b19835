"""Other systems under the same interface, for comparison."""
