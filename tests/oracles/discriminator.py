"""HMR's discriminator for one sample, layer by layer and joint by joint in float64 NumPy."""

import numpy as np


def relu(x):
    return np.maximum(x, 0)


def realness(state, rotations, betas):
    """Return the outputs (J + 2,) of a discriminator with this state_dict for (J, 3, 3) and (S,)."""
    w = {name: value.double().numpy() for name, value in state.items()}

    def layer(name, x):
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    features, outputs = [], []
    for joint, rotation in enumerate(rotations):
        numbers = np.array([rotation[row][column] for row in range(3) for column in range(3)])
        feature = relu(layer("embedding.2", relu(layer("embedding.0", numbers))))
        features.append(feature)
        outputs.append(w["joint_weight"][joint] @ feature + w["joint_bias"][joint])
    hidden = relu(layer("all_joints.2", relu(layer("all_joints.0", np.concatenate(features)))))
    outputs.append(layer("all_joints.4", hidden)[0])
    hidden = relu(layer("shape.2", relu(layer("shape.0", betas))))
    outputs.append(layer("shape.4", hidden)[0])
    return np.array(outputs)
