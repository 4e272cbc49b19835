"""The room as DL3DV stores scenes: the release's layout, that of the sample on Hugging Face, and the benchmark's."""

from layouts import Room, write_dl3dv

HASHES = tuple(f"{number:x}" * 64 for number in (0xA, 0xB, 0xC, 0xD))


def write_release(root, room: Room, *, scenes=3, **options) -> None:
    """ROOT/1K/HASH/{transforms.json, images_4/}."""
    for name in HASHES[:scenes]:
        write_dl3dv(root / "1K" / name, room, **options)


def write_sample(root, room: Room, *, scenes=2, **options) -> None:
    """ROOT/HASH/colmap/{transforms.json, images_4/}; the second scene has its images beside ``colmap``."""
    for index, name in enumerate(HASHES[:scenes]):
        write_dl3dv(root / name / "colmap", room, images=root / name if index == 1 else None, **options)


def write_benchmark(root, room: Room, *, scenes=2, first=0, **options) -> None:
    """ROOT/{benchmark-meta.csv, HASH/nerfstudio/{transforms.json, images_4/}}."""
    names = HASHES[first : first + scenes]
    for name in names:
        write_dl3dv(root / name / "nerfstudio", room, **options)
    (root / "benchmark-meta.csv").write_text("hash\n" + "\n".join(names) + "\n")
