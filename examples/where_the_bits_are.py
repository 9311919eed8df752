"""Where are an image's bits, and at which noise level? And do they tell images of another kind?

Maps of the pretrained digits model: the bound's terms of every pixel, split by depth (a picture is written). Then four
kinds of other images: are they told by their bits, and by how unlike the training images' their spectrum over noise
levels is (Mahalanobis distance of the bits at each)? AUROC: 1/2 is guessing.

    python examples/where_the_bits_are.py --images 200 --mnist data    # with MNIST's crops, if the folder has MNIST
"""

import argparse

import torch

import diffenc_ct as dc
from diffenc_ct.data import load_dataset
from diffenc_ct.report.figures import bit_maps_figure
from diffenc_ct.report.maps import BitMaps, bit_maps


def others(x: torch.Tensor, mnist: str | None) -> dict[str, torch.Tensor]:
    """Images of 17 levels that are no test digits."""
    noise = torch.randint(-2, 3, x.shape, generator=torch.Generator().manual_seed(0))
    found = {
        "inverted": 16 - x,
        "shifted by a pixel": x.roll(1, -1),
        "with noise of +-2 levels": (x.long() + noise).clamp(0, 16),
    }
    if mnist is not None:
        digits = load_dataset("mnist", root=mnist).test[: len(x)].float()
        small = 16 / 255 * torch.nn.functional.avg_pool2d(digits[:, :, 2:26, 2:26], 3)
        found["MNIST's, made as small"] = small.round().long()
    return found


def bits(found: BitMaps) -> torch.Tensor:
    """Bits per dimension of each image."""
    return found.total.flatten(1).mean(1)


def auroc(inside: torch.Tensor, outside: torch.Tensor) -> float:
    """The chance that an image of another kind has the larger score."""
    return (outside[:, None] > inside).double().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=60, help="of each kind")
    parser.add_argument("--mnist", help="folder of downloaded data sets that has MNIST")
    arguments = parser.parse_args()
    data, model = load_dataset("digits"), dc.load("digits-vdm")

    def maps(x: torch.Tensor) -> BitMaps:
        return bit_maps(model, x, bins=8, draws=16)

    test = data.test[: arguments.images]
    known = maps(data.train[: 3 * arguments.images]).by_depth.clamp(min=1e-4).log()
    mean, precision = known.mean(0), torch.linalg.inv(known.T.cov() + 1e-3 * torch.eye(8))

    def unlike(found: BitMaps) -> torch.Tensor:
        off = found.by_depth.clamp(min=1e-4).log() - mean
        return (off @ precision * off).sum(1)

    inside = maps(test)
    bit_maps_figure(maps(test[:6]), test[:6]).savefig("bit-maps.png", dpi=150)
    print(f"{'':<26}{'bits/dim':>9}{'by bits':>9}{'by spectrum':>13}")
    print(f"{'test digits':<26}{bits(inside).mean():>9.3f}      (wrote bit-maps.png)")
    for name, images in others(test, arguments.mnist).items():
        found = maps(images)
        scores = [auroc(score(inside), score(found)) for score in (bits, unlike)]
        print(f"{name:<26}{bits(found).mean():>9.3f}{scores[0]:>9.3f}{scores[1]:>13.3f}")


if __name__ == "__main__":
    main()
