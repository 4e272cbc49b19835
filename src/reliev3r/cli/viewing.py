"""The verb that shows results in a browser."""

# No postponed annotations here: tyro reads the fields' types where the verb defines them.
import time
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from reliev3r.cli.terminal import parse


def view(argv: list[str]) -> int:
    """``reliev3r view RUN``."""

    @dataclass(frozen=True)
    class View:
        """Look at a result in the browser: points by confidence, cameras with their images, tracks, depth.

        It is served to this machine alone. A run's view.html shows its points and cameras without any server."""

        path: Positional[Path]
        """The folder of a finished fit or adaptation, of labels or a store of them, or a scene.glb."""
        capture: Path | None = None
        """The images that labels were made of; which of an adaptation's captures; with --live what a `train` is shown
        on."""
        live: bool = False
        """Follow a fit or train that is still at work: its curves, and what its best weights so far predict."""
        port: int = 8080
        """On 127.0.0.1; another one where it is taken."""

    given = parse(View, "view", argv)
    from reliev3r.runs.view.live import follow, states
    from reliev3r.runs.view.scene import open_shown
    from reliev3r.runs.view.server import Viewer
    from reliev3r.runs.view.shown import Shown

    # Bad input is told before anything is served
    found = states(given.path, given.capture) if given.live else open_shown(given.path, given.capture)
    viewer = Viewer(given.port)
    print(f"open {viewer.address} (Ctrl-C ends it)", flush=True)
    try:
        if not isinstance(found, Shown):
            follow(viewer, found)
        else:
            viewer.show(found)
            while True:
                time.sleep(3600)
    except KeyboardInterrupt:
        pass
    finally:
        viewer.close()
    return 0
