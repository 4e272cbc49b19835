"""Adapters: one file for each upstream system, run by ``baselines/worker.py`` in that system's own interpreter.

They import the standard library and numpy at module level, never ``reliev3r``; what they share is ``shared.py``, which
they import under the private name ``reliev3r_adapters`` on either side. docs/contributing/baseline.md says how to
write one.
"""

import sys

sys.modules.setdefault("reliev3r_adapters", sys.modules[__name__])
