"""Labelling many captures, in processes of this machine or on a Ray cluster; the bytes are the same."""

from reliev3r.labels.scale.captures import CaptureTask, find_captures
from reliev3r.labels.scale.index import read_index, write_index
from reliev3r.labels.scale.run import label_store
from reliev3r.labels.scale.worker import LabelJob

__all__ = ["CaptureTask", "LabelJob", "find_captures", "label_store", "read_index", "write_index"]
