"""Two systems (or more) side by side against ground truth.

python examples/evaluate_two_systems.py capture/ scores/ fit:RUN model:RUN/checkpoint
"""

import sys

import reliev3r as r3

# The capture has cameras.json with poses ("cam_to_world"), and depth where there is any: only evaluation reads them.
capture, out, *systems = sys.argv[1:]

# fit:RUN is what a run predicted, model:CHECKPOINT a forward pass that runs now, "colmap" structure from motion.
# Predictions are kept in the folder, so that another system costs only itself.
table = r3.evaluate(systems, capture=capture, out=out)
print(table.to_text())  # also as scores.md, scores.json and comparison.html in the folder

# Every system is aligned to the truth in the same way, its definition stands below the table. A quantity that a system
# does not predict is None (a cross in the table), never 0.
best = max(table.rows, key=lambda row: row.scores.auc30 or 0)
print(f"best poses: {best.system}, AUC@30 {best.scores.auc30}")
