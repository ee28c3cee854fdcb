"""Pictures: uint8 tensors to and from PNG, grids, film strips, animations, folders and .npz.

Convention: a batch of images is uint8 (N, C, H, W), a finished picture uint8 (C, H, W), C = 1
(grey) or 3 (RGB), any size.
"""

from mezzotint.imaging.animations import save_animation
from mezzotint.imaging.folders import folder_names, manifest_classes, save_folder
from mezzotint.imaging.grids import grid, labelled_grid, scale_for, strip
from mezzotint.imaging.npz import (
    ImageArrays,
    Samples,
    load_arrays,
    load_image_arrays,
    load_npz,
    save_npz,
)
from mezzotint.imaging.pixels import (
    check_batch,
    describe_shape,
    from_pillow,
    shown,
    to_float,
    to_pillow,
    to_uint8,
)
from mezzotint.imaging.png import is_whole_png, save_png

__all__ = [
    "ImageArrays",
    "Samples",
    "check_batch",
    "describe_shape",
    "folder_names",
    "from_pillow",
    "grid",
    "is_whole_png",
    "labelled_grid",
    "load_arrays",
    "load_image_arrays",
    "load_npz",
    "manifest_classes",
    "save_animation",
    "save_folder",
    "save_npz",
    "save_png",
    "scale_for",
    "shown",
    "strip",
    "to_float",
    "to_pillow",
    "to_uint8",
]
