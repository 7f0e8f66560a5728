"""Two corpora of what tasks return: data that masking must leave alone, and secrets that it must find."""

from __future__ import annotations

import base64
import json
import random
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

CORPORA = Path(__file__).parents[1] / "unit" / "results" / "corpora"
PLACE = re.compile(r"\{(mix|hex|up|word|strong|plain|otp|b32|b64|basic)(\d*)\}")
WORDS = (
    "hunter2x",
    "Sommer2024!",
    "s3cr3t-W4rd",
    "Tr0ub4dor&3",
    "Passw0rd#1",
    "zX9!kLm2",
    "qwerty123",
    "P@ssphrase",
    "gl0w-w0rm+7",
)
STRONG = ("s3cr3t-W4rd", "Tr0ub4dor&3", "zX9!kLm2", "gl0w-w0rm+7")
PLAIN = ("swordfish", "letmein", "opensesame", "dragonfly")


class Case:
    """
    One value of a corpus.

    :param made: Secrets in the place of its ``{word}``, ``{mix24}`` and so on.
    """

    def __init__(self, kind: str, value: Any, stays: list[str], seed: int) -> None:
        self.kind, self.stays = kind, stays
        self.made: list[str] = []
        self._random = random.Random(f"{seed} {json.dumps(value)}")
        self.value = self._filled(value)

    def _filled(self, value: Any) -> Any:
        if isinstance(value, str):
            return PLACE.sub(self._secret, value)
        if isinstance(value, dict):
            return {name: self._filled(item) for name, item in value.items()}
        return [self._filled(item) for item in value] if isinstance(value, list) else value

    def _secret(self, found: re.Match[str]) -> str:
        secret = _MAKERS[found[1]](self._random, int(found[2] or 0))
        self.made.append(secret)
        return secret

    def leaks(self, masked: Any) -> list[str]:
        """Return the secrets that are still there, and what has gone and should have stayed."""
        text = json.dumps(masked, ensure_ascii=False)
        return [secret for secret in self.made if secret in text] + [stay for stay in self.stays if stay not in text]


def data() -> list[Case]:
    """Return what must survive."""
    return [Case(case["kind"], case["value"], [], 0) for case in _read("data")]


def secrets(seed: int) -> list[Case]:
    """Return what must go, with secrets made for the occasion."""
    return [Case(case["kind"], case["value"], case.get("stays", []), seed) for case in _read("secrets")]


def _read(name: str) -> Any:
    return json.loads((CORPORA / f"{name}.json").read_text())


def _mixed(chance: random.Random, length: int) -> str:
    """Make a token of small letters, large ones and digits."""
    while True:
        text = "".join(chance.choices(string.ascii_letters + string.digits, k=length))
        if any(map(str.isdigit, text)) and any(map(str.islower, text)) and any(map(str.isupper, text)):
            return text


def _hex(chance: random.Random, length: int) -> str:
    return "a1" + "".join(chance.choices("0123456789abcdef", k=length - 2))


def _b64(chance: random.Random, _: int) -> str:
    return base64.b64encode(chance.randbytes(64)).decode()


_MAKERS: dict[str, Callable[[random.Random, int], str]] = {
    "mix": _mixed,
    "hex": _hex,
    "up": lambda chance, length: "".join(chance.choices(string.ascii_uppercase + string.digits, k=length)),
    "word": lambda chance, _: chance.choice(WORDS),
    "strong": lambda chance, _: chance.choice(STRONG),
    "plain": lambda chance, _: chance.choice(PLAIN),
    "otp": lambda chance, _: str(chance.randrange(100_000, 1_000_000)),
    "b32": lambda chance, _: "JBSW2" + "".join(chance.choices(string.ascii_uppercase + "234567", k=27)),
    "b64": _b64,
    "basic": lambda chance, _: base64.b64encode(f"jo:{_mixed(chance, 12)}".encode()).decode(),
}
