"""The format of a coded file.

    8 bytes    the name of the format and its version
    4 bytes    length of the header, little-endian
    ...        the header: JSON, deflated
    ...        the message: words of 32 bits, little-endian, from the bottom of the stack
    32 bytes   SHA-256 of all before

The last says whether the file is whole, the header's digests whether this model with these steps wrote it, and that of
the images whether they came back: networks' floats differ between machines and versions of torch, and one that differs
in its last bit makes other images.
"""

import hashlib
import json
import zlib
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from diffenc_ct.coding.stack import WORD, Words
from diffenc_ct.coding.tiles import check_sizes

MAGIC, VERSION = b"DIFFENC", 1
_LENGTH, _DIGEST = 4, 32


@dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
        count: examples.
        shape: of one.
        levels: V.
        depth: T.
        grid: the T + 1 depths, or "uniform".
        noise_level: eta in words.
        ratio: the variance ratio in words.
        step: "gaussian" or "mixture".
        steps: digest of what matters of the four.
        model: fingerprint of the weights.
        images: digest of the examples.
        bits: of the latents' grid.
        batch: most examples at a time.
        seed: of the initial bits.
        initial: how many words of the message are initial ones.
        torch: its version.
        threads: of torch.
        device: "cpu" or "cuda".
        run: what the caller wants to find again.
        sizes: height and width of each image, where the examples are tiles of them (`tiles`); else none.
    """

    count: int
    shape: list[int]
    levels: int
    depth: int
    grid: list[float] | str
    noise_level: str
    ratio: str
    step: str
    steps: str
    model: str
    images: str
    bits: int
    batch: int
    seed: int
    initial: int
    torch: str
    threads: int
    device: str
    run: dict[str, Any] = field(default_factory=dict)
    sizes: list[list[int]] = field(default_factory=list)

    @property
    def dimensions(self) -> int:
        """Values of all examples together; of tiles those that the images have."""
        if self.sizes:
            return self.shape[0] * sum(height * width for height, width in self.sizes)
        return self.count * int(np.prod(self.shape))


@dataclass(frozen=True)
class Coded:
    """A file that was read.

    Attributes:
        header: what it says of itself.
        words: the message.
        size: of the file, in bytes.
    """

    header: Header
    words: Words
    size: int

    @property
    def gross(self) -> float:
        """Bits per dimension of the whole file."""
        return 8 * self.size / self.header.dimensions

    @property
    def initial(self) -> float:
        """Those of them that are the initial bits."""
        return WORD * self.header.initial / self.header.dimensions

    @property
    def net(self) -> float:
        """Bits per dimension of the message without the initial bits: what every further example costs."""
        return WORD * len(self.words) / self.header.dimensions - self.initial


def write(header: Header, words: Words) -> bytes:
    """The file.

    Args:
        header: what it says of itself.
        words: the message.
    """
    head = zlib.compress(json.dumps(asdict(header), separators=(",", ":")).encode(), 9)
    start = MAGIC + bytes([VERSION]) + len(head).to_bytes(_LENGTH, "little")
    body = start + head + words.astype("<u4").tobytes()
    return body + hashlib.sha256(body).digest()


def read(data: bytes) -> Coded:
    """Header and message of a file.

    Args:
        data: the file.
    Raises:
        ValueError: where it is another kind of file, of another version, or damaged, or its tiles do not fit its sizes.
    """
    start = len(MAGIC) + 1
    if data[: len(MAGIC)] != MAGIC:
        raise ValueError(
            f"these {len(data)} bytes are no coded images: they do not begin with {MAGIC.decode()}"
        )
    if len(data) < start + _LENGTH + _DIGEST or _digest(data[:-_DIGEST]) != data[-_DIGEST:]:
        raise ValueError(
            f"these {len(data)} bytes are truncated or damaged: their checksum is not the one they end with"
        )
    if data[len(MAGIC)] != VERSION:
        raise ValueError(
            f"the format's version is {data[len(MAGIC)]}, this diffenc_ct reads version {VERSION}: take the one that "
            "wrote the file"
        )
    length = int.from_bytes(data[start : start + _LENGTH], "little")
    body = start + _LENGTH + length
    try:
        header = Header(**json.loads(zlib.decompress(data[start + _LENGTH : body])))
        words = np.frombuffer(data[body:-_DIGEST], "<u4").astype(np.uint32)
    except (ValueError, TypeError, zlib.error) as error:
        known = ", ".join(each.name for each in fields(Header))
        raise ValueError(f"the file's header is not one of {known} ({error})") from None
    check_sizes(header.sizes, header.shape, header.count)
    return Coded(header, words, len(data))


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
