"""How much of an image can be known at all? Every pixel of MNIST predicted from its neighbours, which are told exactly.

    python benchmarks/grey_values.py --data-root data [--minutes 10] [--radius 4]

Two networks of dense layers see the levels of the other pixels in a square around each, and how often each level
occurs in the image (digits were scaled from black and white ones, so an image's grey values recur):

    before    pixels above and to the left: a model of the image, whose bits per dimension are a bound on its entropy
    around    all others, more than a denoiser is ever told of a pixel. The entropies of pixels given all others
              add up to at most the entropy of the image (Han 1978), H(x) >= sum_i H(x_i | rest): where this network
              has learned what there is to learn, its bits are a floor under every model

Columns: bits per dimension of 2,000 test images, and what grey (1..249), white (250..255) and black pixels have of
them; then bits of one grey pixel, of which log2(249) = 7.96 would be no knowledge. The last line is JSON.
"""

import argparse
import json
import math
import time

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffenc_ct.data import load_dataset

LEVELS, SIDE, WHITE, TESTS, BATCH, RATE = 256, 28, 250, 2000, 512, 2e-3


class Neighbours:
    """The other pixels around each, of images padded with black."""

    def __init__(self, images: Tensor, radius: int, kind: str) -> None:
        side = 2 * radius + 1
        seen = torch.ones(side, side, dtype=torch.bool)
        seen[radius, radius] = False
        if kind == "before":
            seen[radius, radius:] = False
            seen[radius + 1 :] = False
        self.places, self.kind = seen.nonzero(), kind
        self.images, self.padded = images, F.pad(images, (radius,) * 4)
        ink = F.pad((images > 0).float(), (radius,) * 4)[:, None]
        # Pixels that see black alone, nearly all of them black, are told by one histogram.
        self.inked = F.conv2d(ink, seen.float()[None, None])[:, 0] > 0

    def of(self, i: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Levels (pixels, places) of the neighbours of pixels (y, x) of images i."""
        rows, columns = y[:, None] + self.places[:, 0], x[:, None] + self.places[:, 1]
        return self.padded[i[:, None], rows, columns].long()

    def counts(self, i: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """How often each level but black (pixels, 255) occurs in the whole image, among the pixels that are seen."""
        place, places = SIDE * y + x, torch.arange(SIDE**2)
        seen = places < place[:, None] if self.kind == "before" else places != place[:, None]
        levels = self.images[i].flatten(1).long()
        return torch.zeros(len(i), LEVELS).scatter_add_(1, levels, seen.float())[:, 1:]


class Predictor(nn.Module):
    """Logits of a pixel's level from its neighbours' levels, embedded, its place, and the levels of its image.

    A level that occurs c times elsewhere gains trust * log(1 + rate * c): none before training.
    """

    def __init__(self, places: int, width: int = 512) -> None:
        super().__init__()
        self.level, self.row, self.column = (
            nn.Embedding(LEVELS, 16), nn.Embedding(SIDE, 28), nn.Embedding(SIDE, 28),
        )  # fmt: skip
        self.first = nn.Linear(16 * places + 58, width)
        self.blocks = nn.ModuleList(nn.Linear(width, width) for _ in range(2))
        self.last, self.trust = nn.Linear(width, LEVELS), nn.Linear(width, 1)
        self.rate = nn.Parameter(torch.zeros(LEVELS - 1))
        nn.init.zeros_(self.trust.weight)
        nn.init.zeros_(self.trust.bias)

    def forward(self, neighbours: Tensor, y: Tensor, x: Tensor, counts: Tensor) -> Tensor:
        grey = counts[:, : WHITE - 1]
        pairs, others = (grey * (grey - 1)).sum(1, True), grey.sum(1, True)
        recurring = torch.cat([others / 100, (1 + pairs).log() - 2 * (1 + others).log()], 1)
        h = [self.level(neighbours).flatten(1), self.row(y), self.column(x), recurring]
        h = F.silu(self.first(torch.cat(h, 1)))
        for block in self.blocks:
            h = h + F.silu(block(h))
        gain = self.trust(h) * (1 + self.rate.exp() * counts).log()
        logits: Tensor = self.last(h) + F.pad(gain, (1, 0))
        return logits


def fitted(train: Neighbours, minutes: float) -> Predictor:
    """Trained on random pixels that see ink, for that long, with a cosine over time."""
    net, seconds = Predictor(len(train.places)), 60 * minutes
    optimizer = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=0.01)
    pixels, begin = train.inked.nonzero(), time.perf_counter()
    while (share := (time.perf_counter() - begin) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = RATE * 0.5 * (1 + math.cos(math.pi * share))
        i, y, x = pixels[torch.randint(len(pixels), (BATCH,))].T
        logits = net(train.of(i, y, x), y, x, train.counts(i, y, x))
        loss = F.cross_entropy(logits, train.images[i, y, x].long())
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return net


@torch.no_grad()
def bits(net: Predictor, train: Neighbours, test: Neighbours) -> dict[str, float]:
    """Bits per dimension of test images, and where they are."""
    unseen = torch.bincount(train.images[~train.inked].long(), minlength=LEVELS) + 1e-3
    alone = -(unseen / unseen.sum()).log2()
    spent = alone[test.images.long()].double()
    for part in test.inked.nonzero().split(4096):
        i, y, x = part.T
        logits = net(test.of(i, y, x), y, x, test.counts(i, y, x))
        told = F.cross_entropy(logits, test.images[i, y, x].long(), reduction="none")
        spent[i, y, x] = told.double() / math.log(2)
    grey = (test.images > 0) & (test.images < WHITE)
    parts = {"grey": grey, "white": test.images >= WHITE, "black": test.images == 0}
    found = {name: (spent[where].sum() / spent.numel()).item() for name, where in parts.items()}
    return {"total": spent.mean().item(), **found, "each_grey": spent[grey].mean().item()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data-root")
    parser.add_argument("--minutes", type=float, default=10, help="of training, each (10)")
    parser.add_argument("--radius", type=int, default=4, help="pixels to each side (4)")
    parser.add_argument("--threads", type=int, default=1)
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    data = load_dataset("mnist", root=settings.data_root)
    result = {}
    print(f"{'':<8}{'total':>9}{'grey':>9}{'white':>9}{'black':>9}{'each grey':>11}")
    for kind in ("before", "around"):
        train, test = (
            Neighbours(part[:, 0], settings.radius, kind)
            for part in (data.train[:], data.test[:TESTS])
        )
        found = result[kind] = bits(fitted(train, settings.minutes), train, test)
        print(
            f"{kind:<8}"
            + "".join(f"{v:>{11 if k == 'each_grey' else 9}.4f}" for k, v in found.items())
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
