"""Layers of a vision transformer beside Keras' own: class token with positions, attention, GELU.

Source: arXiv:2104.02057, section 5; vits.py of facebookresearch/moco-v3; timm's ViT.
"""

import keras
import numpy as np
import tensorflow as tf

TEMPERATURE = 10_000  # of the frequencies


@keras.saving.register_keras_serializable("moco_tf")
class ClassToken(keras.layers.Layer):
    """Maps of patches, NxHxWxC, to tokens with positions behind a class token, Nx(1+HW)xC."""

    def build(self, input_shape):
        self.cls_token = self.add_weight(
            name="cls_token",
            shape=(1, 1, input_shape[-1]),
            initializer=keras.initializers.RandomNormal(stddev=1e-6),
        )

    def call(self, patches):
        height, width = keras.ops.shape(patches)[1:3]
        channels = patches.shape[-1]
        grid = positions(height, width, channels)
        tokens = patches + tf.cast(grid, patches.dtype)
        tokens = tf.reshape(tokens, [-1, height * width, channels])
        first = tf.tile(tf.cast(self.cls_token, tokens.dtype), [tf.shape(tokens)[0], 1, 1])
        return tf.concat([first, tokens], axis=1)

    def compute_output_shape(self, input_shape):
        batch, height, width, channels = input_shape
        count = None if None in (height, width) else 1 + height * width
        return batch, count, channels


@keras.saving.register_keras_serializable("moco_tf")
class SelfAttention(keras.layers.Layer):
    """Softmax attention: queries, keys and values of tokens, NxLx3C, to NxLxC.

    Args:
        num_heads: heads, which divide the channels.
    """

    def __init__(self, num_heads, **kwargs):
        super().__init__(**kwargs)
        self.num_heads = num_heads

    def call(self, qkv):
        count = tf.shape(qkv)[1]
        width = qkv.shape[-1] // 3
        qkv = tf.reshape(qkv, [-1, count, 3, self.num_heads, width // self.num_heads])
        q, k, v = tf.unstack(qkv, axis=2)
        x = keras.ops.dot_product_attention(q, k, v)
        return tf.reshape(x, [-1, count, width])

    def compute_output_shape(self, input_shape):
        return *input_shape[:-1], input_shape[-1] // 3

    def get_config(self):
        return super().get_config() | {"num_heads": self.num_heads}


@keras.saving.register_keras_serializable("moco_tf")
class GELU(keras.layers.Layer):
    """GELU by the error function; Keras computes it by an op that ONNX lacks, `Erfc`."""

    def call(self, x):
        return 0.5 * x * (1.0 + tf.math.erf(x * 0.5**0.5))

    def compute_output_shape(self, input_shape):
        return input_shape


def positions(height: int | tf.Tensor, width: int | tf.Tensor, channels: int) -> tf.Tensor:
    """Fixed sine-cosine positions of the cells of a grid, float32 HxWxC.

    A quarter of the channels each is the sine and the cosine of the row, then of the column.

    Args:
        height: rows, H.
        width: columns, W.
        channels: C, a multiple of 4.

    Example:

        positions(14, 14, 384)[3, 5]  # of the patch in row 3, column 5
    """
    frequencies = TEMPERATURE ** -(np.arange(channels // 4) / (channels // 4))

    def encode(count):
        angles = tf.range(count, dtype=tf.float32)[:, None] * frequencies.astype(np.float32)
        return tf.concat([tf.sin(angles), tf.cos(angles)], axis=1)

    shape = [height, width, channels // 2]
    rows = tf.broadcast_to(encode(height)[:, None], shape)
    columns = tf.broadcast_to(encode(width)[None], shape)
    return tf.concat([rows, columns], axis=2)
