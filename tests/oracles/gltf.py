"""A plain reader of .glb files: enough of glTF 2.0 to pose a skinned mesh, and strict about the container."""

import json
import struct

import numpy as np

COMPONENTS = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}


class Glb:
    def __init__(self, contents: bytes) -> None:
        magic, version, size = struct.unpack_from("<4sII", contents, 0)
        assert (magic, version, size) == (b"glTF", 2, len(contents))
        text_size, text_kind = struct.unpack_from("<I4s", contents, 12)
        binary_size, binary_kind = struct.unpack_from("<I4s", contents, 20 + text_size)
        assert (text_kind, binary_kind) == (b"JSON", b"BIN\0") and text_size % 4 == binary_size % 4 == 0
        self.json = json.loads(contents[20 : 20 + text_size])
        self.binary = contents[28 + text_size :]
        assert len(self.binary) == binary_size and len(self.json["buffers"]) == 1
        assert self.json["buffers"][0]["byteLength"] in range(binary_size - 3, binary_size + 1)
        self.arrays = [self.array(accessor) for accessor in self.json["accessors"]]

    def array(self, accessor: dict) -> np.ndarray:
        view = self.json["bufferViews"][accessor["bufferView"]]
        kind, width = np.dtype(COMPONENTS[accessor["componentType"]]), WIDTHS[accessor["type"]]
        start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
        end = start + accessor["count"] * width * kind.itemsize
        assert start % 4 == 0 and "byteStride" not in view
        assert end <= view.get("byteOffset", 0) + view["byteLength"] <= len(self.binary)
        values = np.frombuffer(self.binary[start:end], kind).reshape(-1, width)
        for bound, least in (("min", values.min(0)), ("max", values.max(0))):
            assert bound not in accessor or np.array_equal(np.float32(accessor[bound]), np.float32(least))
        return values

    def attribute(self, name: str) -> np.ndarray:
        return self.arrays[self.json["meshes"][0]["primitives"][0]["attributes"][name]]

    def faces(self) -> np.ndarray:
        return self.arrays[self.json["meshes"][0]["primitives"][0]["indices"]].reshape(-1, 3)

    def times(self) -> np.ndarray:
        return self.arrays[self.json["animations"][0]["samplers"][0]["input"]][:, 0]

    def node_matrices(self, frame: int) -> np.ndarray:
        """Return the global matrix of each node at a key frame."""
        nodes = [dict(node) for node in self.json["nodes"]]
        animation = self.json["animations"][0]
        for channel in animation["channels"]:
            output = self.arrays[animation["samplers"][channel["sampler"]]["output"]]
            nodes[channel["target"]["node"]][channel["target"]["path"]] = output[frame]
        matrices = np.full((len(nodes), 4, 4), np.nan)

        def visit(index: int, above: np.ndarray) -> None:
            matrix = np.eye(4)
            matrix[:3, :3] = matrix_of_xyzw(np.array(nodes[index].get("rotation", (0, 0, 0, 1)), dtype=float))
            matrix[:3, 3] = nodes[index].get("translation", (0, 0, 0))
            matrices[index] = above @ matrix
            for child in nodes[index].get("children", ()):
                visit(child, matrices[index])

        for root in self.json["scenes"][self.json["scene"]]["nodes"]:
            visit(root, np.eye(4))
        return matrices

    def vertices(self, frame: int) -> np.ndarray:
        """Return the skinned vertices at a key frame: sum of weight · joint matrix · inverse bind matrix · vertex."""
        skin = self.json["skins"][0]
        matrices = self.node_matrices(frame)
        binds = self.arrays[skin["inverseBindMatrices"]].reshape(-1, 4, 4).transpose(0, 2, 1)
        to_world = [matrices[node] @ bind for node, bind in zip(skin["joints"], binds, strict=True)]
        posed = []
        for point, joints, weights in zip(
            self.attribute("POSITION"), self.attribute("JOINTS_0"), self.attribute("WEIGHTS_0"), strict=True
        ):
            blended = sum(float(weight) * to_world[joint] for joint, weight in zip(joints, weights, strict=True))
            posed.append((blended @ np.append(point, 1.0))[:3])
        return np.array(posed)


def matrix_of_xyzw(q: np.ndarray) -> np.ndarray:
    x, y, z, w = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
