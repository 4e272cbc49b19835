"""The verb ``view``: a run, labels or a scene, looked at in a browser."""
