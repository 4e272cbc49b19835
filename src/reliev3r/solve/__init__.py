"""Whole captures without training: cameras solved from tracks, and depth swept under them."""
