"""Reliev3R: training feed-forward 3D reconstruction models without 3D annotation."""
