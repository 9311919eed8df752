"""Configurations that earlier releases wrote, in the words of this one."""

from typing import Any


def from_version_1(values: dict[str, Any]) -> dict[str, Any]:
    """What a configuration of release 0.1 meant: its "auto" networks were the authors', its networks predicted v.

    Args:
        values: of the file, without its version.
    """
    model, network, encoder = (values.get(name, {}) for name in ("model", "network", "encoder"))
    inner = encoder.get("network", {})
    return values | {
        "model": {"prediction": "v", **model},
        "network": _authors(network),
        "encoder": encoder | {"network": _authors(inner)},
    }


def _authors(network: dict[str, Any]) -> dict[str, Any]:
    return network if network.get("kind", "auto") != "auto" else network | {"kind": "authors"}
