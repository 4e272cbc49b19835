"""The Reliev3R network: pi^3 with a depth head, confidence in (0, 2) and an optional field-of-view head."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from huggingface_hub import PyTorchModelHubMixin
from jaxtyping import Float
from safetensors.torch import save_model
from torch import Tensor, nn
from torch.nn import functional as F

from reliev3r.core.device import Precision
from reliev3r.core.errors import UserError
from reliev3r.core.files import atomic_path
from reliev3r.core.types import Prediction, Views
from reliev3r.geometry.camera import K_from_focal, ray_map
from reliev3r.model.card import model_card, write_card
from reliev3r.model.heads import CameraHead, GuidedPixelHead, HeadDecoder, MatchHead, PixelHead, confidence
from reliev3r.model.matching import MatchBranch
from reliev3r.model.solved import with_solved_cameras
from reliev3r.model.transformer import Block, Encoder, Rope, rope_tables


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Sizes of the network. The defaults that no preset changes are pi^3's."""

    dim: int
    """Width of encoder and decoder."""
    heads: int
    """Attention heads of encoder and decoder."""
    encoder_depth: int
    decoder_depth: int
    """Blocks; even ones attend within a view, odd ones over all views. An even number of at least two."""
    patch_size: int = 14
    encoder_grid: int = 37
    """Patches per side of the image that the learned encoder positions belong to (37 x 14 = 518 pixels)."""
    encoder_registers: int = 4
    decoder_registers: int = 5
    head_dim: int = 1024
    head_heads: int = 16
    head_depth: int = 5
    camera_dim: int = 512
    mlp_ratio: float = 4.0
    layer_scale: float = 0.01
    """Initial LayerScale of the decoder."""
    rope_base: float = 100.0
    shape: Literal["depth", "point"] = "depth"
    """``depth``: one channel, rays from the intrinsics (the paper). ``point``: pi^3's head, which gives rays too."""
    camera_contrast: bool = False
    """Add to each view's pooled camera feature its standardised deviation from the sample's other views. A pose is what
    tells a view from the others, and in a fresh network that is a few per cent of the feature. No parameters; pi^3
    does not have this."""
    guided: bool = False
    """Pixel heads see the image again and draw edges with it; False: pi^3's linear heads. Needs an even patch size."""
    fov: Literal["none", "per_view", "shared"] = "none"
    """Field-of-view head: absent, one focal length per view, or one for all views of a sample (one camera)."""
    match_dim: int = 0
    """Channels of the descriptors of the auxiliary correspondence branch (training only); 0: no such branch."""
    match_layer: int = 1
    """Decoder block whose output it reads; the first one that sees all views by default."""
    cameras: Literal["regressed", "solved"] = "regressed"
    """``regressed``: by a head from pooled tokens, the paper's and pi^3's. ``solved``: from the network's own matches
    and depth, in the forward pass - an extension of ours. It teaches the matches by the tracks and needs no pose."""
    feature_dim: int = 48
    """Channels of the matching branch of solved cameras; a multiple of 8."""
    image_size: int | None = None
    """Long side in pixels of the images that it was trained on: what it is shown unless told otherwise. ``None``: not
    known, so that it must be told."""
    precision: Precision = "auto"
    """Arithmetic that it was trained in, and is used in unless told otherwise."""

    def __post_init__(self) -> None:
        """Sizes that do not fit together are told at once."""
        if self.decoder_depth < 2 or self.decoder_depth % 2:
            raise ValueError(f"decoder_depth must be even and at least 2, got {self.decoder_depth}")
        deepest = max(self.encoder_depth, self.decoder_depth, self.head_depth)
        if self.encoder_depth < 1 or deepest > 256:  # the largest there are have 48; a file can claim any number
            raise ValueError(f"encoder, decoder and heads have 1 to 256 blocks, not {deepest}")
        if not 0 <= self.match_layer < self.decoder_depth:
            raise ValueError(f"match_layer must be in 0 to {self.decoder_depth - 1}, got {self.match_layer}")
        if self.image_size is not None and not 16 <= self.image_size <= 8192:
            raise ValueError(f"image_size must be from 16 to 8192 pixels, got {self.image_size}")
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {self.precision}")
        if self.cameras not in ("regressed", "solved"):
            raise ValueError(f"cameras must be regressed or solved, got {self.cameras}")
        if self.feature_dim < 8 or self.feature_dim % 8:
            raise ValueError(f"feature_dim must be a multiple of 8, got {self.feature_dim}")
        if self.cameras == "solved" and self.match_dim:
            raise ValueError("match_dim is of regressed cameras; solved ones have a matching branch of their own")
        for dim, heads in ((self.dim, self.heads), (self.head_dim, self.head_heads)):
            if dim % heads or (dim // heads) % 4:
                raise ValueError(f"width {dim} over {heads} heads does not give a multiple of 4 (2D RoPE needs it)")


PRESETS: dict[str, NetworkConfig] = {
    "tiny": NetworkConfig(
        dim=128, heads=4, encoder_depth=2, decoder_depth=4, patch_size=12, encoder_grid=8, head_dim=128, head_heads=4,
        head_depth=1, camera_dim=128, layer_scale=0.1, camera_contrast=True, guided=True, cameras="solved",
    ),
    "small": NetworkConfig(
        dim=384, heads=6, encoder_depth=6, decoder_depth=8, head_dim=384, head_heads=6, head_depth=1, camera_dim=384,
        layer_scale=0.1, camera_contrast=True, guided=True, cameras="solved",
    ),
    "base": NetworkConfig(dim=768, heads=12, encoder_depth=12, decoder_depth=24),
    "large": NetworkConfig(dim=1024, heads=16, encoder_depth=24, decoder_depth=36),
}  # fmt: skip
"""``tiny`` trains on a CPU; ``base`` has the paper's size; ``large`` is pi^3's own layout."""


def _stored_config(stored: dict[str, Any]) -> NetworkConfig:
    """Sizes as ``config.json`` has them. Older files also say whether there was a global-point branch.

    Raises:
        UserError: there was one.
    """
    if stored.get("global_points"):
        raise UserError(
            "it has a global-point branch, which is gone: set global_points to false in config.json and delete the "
            "tensors global_head.* of model.safetensors, which were used in training only"
        )
    return NetworkConfig(**{name: value for name, value in stored.items() if name != "global_points"})


class Reliev3R(nn.Module, PyTorchModelHubMixin, library_name="reliev3r", license="apache-2.0"):
    """Views to depth, confidence and cameras in one forward pass, for any number of views in any order.

    ``Reliev3R.from_pretrained(folder_or_id)`` and ``save_pretrained(folder)`` use safetensors and a JSON config;
    :func:`reliev3r.model.load.load_model` reads the checkpoints of other systems too (docs/weights.md).
    """

    image_mean: Tensor
    image_std: Tensor
    views_at_once: int = 8
    """Views whose heads run together where no gradient is asked: less memory, the same result."""

    def __init__(self, config: NetworkConfig | dict[str, Any]) -> None:
        super().__init__()
        if isinstance(config, dict):  # as the hub mixin reads it from config.json
            config = _stored_config(config)
        self.config = config
        self.facts: dict[str, str] = {}
        self.licence = "apache-2.0"  # of random weights; whoever reads others into it says otherwise
        self.encoder = Encoder(
            dim=config.dim, depth=config.encoder_depth, heads=config.heads, patch_size=config.patch_size,
            grid=config.encoder_grid, registers=config.encoder_registers, mlp_ratio=config.mlp_ratio,
        )  # fmt: skip
        self.register_token = nn.Parameter(torch.zeros(1, 1, config.decoder_registers, config.dim))
        nn.init.normal_(self.register_token, std=1e-6)
        self.decoder = nn.ModuleList(
            Block(
                config.dim, config.heads, mlp_ratio=config.mlp_ratio, qk_norm=True, layer_scale=config.layer_scale
            )
            for _ in range(config.decoder_depth)
        )  # fmt: skip

        def head_decoder(out_dim: int) -> HeadDecoder:
            return HeadDecoder(
                2 * config.dim, config.head_dim, out_dim,
                depth=config.head_depth, heads=config.head_heads, mlp_ratio=config.mlp_ratio,
            )  # fmt: skip

        self.depth_decoder = head_decoder(config.head_dim)
        pixel_head = GuidedPixelHead if config.guided else PixelHead
        self.depth_head = pixel_head(config.head_dim, config.patch_size, 1 if config.shape == "depth" else 3)
        self.conf_decoder = head_decoder(config.head_dim)
        self.conf_head = pixel_head(config.head_dim, config.patch_size, 1)
        solves = config.cameras == "solved"
        self.camera_decoder: HeadDecoder | None = None
        self.camera_head: CameraHead | None = None
        if not solves or config.fov != "none":
            self.camera_decoder = head_decoder(config.camera_dim)
            self.camera_head = CameraHead(
                config.camera_dim, poses=not solves, fov=config.fov != "none", contrast=config.camera_contrast
            )
        # Last, so that the other weights of a seed stay the same with and without it.
        self.match_head = MatchHead(config.dim, config.match_dim) if config.match_dim else None
        self.match_branch = MatchBranch(config.feature_dim) if solves else None
        self.register_buffer("image_mean", torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("image_std", torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))

    @property
    def patch_size(self) -> int:
        """Image sizes are multiples of it."""
        return self.config.patch_size

    @property
    def image_size(self) -> int | None:
        """Long side in pixels of the images that it expects."""
        return self.config.image_size

    @property
    def precision(self) -> Precision:
        """Arithmetic that it expects."""
        return self.config.precision

    @property
    def predicts_intrinsics(self) -> bool:
        """Whether it needs no K."""
        return self.config.fov != "none" or self.config.shape == "point"

    def trunk(self) -> nn.ModuleList:
        """The blocks between the encoder and the heads, in order."""
        return self.decoder

    @torch.no_grad()
    def image_features(self, image: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n c fh fw"]:
        """What the matching branch says of images in [0, 1] of any size, at half their resolution, a few at a time.

        Raises:
            UserError: its cameras are regressed, so that it has no such branch.
        """
        if self.match_branch is None:
            raise UserError("this network has no matching branch: its cameras are regressed")
        height, width = image.shape[-2:]
        image = (image.to(self.image_mean.device) - self.image_mean) / self.image_std
        image = F.pad(image, (0, -width % 8, 0, -height % 8), mode="replicate")
        features = torch.cat([self.match_branch(part) for part in image.split(self.views_at_once)])
        return features[..., : -(-height // 2), : -(-width // 2)]

    def describe(self, *, image_size: int, precision: Precision, facts: Mapping[str, str]) -> None:
        """Say how this network is trained: what is saved from now on tells it (``config.json``, the model card).

        Args:
            image_size: long side in pixels of its images.
            precision: arithmetic.
            facts: data, labels, measurements, as short texts by name.
        """
        self.config = dataclasses.replace(self.config, image_size=image_size, precision=precision)
        self.facts = dict(facts)

    def save_pretrained(self, save_directory: str | Path, *, config: Any = None, **options: Any) -> Any:
        """Write ``config.json``, ``model.safetensors`` and a model card; ``options`` are huggingface_hub's."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        self.write_card(folder)
        return super().save_pretrained(folder, config=config or dataclasses.asdict(self.config), **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        with atomic_path(save_directory / "model.safetensors") as temporary:
            save_model(self, str(temporary))

    def write_card(self, folder: Path) -> None:
        """Write the model card alone, for facts that came after the weights."""
        config, count = self.config, sum(p.numel() for p in self.parameters())
        size = "not recorded" if config.image_size is None else f"{config.image_size} pixels on the long side"
        what = {
            "network": f"Reliev3R, {count / 1e6:.1f} M parameters: encoder {config.encoder_depth} and decoder "
            f"{config.decoder_depth} blocks of width {config.dim}",
            "images": f"{size}, multiples of {config.patch_size} pixels, any number of views",
            "arithmetic": {"auto": "bf16 where it is fast, else float32"}.get(config.precision, config.precision),
            "cameras": "regressed" if config.cameras == "regressed" else "solved from its own matches and depth",
            "intrinsics": "predicted, or given" if self.predicts_intrinsics else "must be given",
        }
        if self.licence == "other":
            what["licence"] = "that of the weights which it began with"
        load = 'import reliev3r as r3\n\nscene = r3.reconstruct("photos/", r3.load_model("THIS FOLDER"))'
        card = model_card(title="A Reliev3R network", licence=self.licence, what=what, load=load, facts=self.facts)
        write_card(folder, card)

    def forward(self, views: Views) -> Prediction:
        """Predict depth, rays, confidence and world_from_cam, all float32, shapes as :class:`Prediction` says.

        Any leading batch dimensions, any number of views; height and width must be multiples of the patch size. Where
        ``views.K`` is known the rays come from it; otherwise from the point head or from the field-of-view head.

        Raises:
            ValueError: image size is no multiple of the patch, or K is unknown and nothing predicts it.
        """
        prediction = self.without_cameras(views)
        if self.match_branch is None:
            return prediction
        image = self._normalised(views)
        if self.training:  # the features, for their loss
            return dataclasses.replace(
                prediction, features=self.match_branch(image).unflatten(0, prediction.depth.shape[:-2])
            )
        features = torch.cat([self.match_branch(part) for part in image.split(self.views_at_once)])
        with torch.autocast(image.device.type, enabled=False):
            return with_solved_cameras(prediction, features.unflatten(0, prediction.depth.shape[:-2]))

    def without_cameras(self, views: Views) -> Prediction:
        """:meth:`forward`, but for the cameras that are solved: these are the identity (``has_cameras`` False)."""
        batch, (height, width) = views.image.shape[:-3], views.size
        patch = self.config.patch_size
        if height % patch or width % patch:
            raise ValueError(f"image size {height}x{width} is no multiple of the patch size {patch}")
        image = self._normalised(views)
        rows, columns = height // patch, width // patch
        within, across, match_tokens, rope = self._decode(self.encoder(image), batch[-1], rows, columns)
        # The heads see each view on its own, so that few at a time are enough where no gradient is asked.
        at_once = len(image) if torch.is_grad_enabled() else self.views_at_once
        chunks = zip(within.split(at_once), across.split(at_once), image.split(at_once))
        parts = [self._heads(*chunk, rope=rope) for chunk in chunks]
        shape, logit, pooled = parts[0] if len(parts) == 1 else (torch.cat(part) for part in zip(*parts))
        with torch.autocast(views.image.device.type, enabled=False):
            depth = shape[:, -1].clamp(-15, 15).exp()
            world_from_cam, focal = self._cameras(pooled, batch)
            return Prediction(
                depth=depth.unflatten(0, batch), rays=self._rays(views, shape.unflatten(0, batch), focal),
                conf=confidence(logit[:, 0]).unflatten(0, batch), world_from_cam=world_from_cam,
                descriptors=self._descriptors(match_tokens, (*batch, rows, columns)),
                has_cameras=self.match_branch is None,
            )  # fmt: skip

    def _normalised(self, views: Views) -> Float[Tensor, "n 3 h w"]:
        return (views.image.reshape(-1, 3, *views.size) - self.image_mean) / self.image_std

    def _cameras(self, pooled: Tensor, batch: torch.Size) -> tuple[Float[Tensor, "*b v 4 4"], Tensor | None]:
        """(world_from_cam, the identity where it is solved later; focal length in image widths or None)."""
        eye = torch.eye(4, device=pooled.device).expand(*batch, 4, 4)
        if self.camera_head is None:
            return eye, None
        world_from_cam, focal = self.camera_head(pooled, batch[-1])
        world_from_cam = eye if world_from_cam is None else world_from_cam.unflatten(0, batch)
        return world_from_cam, None if focal is None else focal.unflatten(0, batch)

    def _heads(
        self,
        within: Float[Tensor, "n s c"],
        across: Float[Tensor, "n s c"],
        image: Float[Tensor, "n 3 h w"],
        *,
        rope: Rope,
    ) -> tuple[Float[Tensor, "n k h w"], Float[Tensor, "n 1 h w"], Float[Tensor, "n d"]]:
        """(shape channels, confidence logits, camera features) of views, each on its own, from their tokens after
        attention within the view and across all views. Without a camera head there are no camera features (d = 0)."""
        features = torch.cat([within, across], dim=-1)
        registers = self.config.decoder_registers

        def run(decoder: HeadDecoder) -> Tensor:
            return decoder(features, rope)[:, registers:].float()

        tokens = [run(decoder) for decoder in (self.depth_decoder, self.conf_decoder)]
        camera_tokens = None if self.camera_decoder is None else run(self.camera_decoder)
        with torch.autocast(image.device.type, enabled=False):
            pooled = image.new_empty(len(image), 0)
            if self.camera_head is not None and camera_tokens is not None:
                pooled = self.camera_head.pool(camera_tokens)
            return self.depth_head(tokens[0], image), self.conf_head(tokens[1], image), pooled

    def _descriptors(self, tokens: Float[Tensor, "n s c"], shape: tuple[int, ...]) -> Tensor | None:
        """One a patch, as :class:`Prediction` says."""
        if self.match_head is None or not self.training:
            return None
        return self.match_head(tokens[:, self.config.decoder_registers :].float()).reshape(*shape, -1)

    def _decode(
        self, tokens: Float[Tensor, "n t c"], views: int, rows: int, columns: int
    ) -> tuple[Float[Tensor, "n s c"], Float[Tensor, "n s c"], Float[Tensor, "n s c"], Rope]:
        """Alternating attention within each view and across all views of a sample: (output of the last block of the
        one kind; of the other; output of ``match_layer``; the heads' RoPE)."""
        n, _, dim = tokens.shape
        registers = self.config.decoder_registers
        x = torch.cat([self.register_token[0].expand(n, -1, -1).to(tokens.dtype), tokens], dim=1)
        view_rope = rope_tables(
            rows, columns, registers=registers, views=1, head_dim=dim // self.config.heads, base=self.config.rope_base,
            device=x.device,
        )  # fmt: skip
        global_rope = (view_rope[0].repeat(views, 1), view_rope[1].repeat(views, 1))
        within = match_tokens = x
        for index, block in enumerate(self.decoder):
            if index % 2 == 0:
                x = within = block(x, view_rope)
            else:
                x = block(x.reshape(n // views, -1, dim), global_rope).reshape(n, -1, dim)
            match_tokens = x if index == self.config.match_layer else match_tokens
        head_rope = rope_tables(
            rows, columns, registers=registers, views=1, head_dim=self.config.head_dim // self.config.head_heads,
            base=self.config.rope_base, device=x.device,
        )  # fmt: skip
        return within, x, match_tokens, head_rope

    def _rays(
        self, views: Views, shape: Float[Tensor, "*b v c h w"], focal: Float[Tensor, "*b v"] | None
    ) -> Float[Tensor, "*b v h w 3"]:
        """Rays with z = 1 from known K, else from the point head, else from the predicted focal length."""
        height, width = views.size
        if views.K is not None:
            return ray_map(views.K.float(), height, width)
        if self.config.shape == "point":
            xy = shape[..., :2, :, :].movedim(-3, -1)
            return torch.cat([xy, torch.ones_like(xy[..., :1])], dim=-1)
        if focal is None:
            raise ValueError(
                "the intrinsics are unknown and this network predicts none: give K or a field-of-view head"
            )
        if self.config.fov == "shared":
            focal = focal.log().mean(-1, keepdim=True).exp().expand_as(focal)
        return ray_map(K_from_focal(focal * width, height, width), height, width)
