"""A data set that holds a body model, in a module that a freshly started worker can import."""

import torch
from physique.bodymodel import BodyModel, synthetic_model
from torch.utils.data import Dataset


class Bodies(Dataset):
    def __init__(self):
        self.model = BodyModel(synthetic_model(num_vertices=30))

    def __len__(self):
        return 4

    def __getitem__(self, index):
        return self.model(transl=torch.full((3,), float(index))).vertices
