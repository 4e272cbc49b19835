"""The viewer: a page in the browser that this machine serves to itself alone (viser, on the loopback address)."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch

from reliev3r.core.errors import UserError
from reliev3r.core.reconstruction import Reconstruction
from reliev3r.export.cameras import upright_from_world
from reliev3r.export.cloud import Cloud, WholeScene, whole_scene
from reliev3r.export.lens import straightened_tracks
from reliev3r.export.points import frustum_size, view_colours
from reliev3r.geometry.camera import transform
from reliev3r.geometry.triangulate import consistent_points
from reliev3r.report.figures import curve_svgs
from reliev3r.report.pictures import WORST_ANGLE_DEG, TrackLayer, badness_colour, view_pictures
from reliev3r.runs.view.glb import draw_glb
from reliev3r.runs.view.points import LAYERS, PointLayers
from reliev3r.runs.view.ruler import Ruler
from reliev3r.runs.view.shown import Shown

HOST = "127.0.0.1"
MOST_POINTS = 2_000_000
WHOLE = "(the whole scene)"
_GREY = (140, 140, 140)


@dataclass(frozen=True, kw_only=True, eq=False)
class Version:
    """One set of cameras of a scene, ready to be drawn; everything in the upright frame (y up)."""

    reconstruction: Reconstruction
    cameras: np.ndarray
    """world_from_cam [v, 4, 4]."""
    cloud: Cloud
    tracks: TrackLayer | None
    sparse: np.ndarray
    """Points [n, 3] that the cameras triangulate from the tracks."""
    sparse_colours: np.ndarray
    """Green where a track agrees with the cameras, red where it does not."""

    @staticmethod
    def of(shown: Shown, reconstruction: Reconstruction, upright: torch.Tensor) -> Version:
        """What ``reconstruction`` and the tracks of ``shown`` look like in the frame ``upright`` (from world)."""
        world_from_cam = reconstruction.prediction.world_from_cam.double()
        tracks, heldout = (
            None if each is None else straightened_tracks(each, reconstruction)
            for each in (shown.tracks, shown.heldout)
        )
        layer = TrackLayer.of(reconstruction, tracks, heldout)
        sparse, colours = np.zeros((0, 3)), np.zeros((0, 3), np.uint8)
        if layer is not None:
            limit = math.radians(WORST_ANGLE_DEG)
            points, kept = consistent_points(
                layer.tracks, reconstruction.K_original, world_from_cam, max_angle=limit, min_parallax=limit / 4
            )
            used = kept.any(0)
            residual = torch.where(kept, layer.residual_deg, 0.0).sum(0) / kept.sum(0).clamp_min(1)
            sparse = transform(upright, points[used]).numpy()
            badness = (residual[used] / WORST_ANGLE_DEG).clamp(0, 1).tolist()
            colours = np.array([badness_colour(bad) for bad in badness], np.uint8).reshape(-1, 3)
        return Version(
            reconstruction=reconstruction, cameras=(upright @ world_from_cam).numpy(), tracks=layer, sparse=sparse,
            sparse_colours=colours, cloud=Cloud.of(reconstruction, upright, MOST_POINTS, shown.known),
        )  # fmt: skip

    @cached_property
    def place(self) -> WholeScene:
        """From where one sees all of it."""
        centres = self.cameras[:, :3, 3]
        seen = next((points for points in (self.cloud.points, self.sparse) if len(points)), centres)
        return whole_scene(centres, seen)


class Viewer:
    """A server with one scene at a time; ``show`` replaces it and keeps what the sliders say.

    Text of files (names of images) goes into labels and lists alone, never into Markdown or HTML.
    """

    def __init__(self, port: int) -> None:
        """Start to serve; another free port where this one is taken.

        Raises:
            UserError: viser is not installed.
        """
        try:
            import viser
        except ImportError as error:
            raise UserError("`reliev3r view` needs the package viser; run `pip install 'reliev3r[view]'`, or open the "
                            "run's view.html, which needs nothing") from error  # fmt: skip
        self._server = viser.ViserServer(host=HOST, port=port, label="reliev3r", verbose=False)
        # No button that would hand the scene to somebody else's machine, no background that would be fetched.
        self._server.gui.configure_theme(
            control_layout="collapsible", control_width="large", dark_mode=True, show_logo=False,
            show_share_button=False,
        )  # fmt: skip
        self._server.scene.configure_environment_map(None)
        self._server.scene.set_up_direction("+y")
        self._lock = threading.RLock()
        self._kept: dict[str, Any] = {}
        self._page: _Page | None = None

        @self._server.on_client_connect
        def _(client: Any) -> None:
            client.camera.on_update(lambda _camera: self._page.moved() if self._page is not None else None)

    @property
    def address(self) -> str:
        """What to open in a browser."""
        return f"http://{HOST}:{self._server.get_port()}"

    def close(self) -> None:
        """End the server."""
        self._server.stop()

    def show(self, shown: Shown, *, metrics: Sequence[dict[str, Any]] = (), status: str = "") -> None:
        """Put a scene on the page, in place of the one before.

        Args:
            shown: what there is to see.
            metrics: rows of ``metrics.jsonl``, drawn as curves.
            status: a line about them.
        """
        with self._lock:
            if self._page is not None:
                self._page.close()
            self._page = None
            self._server.scene.reset()
            self._server.gui.reset()
            self._server.scene.set_up_direction("+y")
            self._server.gui.set_panel_label(shown.title)
            if status:
                self._server.gui.add_text("Run", status, disabled=True)
            if shown.glb is not None:
                _look_at(self._server, shown.glb.place)
                draw_glb(self._server, shown.glb)
            elif shown.versions:
                self._page = _Page(self._server, shown, self._kept, self._lock)
                self._page.build()
            for title, svg in curve_svgs(metrics):
                with self._server.gui.add_folder(title):
                    self._server.gui.add_html(f"<div style='color: #8a94a6'>{svg}</div>")


class _Page:
    """The controls of one scene and what they do."""

    def __init__(self, server: Any, shown: Shown, kept: dict[str, Any], lock: Any) -> None:
        self._server, self._shown, self._kept, self._lock = server, shown, kept, lock
        first = next(iter(shown.versions.values()))
        upright = upright_from_world(first.prediction.world_from_cam)
        self._versions = {name: Version.of(shown, each, upright) for name, each in shown.versions.items()}
        self._names = first.names
        self._colours = view_colours(len(self._names))
        self._layers: PointLayers | None = None
        self._sparse: Any = None
        self._frusta: list[Any] = []
        self._pictures: list[Any] = []

    @property
    def _version(self) -> Version:
        return self._versions[self._which.value]

    def build(self) -> None:
        gui = self._server.gui
        _look_at(self._server, next(iter(self._versions.values())).place)
        names = list(self._versions)
        self._which = self._keeping("which", gui.add_dropdown, "Cameras", names, initial_value=names[0])
        self._which.visible = len(names) > 1
        self._hidden = self._keeping(
            "hidden", gui.add_slider, "Hide the least sure %", min=0, max=95, step=5, initial_value=20
        )
        self._size = self._keeping("size", gui.add_slider, "Point size", min=-3, max=3, step=0.1, initial_value=0)
        self._camera_size = self._keeping(
            "camera size", gui.add_slider, "Camera size", min=-3, max=3, step=0.1, initial_value=0
        )
        self._points_on = self._keeping("points", gui.add_checkbox, "Points", initial_value=True)
        self._tracks_on = self._keeping("tracks", gui.add_checkbox, "Points of the tracks", initial_value=False)
        self._cameras_on = self._keeping("cameras", gui.add_checkbox, "Cameras", initial_value=True)
        self._images_on = self._keeping("images", gui.add_checkbox, "Images on them", initial_value=True)
        self._others_on = self._keeping("others", gui.add_checkbox, "The other cameras in grey", initial_value=True)
        self._others_on.visible = len(names) > 1
        self._tracks_on.visible = self._shown.tracks is not None
        self._view = gui.add_dropdown("View", [WHOLE, *self._names], initial_value=WHOLE)
        self._which.on_update(self._locked(self._draw_all))
        self._hidden.on_update(self._locked(self._refresh))
        self._size.on_update(self._locked(self._refresh))
        self._points_on.on_update(self._locked(self._refresh))
        self._tracks_on.on_update(self._locked(self._refresh))
        for handle in (self._camera_size, self._cameras_on, self._images_on, self._others_on):
            handle.on_update(self._locked(self._draw_cameras))
        self._view.on_update(self._stand)
        Ruler(self._server, self._points)
        self._draw_all()

    def moved(self) -> None:
        """Somebody's camera has moved."""
        if self._layers is not None:
            self._layers.moved()

    def close(self) -> None:
        """Another scene comes in its place."""
        if self._layers is not None:
            self._layers.remove()

    def _points(self) -> np.ndarray:
        """Those that are shown."""
        shown = [self._version.sparse] if self._tracks_on.value else []
        if self._points_on.value and len(self._version.cloud.points):
            parts = np.array_split(self._version.cloud.points, LAYERS)
            shown += parts[: self._layers_shown]
        return np.concatenate(shown) if shown else np.zeros((0, 3))

    @property
    def _layers_shown(self) -> int:
        return round(LAYERS * (1 - self._hidden.value / 100)) if self._points_on.value else 0

    def _keeping(self, key: str, add: Callable[..., Any], *words: Any, initial_value: Any, **more: Any) -> Any:
        """A control that begins with what it was told on the page before."""
        value = self._kept.get(key, initial_value)
        if words[1:] and value not in words[1]:  # a list that has it no more
            value = initial_value
        handle = add(*words, initial_value=value, **more)
        handle.on_update(lambda _event: self._kept.update({key: handle.value}))
        return handle

    def _locked(self, act: Callable[[], None]) -> Callable[[Any], None]:
        def acted(_event: Any) -> None:
            with self._lock:
                act()

        return acted

    def _draw_all(self) -> None:
        version, scene = self._version, self._server.scene
        if self._layers is not None:
            self._layers.remove()
        self._layers = PointLayers(scene, version.cloud, self._lock)
        self._sparse = scene.add_point_cloud(
            "/tracks", version.sparse.astype(np.float32), version.sparse_colours, point_shape="circle",
            point_size=0.004 * version.place.extent, precision="float32", visible=False,
        )  # fmt: skip
        self._draw_cameras()
        self._refresh()
        self._draw_pictures()

    def _refresh(self) -> None:
        assert self._layers is not None
        self._layers.show(self._layers_shown, 2**self._size.value)
        self._sparse.visible = bool(self._tracks_on.value)

    def _draw_cameras(self) -> None:
        for old in self._frusta:
            old.remove()
        self._frusta = []
        if not self._cameras_on.value:
            return
        version = self._version
        size = frustum_size(version.cameras[:, :3, 3], version.cloud.points if len(version.cloud.points) else
                            np.concatenate([version.sparse, version.cameras[:, :3, 3]]))  # fmt: skip
        size *= 2**self._camera_size.value
        stands = self._view.value != WHOLE  # images of cameras would hide what is to be seen from one of them
        for view in (number for number, name in enumerate(self._names) if name != self._view.value):
            image = version.reconstruction.image[view].numpy() if self._images_on.value and not stands else None
            frustum = self._frustum(f"/cameras/{view}", version, view, size, tuple(self._colours[view].tolist()), image)
            frustum.on_click(lambda _event, view=view: self._choose(view))
        if self._others_on.value:
            for other in (each for each in self._versions.values() if each is not version):
                for view in range(len(self._names)):
                    self._frustum(f"/others/{view}", other, view, size, _GREY, None)

    def _frustum(
        self, name: str, version: Version, view: int, size: float, colour: tuple[int, ...], image: np.ndarray | None
    ) -> Any:
        fov, aspect = _opening(version.reconstruction, view)
        frustum = self._server.scene.add_camera_frustum(
            name, fov=fov, aspect=aspect, scale=size, color=colour, image=image, thickness=2.0,
            thickness_units="screen", wxyz=_quaternion(version.cameras[view, :3, :3]),
            position=version.cameras[view, :3, 3],
        )  # fmt: skip
        self._frusta.append(frustum)
        return frustum

    def _choose(self, view: int) -> None:
        self._view.value = self._names[view]  # and _stand hears of it

    def _stand(self, _event: Any) -> None:
        """Move everybody who looks to the chosen view (or back), and show what belongs to it."""
        with self._lock:
            version = self._version
            self._draw_cameras()
            self._draw_pictures()
            for client in self._server.get_clients().values():
                with client.atomic():
                    if self._view.value == WHOLE:
                        client.camera.position, client.camera.look_at = version.place.start, version.place.target
                        client.camera.up_direction, client.camera.fov = (0.0, 1.0, 0.0), math.radians(50)
                        continue
                    view = self._names.index(self._view.value)
                    pose = version.cameras[view]
                    depth = float(version.reconstruction.prediction.depth[view].median())
                    client.camera.position = pose[:3, 3]
                    client.camera.look_at = pose[:3, 3] + depth * pose[:3, 2]
                    client.camera.up_direction = -pose[:3, 1]
                    client.camera.fov = _opening(version.reconstruction, view)[0]

    def _draw_pictures(self) -> None:
        for old in self._pictures:
            old.remove()
        self._pictures = []
        if self._view.value == WHOLE:
            return
        version, view = self._version, self._names.index(self._view.value)
        photograph = self._shown.photograph
        pictures = view_pictures(
            version.reconstruction, view, label_depth=self._shown.label_depth, layer=version.tracks,
            photograph=None if photograph is None else lambda view: photograph(version.reconstruction, view),
        )  # fmt: skip
        tracks = ", tracks (green: they agree)" if version.tracks is not None else ""
        titles = {f"Image{tracks}": pictures.image, "Pseudo depth": pictures.pseudo_depth, "Depth": pictures.depth,
                  "Confidence": pictures.confidence}  # fmt: skip
        self._pictures = [
            self._server.gui.add_image(picture, label=title) for title, picture in titles.items() if picture is not None
        ]


def _look_at(server: Any, place: WholeScene) -> None:
    """Begin there: clients that come, and those that are here."""
    server.initial_camera.position, server.initial_camera.look_at = place.start, place.target
    server.initial_camera.fov = math.radians(50)
    server.initial_camera.near, server.initial_camera.far = place.extent / 1000, place.extent * 100


def _opening(reconstruction: Reconstruction, view: int) -> tuple[float, float]:
    """(vertical field of view in radians, width / height) of a view's maps."""
    height, width = reconstruction.prediction.depth.shape[-2:]
    K = reconstruction.prediction.K[view]
    up, right = height / float(K[1, 1]), width / float(K[0, 0])
    return 2 * math.atan(up / 2), right / up


def _quaternion(rotation: np.ndarray) -> np.ndarray:
    """wxyz of a rotation matrix."""
    from scipy.spatial.transform import Rotation

    x, y, z, w = Rotation.from_matrix(rotation).as_quat()
    return np.array([w, x, y, z])
