"""Pictures: uint8 tensors to and from PNG, grids, film strips, animations, folders and .npz.

Convention: a batch of images is uint8 (N, C, H, W), a finished picture uint8 (C, H, W), C = 1
(grey) or 3 (RGB), any size.
"""

from mezzotint.imaging.files import (
    Samples,
    folder_names,
    is_whole_png,
    load_arrays,
    load_npz,
    manifest_classes,
    replacing,
    save_animation,
    save_folder,
    save_npz,
    save_png,
)
from mezzotint.imaging.pixels import check_batch, from_pillow, to_float, to_pillow, to_uint8
from mezzotint.imaging.sheets import grid, labelled_grid, scale_for, strip

__all__ = [
    "check_batch",
    "Samples",
    "folder_names",
    "manifest_classes",
    "from_pillow",
    "grid",
    "is_whole_png",
    "labelled_grid",
    "load_arrays",
    "load_npz",
    "replacing",
    "save_animation",
    "save_folder",
    "save_npz",
    "save_png",
    "scale_for",
    "strip",
    "to_float",
    "to_pillow",
    "to_uint8",
]
