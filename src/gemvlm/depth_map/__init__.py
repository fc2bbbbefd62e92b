"""What a depth value means, and how depth becomes a picture and comes back.

`depth.py` holds the map with its kind, unit, validity and origin; `resampling.py` changes its size without mixing in
what is invalid; `alignment.py` brings a relative map to metric truth; `point_cloud.py` puts pixels where they are in
space; `encoding.py` turns it into what an autoencoder sees; `spectral.py` has the published weights' colours.
"""

from gemvlm.depth_map.alignment import AlignmentError, AlignmentRules, align
from gemvlm.depth_map.depth import DepthKind, DepthMap, Space, from_space, space_values, to_space
from gemvlm.depth_map.encoding import EncodedDepth, Encoding, decode, encode, encoded_space, target_size
from gemvlm.depth_map.point_cloud import PointCloud, point_cloud
from gemvlm.depth_map.resampling import fill, resample
from gemvlm.depth_map.spectral import spectral_picture

__all__ = [
    "AlignmentError",
    "AlignmentRules",
    "DepthKind",
    "DepthMap",
    "EncodedDepth",
    "Encoding",
    "PointCloud",
    "Space",
    "align",
    "decode",
    "encode",
    "encoded_space",
    "fill",
    "from_space",
    "point_cloud",
    "resample",
    "space_values",
    "spectral_picture",
    "target_size",
    "to_space",
]
