"""What Celery's broker was given: each task's message, to send it once more."""

from __future__ import annotations

import base64
import contextlib
import json
import re
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

import redis

if TYPE_CHECKING:
    from typing_extensions import Self

LOOK_EVERY = 0.3
UNDER_WAY = "unacked"
"""Where Celery's client for Redis keeps what a worker has taken and not acknowledged: until its task is over."""

RUN_ID = re.compile(r'"run_id":\s*"([^"]+)"')


@dataclass(frozen=True)
class Message:
    """A message and the queue that it was in."""

    text: str
    queue: str


class Messages:
    """Remembers the newest message of each DAG run while used as a context."""

    def __init__(self, url: str) -> None:
        self.by_run: dict[str, Message] = {}
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="messages", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)

    def send_again(self, run_id: str) -> bool:
        """Put a DAG run's message into its queue once more; false if none has been seen."""
        message = self.by_run.get(run_id)
        if message is None:
            return False
        with redis.Redis.from_url(self._url) as client:
            client.lpush(message.queue, message.text)
        return True

    def _watch(self) -> None:
        with redis.Redis.from_url(self._url) as client:
            while not self._stop.wait(LOOK_EVERY):
                with contextlib.suppress(redis.RedisError):
                    for kept in client.hvals(UNDER_WAY):
                        self._remember(*json.loads(kept))

    def _remember(self, message: dict[str, str], _exchange: str, queue: str) -> None:
        body = base64.b64decode(message["body"]).decode()
        found = RUN_ID.search(body.replace('\\"', '"'))
        if found is not None:
            self.by_run[found[1]] = Message(json.dumps(message), queue)
