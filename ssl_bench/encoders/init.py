"""Starting weights, drawn by name and seed."""

from torch import nn

from ssl_bench.counter import generator
from ssl_bench.encoders.spec import Init

FIXED = {"gaussian": 0.01, "dcgan": 0.02}  # deviations that do not depend on the layer


def initialize(module: nn.Module, init: Init, *key: int | str) -> None:
    """Draw the weights of all convolutions and linear layers in `module` anew; biases are 0.

    `gaussian`: N(0, 0.01²), Caffe's filler for AlexNet, the paper's "random Gaussian"; Caffe's also
    sets the biases of conv2, conv4 and conv5 to 1, which published random rows have and this not.
    `fan-in`: N(0, 2 / fan-in), He et al. 2015, eq. 10, which keeps the activations' scale.
    `dcgan`: N(0, 0.02²), and N(1, 0.02²) for the scales of batch normalisation, as in the released
    code of the inpainting network.
    `own`: as `fan-in`. It is for what a pretext builds beside an encoder that keeps what its
    constructor drew, and is not passed through here (see `build_pretext`).
    The numbers depend on `key` and on the layer's name in `module`, on nothing drawn before.
    """
    for name, layer in module.named_modules():
        if init == "dcgan" and isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02, generator=generator(*key, name))
        if not isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            continue
        weight = layer.weight
        inputs = weight[0].numel()  # of one group: torch keeps (out, in / groups, h, w)
        if isinstance(layer, nn.ConvTranspose2d):  # an output sees kernel / stride² inputs
            stride = layer.stride[0] * layer.stride[1]
            inputs = weight.shape[0] // layer.groups * weight[0, 0].numel() // stride
        std = FIXED[init] if init in FIXED else (2 / inputs) ** 0.5
        nn.init.normal_(weight, std=std, generator=generator(*key, name))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
