"""Did an adaptation help? Judged without ground truth, and by evidence that the labels had no part in."""

from reliev3r.acceptance.evidence import HeldoutCapture, gather_evidence
from reliev3r.acceptance.pages import write_verdict_page
from reliev3r.acceptance.verdict import Figure, JudgeConfig, Verdict, judge

__all__ = ("Figure", "HeldoutCapture", "JudgeConfig", "Verdict", "gather_evidence", "judge", "write_verdict_page")
