"""Pictures of a MuJoCo model by MuJoCo's own ray casting, without OpenGL or a display.

Shape letters: H height, W width, R rays (H W, by rows from the top left), G geoms. Distances in
metres.
"""

# pyright: reportAttributeAccessIssue=false
# mujoco's C functions have no type stubs.
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
from jaxtyping import UInt8

HEIGHT, WIDTH = 240, 320
FARTHEST_M = 1e3
SUN = np.array([0.3, -0.5, 0.8]) / np.linalg.norm([0.3, -0.5, 0.8])
SHADE = 0.45
"""Share of the light that is ambient; the rest is the sun's."""
HORIZON_RGB, ZENITH_RGB = np.array([235.0, 240.0, 250.0]), np.array([70.0, 130.0, 200.0])
TILES_RGB = np.array([[60.0, 74.0, 90.0], [92.0, 110.0, 128.0]])
"""Planes are a chequerboard of one metre, which makes motion visible."""
SHOWN_GROUPS = np.array([1, 1, 1, 0, 0, 0], np.uint8)
"""Groups of geoms that MuJoCo's viewer shows by default."""
UNPAINTED = np.array([0.5, 0.5, 0.5, 1.0], np.float32)
"""The colour of a geom without one of its own, which is drawn in its material's."""


class MujocoPainter:
    """Draws one model, from its camera `track`, or if it has none from the free camera that
    `camera` describes.

    painter = MujocoPainter(env.unwrapped.model, {"distance": 3.0})
    picture = painter.paint(env.unwrapped.data)
    """

    def __init__(self, model: mujoco.MjModel, camera: Mapping[str, Any] | None = None) -> None:
        self._model = model
        self._scene = mujoco.MjvScene(model, maxgeom=0)
        self._camera = mujoco.MjvCamera()
        mujoco.mjv_defaultFreeCamera(model, self._camera)
        for name, value in (camera or {}).items():
            setattr(self._camera, name, value)
        followed = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_CAMERA, "track")
        if followed >= 0:
            self._camera.type, self._camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, followed
        painted = (model.geom_rgba != UNPAINTED).any(-1) | (model.geom_matid < 0)
        rgba_G4 = np.where(
            painted[:, None], model.geom_rgba, model.mat_rgba[model.geom_matid] if model.nmat else 0
        )
        self._rgb_G3 = np.asarray(255 * rgba_G4[:, :3], np.float32)
        self._is_plane_G = model.geom_type == mujoco.mjtGeom.mjGEOM_PLANE
        self._x_W1 = np.arange(WIDTH)[:, None] + 0.5 - WIDTH / 2
        self._y_H11 = HEIGHT / 2 - np.arange(HEIGHT)[:, None, None] - 0.5
        self._hit_R = np.empty(HEIGHT * WIDTH, np.int32)
        self._distance_R = np.empty(HEIGHT * WIDTH)
        self._normal_R3 = np.empty((HEIGHT * WIDTH, 3))

    def paint(self, data: mujoco.MjData) -> UInt8[np.ndarray, "H W 3"]:
        """Draw what the camera sees of the present state."""
        # Where the camera is, and the direction of each pixel's ray: on a plane at the focal length
        # in front of it, in pixels.
        mujoco.mjv_updateCamera(self._model, data, self._camera, self._scene)
        eye = self._scene.camera[0]
        forward, up = np.array(eye.forward, float), np.array(eye.up, float)
        focal = 0.5 * HEIGHT * eye.frustum_near / eye.frustum_top
        # Sums, no matrix product: BLAS would wake a thread on every core for it.
        ray_R3 = (
            self._x_W1 * np.cross(forward, up) + (self._y_H11 * up + focal * forward)
        ).reshape(-1, 3)
        ray_R3 /= np.sqrt(np.einsum("ij,ij->i", ray_R3, ray_R3))[:, None]
        # The scene has a left and a right eye: look from between them.
        position = np.mean([camera.pos for camera in self._scene.camera], axis=0)
        mujoco.mj_multiRay(
            self._model,
            data,
            position,
            ray_R3.reshape(-1),
            SHOWN_GROUPS,
            True,
            -1,
            self._hit_R,
            self._distance_R,
            self._normal_R3.reshape(-1),
            len(ray_R3),
            FARTHEST_M,
        )
        # The sky first, a gradient from the horizon up; then the geoms that rays hit.
        rgb_R3 = HORIZON_RGB + (ZENITH_RGB - HORIZON_RGB) * ray_R3[:, 2:].clip(0, 1)
        seen = np.flatnonzero(self._hit_R >= 0)
        geom = self._hit_R[seen]
        surface = self._rgb_G3[geom]
        flat = np.flatnonzero(self._is_plane_G[geom])
        at = position[:2] + ray_R3[seen[flat], :2] * self._distance_R[seen[flat], None]
        surface[flat] = TILES_RGB[np.floor(at).sum(-1).astype(int) % 2]
        # Lambertian shading by the angle between the surface's normal and the sun.
        light = SHADE + (1 - SHADE) * np.einsum("ij,j->i", self._normal_R3[seen], SUN).clip(0)
        rgb_R3[seen] = surface * light[:, None]
        return rgb_R3.astype(np.uint8).reshape(HEIGHT, WIDTH, 3)
