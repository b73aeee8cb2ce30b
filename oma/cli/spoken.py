"""The words that only a person may say, as options; what does not fit is a usage error, before anything is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from oma.domain.errors import OmaError
from oma.domain.spoken import read_snapshot_pair, read_words
from oma.domain.words import Words

OPTIONS: Final = {
    "end_holders": "--end-holders",
    "end_test": "--end-test",
    "force": "--force",
    "destination_vm_id": "--destination-vm-id",
    "snapshots": "--snapshot",
    "resume": "--resume",
}


def read_options(values: Mapping[str, Any], snapshots: Sequence[str], *, given: Mapping[str, Any]) -> Words:
    """Raises `click.UsageError`. `given`: the other options, which a word may not stand beside."""
    try:
        pairs = [read_snapshot_pair(text) for text in snapshots]
        named = dict(pairs)
        if len(named) < len(pairs):
            raise click.UsageError("--snapshot names a volume twice; name it once.")
        return read_words({**values, "snapshots": named or None}, given)
    except OmaError as error:
        raise click.UsageError(error.sentence) from None


def options_of(words: Words) -> str:
    return " and ".join(OPTIONS[name] for name in words.spoken)
