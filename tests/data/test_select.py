"""Frame selection sees pictures only, and beats a fixed stride where a video pauses, shakes or turns."""

import logging

import numpy as np
import pytest
from moving_videos import room, smeared, turn_clockwise, write_video

from reliev3r.data.capture import load_capture
from reliev3r.data.video import FrameSigns, measure_frames, select_frames
from reliev3r.labels.pipeline import label_capture
from reliev3r.labels.quality.assess import assess_labels
from reliev3r.labels.registry import depth_expert, track_expert


@pytest.fixture(scope="module")
def walk():
    """31 images along an arc."""
    return room(31)


def signs(way, sharpness=None, cuts=()):
    way = np.asarray(way, dtype=np.float64)
    sharp = np.ones(len(way)) if sharpness is None else np.asarray(sharpness, dtype=np.float64)
    return FrameSigns(sharpness=sharp, way=way, cuts=cuts)


def test_equal_steps_of_the_way_by_hand():
    pause = [0.0, 0.1, 0.2, 0.2, 0.2, 0.2, 0.3, 0.4]
    assert select_frames(signs(pause), 5) == [0, 1, 2, 6, 7]


def test_the_sharp_neighbour_is_taken():
    way = np.linspace(0, 1, 21)
    sharpness = np.ones(21)
    sharpness[[9, 10]] = 0.1
    assert select_frames(signs(way, sharpness), 3) == [0, 11, 20]
    sharpness[[9, 10]] = 0.9  # hardly worse: the place counts
    assert select_frames(signs(way, sharpness), 3) == [0, 10, 20]


def test_never_more_than_asked_for_and_all_of_a_short_video():
    assert select_frames(signs([0, 0.1, 0.2]), 5) == [0, 1, 2]
    assert select_frames(signs(np.zeros(9)), 3) == [0, 4, 8]  # at rest: evenly spaced in time
    jump = [0.0, 0.001, 0.002, 1.0]  # one step: places between have no frame of their own
    assert select_frames(signs(jump), 3) == [0, 3] or len(select_frames(signs(jump), 3)) <= 3


def grey(images):
    return [np.ascontiguousarray(image.mean(-1).astype(np.uint8)) for image in images]


def test_noise_of_a_still_camera_does_not_add_up(walk):
    rng = np.random.default_rng(0)
    still = [np.clip(walk[0] + rng.normal(0, 4, walk[0].shape), 0, 255).astype(np.uint8) for _ in range(40)]
    assert measure_frames(grey(still)).still
    assert not measure_frames(grey(walk[:6])).still


def test_a_turn_counts_less_than_a_step(walk):
    image = np.concatenate([walk[0], walk[0][:, ::-1]], axis=1)
    turning = [image[:, 6 * k : 6 * k + 240] for k in range(12)]  # everything moves alike: as in a turn, no parallax
    stepping = []
    for k in range(12):
        frame = turning[k].copy()
        frame[60:140, 80:180] = walk[15][60:140, 80 - k * 4 : 180 - k * 4]  # the middle moves against the rest
        stepping.append(frame)
    turn, step = (measure_frames(grey(images)).way[-1] for images in (turning, stepping))
    assert turn == pytest.approx(0.25 * 66 / 240, rel=0.15)
    assert step > 1.5 * turn


def test_cuts_are_found_and_reported(walk, tmp_path, caplog):
    elsewhere = room(8, seed=7)
    found = measure_frames(grey([*walk[:8], *elsewhere]))
    assert found.cuts == (8,)
    assert measure_frames(grey(walk)).cuts == ()
    video = write_video(tmp_path / "cut.mp4", [*walk[:8], *elsewhere])
    with caplog.at_level(logging.WARNING):
        load_capture(video, views=6, cache=tmp_path)
    assert "1 shot cut(s), at frame 8" in caplog.text


def test_selection_beats_a_fixed_stride(walk):
    """A walk with a long pause and a shaken stretch: judged by the true camera step between the frames, which the
    selection does not see, and by what was smeared."""
    pause, shaken = 40, range(18, 26)
    images = [*walk[:12], *[walk[12]] * pause, *walk[13:]]
    place = np.array([*range(12), *[12] * pause, *range(13, 31)])  # along the arc, in steps of the walk
    blurred = np.isin(place, shaken) & (place % 2 == 0)  # every other frame of the stretch
    images = [smeared(image) if bad else image for image, bad in zip(images, blurred, strict=True)]
    count = 12
    stride = np.rint(np.linspace(0, len(images) - 1, count)).astype(int)
    chosen = np.array(select_frames(measure_frames(grey(images)), count))
    assert len(chosen) >= count - 1
    steps, stride_steps = np.diff(place[chosen]), np.diff(place[stride])
    assert (steps > 0).all()  # no duplicates
    assert (stride_steps == 0).sum() >= 4
    assert steps.max() < stride_steps.max()  # and no gap
    assert steps.std() / steps.mean() < 0.5 * stride_steps.std() / stride_steps.mean()
    assert blurred[stride].any()
    assert not blurred[chosen].any()
    again = select_frames(measure_frames(grey(images)), count)
    assert again == chosen.tolist()


def labels_of(video, folder, views=6):
    capture = load_capture(video, views=views, cache=folder / "cache")
    label_capture(capture, depth=depth_expert("none"), tracks=track_expert("sift"), out=folder / "labels")
    return capture, assess_labels(folder / "labels", capture)


def test_variable_frame_rate(walk, tmp_path):
    """Recorded twelve times as densely while the camera stands, and unevenly while it moves."""
    images = [*walk[:8], *[walk[8]] * 24, *walk[9:16]]
    gaps = [3 + 7 * (k % 3) for k in range(8)] + [1] * 24 + [12 - 3 * (k % 4) for k in range(7)]
    video = write_video(tmp_path / "vfr.mp4", images, times=np.cumsum(gaps).tolist())
    capture, quality = labels_of(video, tmp_path)
    numbers = [int(name) for name in capture.names]
    assert sum(8 <= number < 32 for number in numbers) <= 1
    assert quality.verdict != "unusable"
    assert quality.figures["tracks"]["lifetimes"]["1"] == 1.0


def test_rotation_metadata(walk, tmp_path):
    video = write_video(tmp_path / "phone.mp4", walk[:12])
    turn_clockwise(video)
    capture, quality = labels_of(video, tmp_path)
    assert {(frame.width, frame.height) for frame in capture.frames} == {(180, 240)}
    upright = np.rot90(walk[int(capture.names[0])], -1)
    assert np.abs(capture.image(0).astype(float) - upright).mean() < 12
    assert quality.verdict != "unusable"
    assert min(quality.figures["tracks"]["per_view"]) > 30


def test_broken_tail(walk, tmp_path, caplog):
    video = write_video(tmp_path / "cut_off.avi", walk)  # an index-free container
    content = video.read_bytes()
    video.write_bytes(content[: int(0.6 * len(content))])
    with caplog.at_level(logging.WARNING):
        capture, quality = labels_of(video, tmp_path)
    assert len(capture.frames) >= 5
    assert 8 < int(capture.names[-1]) < 22
    assert quality.verdict != "unusable"
