"""Labelling many captures, in processes of this machine or on a Ray cluster; the bytes are the same."""
