import logging
from fractions import Fraction

import av
import numpy as np
import pytest

from reliev3r.core.errors import UserError
from reliev3r.data.capture import load_capture
from reliev3r.data.video import user_cache


def write_video(path, count=31, width=96, height=64, aspect=None):
    """A camera at rest: frame i is grey of value 96 + 5 i, with a dark red square in the top left corner."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = width, height, "yuv420p", 4_000_000
        if aspect:
            stream.codec_context.sample_aspect_ratio = Fraction(*aspect)
        for index in range(count):
            image = np.full((height, width, 3), 96 + 5 * index, np.uint8)
            image[:32, :32] = [255, 0, 0]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())


def write_parts(path, *sizes):
    """One stream whose frames change their size, as recordings of calls and of television do."""
    whole = b""
    for width, height in sizes:
        with av.open(str(path), "w", format="mpegts") as container:
            stream = container.add_stream("mpeg2video", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for index in range(6):
                noise = np.random.default_rng(index).integers(0, 255, (height, width, 3), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
            container.mux(stream.encode())
        whole += path.read_bytes()
    path.write_bytes(whole)


def turn_clockwise(path):
    """Write the display matrix of a phone held upright into the MP4 track header: (x, y) -> (-y, x)."""
    content = path.read_bytes()
    start = content.index(b"tkhd") + 44  # version and flags, times, identifiers, layer, volume
    values = [0, 1, 0, -1, 0, 0]
    matrix = b"".join((65536 * value).to_bytes(4, "big", signed=True) for value in values)
    path.write_bytes(content[:start] + matrix + content[start + 24 :])


def grey(capture):
    return [round(float(capture.image(i)[-16:, -16:].mean() - 96) / 5) for i in range(len(capture.frames))]


def test_evenly_spaced_frames_of_a_camera_at_rest(tmp_path):
    write_video(tmp_path / "clip.mp4")
    capture = load_capture(tmp_path / "clip.mp4", views=4, cache=tmp_path / "cache")
    assert capture.names == ("000000", "000010", "000020", "000030")
    assert grey(capture) == [0, 10, 20, 30]
    assert capture.ordered
    assert (capture.frames[0].width, capture.frames[0].height) == (96, 64)
    assert capture.root == tmp_path / "cache" / "frames"


def test_all_frames_of_a_short_video_and_a_default(tmp_path):
    write_video(tmp_path / "clip.mp4", count=3)
    assert len(load_capture(tmp_path / "clip.mp4", cache=tmp_path).frames) == 3
    write_video(tmp_path / "long.mp4", count=30)
    assert len(load_capture(tmp_path / "long.mp4", cache=tmp_path).frames) == 24


def test_frames_are_reused_while_nothing_changed(tmp_path):
    def stamps():
        return {f.name: f.path.stat().st_mtime_ns for f in load_capture(video, views=views, cache=tmp_path).frames}

    video, views = tmp_path / "clip.mp4", 3
    write_video(video)
    first = stamps()
    assert stamps() == first
    (tmp_path / "frames" / "000015.jpg").unlink()  # someone tidied up
    assert stamps() != first
    views = 4
    assert len(stamps()) == 4
    write_video(video, count=11)  # another video under the same name
    assert grey(load_capture(video, views=3, cache=tmp_path)) == [0, 5, 10]


def test_rotation_metadata_is_applied(tmp_path):
    write_video(tmp_path / "clip.mp4")
    turn_clockwise(tmp_path / "clip.mp4")
    capture = load_capture(tmp_path / "clip.mp4", views=2, cache=tmp_path)
    assert (capture.frames[0].width, capture.frames[0].height) == (64, 96)
    corners = capture.image(0)[[8, 8], [8, -8]]  # red moved from the top left to the top right
    assert corners[0, 0] < 120
    assert corners[1, 0] > 200


def test_broken_tail_gives_the_frames_before_it(tmp_path, caplog):
    video = tmp_path / "clip.avi"  # an index-free container, like a recording that was cut off
    write_video(video)
    content = video.read_bytes()
    video.write_bytes(content[: int(0.7 * len(content))])
    with caplog.at_level(logging.WARNING):
        capture = load_capture(video, views=3, cache=tmp_path)
    assert grey(capture)[0] == 0
    assert 5 < grey(capture)[-1] < 30


def test_not_a_video(tmp_path):
    (tmp_path / "a.mp4").write_text("no video")
    with pytest.raises(UserError, match=r"a\.mp4: not readable as a video"):
        load_capture(tmp_path / "a.mp4", cache=tmp_path)
    (tmp_path / "empty.mp4").write_bytes(b"")
    with pytest.raises(UserError, match=r"empty\.mp4: not readable as a video"):
        load_capture(tmp_path / "empty.mp4", cache=tmp_path)


def test_sound_without_pictures(tmp_path):
    with av.open(str(tmp_path / "a.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        samples.sample_rate = 8000
        container.mux(stream.encode(samples))
        container.mux(stream.encode())
    with pytest.raises(UserError, match="no video stream"):
        load_capture(tmp_path / "a.wav", cache=tmp_path)


def test_cache_that_cannot_be_written(tmp_path):
    write_video(tmp_path / "clip.mp4", count=3)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot be written"):
        load_capture(tmp_path / "clip.mp4", cache=tmp_path / "file")


def test_default_cache_is_the_users(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_video(tmp_path / "clip.mp4", count=3)
    capture = load_capture(tmp_path / "clip.mp4")
    assert capture.root == user_cache(tmp_path / "clip.mp4") / "frames"
    assert (tmp_path / "cache") in capture.root.parents


@pytest.mark.parametrize(
    ("stored", "aspect", "shown"),
    [((72, 64), (4, 3), (96, 64)), ((96, 48), (3, 4), (96, 64)), ((96, 64), None, (96, 64))],
)
def test_pixels_that_are_shown_wide_or_high_become_square(tmp_path, stored, aspect, shown):
    write_video(tmp_path / "clip.mp4", count=3, width=stored[0], height=stored[1], aspect=aspect)
    frame = load_capture(tmp_path / "clip.mp4", views=2, cache=tmp_path).frames[0]
    assert (frame.width, frame.height) == shown
    turn_clockwise(tmp_path / "clip.mp4")
    turned = load_capture(tmp_path / "clip.mp4", views=2, cache=tmp_path).frames[0]
    assert (turned.width, turned.height) == shown[::-1]


@pytest.mark.parametrize("second", [(192, 128), (64, 96)])
def test_frames_that_change_their_size_are_told(tmp_path, caplog, second):
    write_parts(tmp_path / "clip.ts", (96, 64), second)
    with caplog.at_level(logging.WARNING):
        capture = load_capture(tmp_path / "clip.ts", cache=tmp_path / "cache")
    width, height = second
    assert f"change from 96x64 to {width}x{height} at frame" in caplog.text
    assert {(frame.width, frame.height) for frame in capture.frames} == {(96, 64), second}
    for index, frame in enumerate(capture.frames):
        assert capture.image(index).shape[:2] == (frame.height, frame.width)
