"""Progress in a log file: a line when a stage begins and ends, and one a minute between."""

from reliev3r.cli.terminal import progress_lines


def test_a_line_a_minute() -> None:
    lines: list[str] = []
    now = [0.0]
    report = progress_lines(lines.append, clock=lambda: now[0])
    for step in range(0, 301):
        now[0] = 1.0 * step
        report("train", step, 300, f"loss {step}")
    assert lines == [
        "train: 0 of 300, 0:00:00 (loss 0)",
        "train: 60 of 300, 0:01:00, 1/s, 0:04:00 left (loss 60)",
        "train: 120 of 300, 0:02:00, 1/s, 0:03:00 left (loss 120)",
        "train: 180 of 300, 0:03:00, 1/s, 0:02:00 left (loss 180)",
        "train: 240 of 300, 0:04:00, 1/s, 0:01:00 left (loss 240)",
        "train: 300 of 300, 0:05:00, 1/s (loss 300)",
    ]


def test_stages_are_told_apart_and_finished_ones_are_silent() -> None:
    lines: list[str] = []
    report = progress_lines(lines.append, clock=lambda: 0.0)
    for stage in ("frames", "labels"):
        for done in (0, 1, 2, 2, 2):
            report(stage, done, 2, "")
    assert lines == ["frames: 0 of 2, 0:00:00", "frames: 2 of 2, 0:00:00",
                     "labels: 0 of 2, 0:00:00", "labels: 2 of 2, 0:00:00"]  # fmt: skip


def test_a_stage_that_finds_more_to_do_goes_on_speaking():
    """Pairs of images are counted after all keypoints are found: 1000 of 1000, then 1001 of 11000."""
    lines, now = [], [0.0]
    report = progress_lines(lines.append, clock=lambda: now[0])
    for second, done, total in ((0, 10, 10), (1, 11, 40), (61, 30, 40), (62, 40, 40), (63, 40, 40)):
        now[0] = float(second)
        report("tracks", done, total, "")
    assert [line.split(",")[0] for line in lines] == ["tracks: 10 of 10", "tracks: 30 of 40", "tracks: 40 of 40"]


def test_a_stage_that_begins_again_is_heard_of_if_it_takes_long() -> None:
    lines: list[str] = []
    now = [0.0]
    report = progress_lines(lines.append, clock=lambda: now[0])
    for times in (10.0, 10.0, 70.0):  # seconds of a step
        for done in (0, 1, 2):
            report("tracks", done, 2, "")
            now[0] += times
    assert lines == [
        "tracks: 0 of 2, 0:00:00",
        "tracks: 2 of 2, 0:00:20, 0.1/s",
        "tracks: 1 of 2, 0:01:10, 0.0143/s, 0:01:10 left",
        "tracks: 2 of 2, 0:02:20, 0.0143/s",
    ]


def test_large_counts_are_read_at_a_glance() -> None:
    lines: list[str] = []
    progress_lines(lines.append, clock=lambda: 0.0)("render", 0, 2073600, "pixels rendered")
    assert lines == ["render: 0 of 2,073,600, 0:00:00 (pixels rendered)"]
