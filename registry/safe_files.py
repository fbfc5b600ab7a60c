"""Files that are written whole and read back as they were written."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from .errors import GauntletError

#: Name under which files hold their checksum.
CHECKSUM = "checksum"


class DamagedError(ValueError):
    """A file is not what was written."""


@contextlib.contextmanager
def reading(path: Path | str, problem: str = "is damaged or of another format ({error})") -> Iterator[None]:
    """Around a reader of files that may hold anything: what damaged bytes make it raise becomes one sentence.

    Of any kind, since no reader documents all of it: a zip's inflater, a header that Python parses, a text decoder.

    Raises:
        GauntletError: The file cannot be read.
    """
    try:
        yield
    except GauntletError:
        raise
    except Exception as error:
        told = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise GauntletError(f"{path} {problem.format(error=told)}.") from None


def write_whole(target: Path, write: Callable[[Path], object]) -> None:
    """Have ``write`` fill a draft, which replaces ``target`` once the disk holds it; its mode follows the umask."""
    draft = target.with_name(f".draft-{secrets.token_hex(6)}")
    try:
        write(draft)
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def checksum(arrays: Iterable[tuple[str, str, tuple[int, ...], Any]]) -> str:
    """Digest of named arrays, each with dtype, shape and contiguous bytes, in the order of their names."""
    result = blake2b(digest_size=16)
    for name, dtype, shape, data in sorted(arrays, key=lambda array: array[0]):
        result.update(repr((name, dtype, tuple(shape))).encode())
        result.update(data)
    return result.hexdigest()


def sealed(facts: Mapping[str, Any]) -> str:
    """JSON text of facts with their checksum."""
    return json.dumps({**facts, CHECKSUM: _of_facts(json.loads(json.dumps(facts)))}, indent=1)


def unsealed(text: str) -> dict[str, Any]:
    """The facts of :func:`sealed`; those of earlier versions have no checksum.

    Raises:
        DamagedError: They are not what was written.
    """
    facts = json.loads(text)
    if not isinstance(facts, dict) or facts.pop(CHECKSUM, None) not in (None, _of_facts(facts)):
        raise DamagedError("its checksum differs")
    return facts


def _of_facts(facts: Any) -> str:
    return blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=16).hexdigest()
