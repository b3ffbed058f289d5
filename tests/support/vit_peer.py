"""A vision transformer in PyTorch, written from the papers, with the names of MoCo v3's code."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


class Attention(nn.Module):
    def __init__(self, width, num_heads):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        size = x.shape[-1] // self.num_heads
        q, k, v = (part.split(size, -1) for part in self.qkv(x).chunk(3, dim=-1))
        outputs = []
        for i in range(self.num_heads):
            weights = (q[i] @ k[i].transpose(1, 2) / size**0.5).softmax(dim=-1)
            outputs.append(weights @ v[i])
        return self.proj(torch.cat(outputs, dim=-1))


class MLP(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    def __init__(self, width, num_heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, width, patch_px):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_px, patch_px)


class ViT(nn.Module):
    """NCHW images of `grid` patches to the features of the class token, or to those of a head."""

    def __init__(self, width, depth, num_heads, patch_px=16, grid=(14, 14), head=None):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(sine_cosine(*grid, width), requires_grad=False)
        self.patch_embed = PatchEmbed(width, patch_px)
        self.blocks = nn.Sequential(*(Block(width, num_heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        if head:
            self.head = head

    def features(self, x):
        x = self.patch_embed.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        return self.norm(self.blocks(x))[:, 0]

    def forward(self, x):
        x = self.features(x)
        return self.head(x) if hasattr(self, "head") else x


def sine_cosine(height, width, channels):
    """1 x (1 + height * width) x channels: zeros for the class token, then row by row."""
    table = [np.zeros(channels)]
    for row in range(height):
        for column in range(width):
            parts = []
            for place in (row, column):
                angles = [place / 10000 ** (i / (channels / 4)) for i in range(channels // 4)]
                parts += [np.sin(angles), np.cos(angles)]
            table.append(np.concatenate(parts))
    return torch.tensor(np.stack(table)[None], dtype=torch.float32)


def randomized(model, seed=0):
    """The model with all weights random but for its positions: also biases and norms."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name != "pos_embed":
                noise = torch.randn(p.shape, generator=generator)
                p.copy_(noise * 0.3 + (1 if "norm" in name and "weight" in name else 0))
    return model
