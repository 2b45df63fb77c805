"""Who may speak: CURVE on every socket, and a ZAP allow-list that follows keys.json while the server runs."""

from __future__ import annotations

import logging
import threading

import zmq
from zmq.auth.thread import ThreadAuthenticator

from penstock_server.network.keys import KeysError, StudyKeys, load_keys
from penstock_server.telemetry import Metrics

_log = logging.getLogger("penstock.auth")


class AllowList:
    """The workers that may connect, as keys.json has them now. Any thread may call anything.

    metrics: counts who is turned away.
    """

    def __init__(self, keys: StudyKeys, metrics: Metrics) -> None:
        self._path, self._metrics = keys.path, metrics
        self._lock = threading.Lock()
        self._seen: tuple[int, ...] = ()
        self._allowed = keys.allowed()
        self._revoked = keys.revoked()
        self.withdrawn: frozenset[str] = frozenset()
        """Public keys that were let in by this list at some time and are not any more: connections with them may be open still."""
        self.refresh()

    def refresh(self) -> None:
        """Look whether keys.json has changed. One that cannot be used leaves the list as it is, and is told of once."""
        with self._lock:
            try:
                found = self._path.stat()
                seen: tuple[int, ...] = (found.st_mtime_ns, found.st_ino, found.st_size, found.st_mode)
            except OSError:
                seen = (-1,)
            if seen == self._seen:
                return
            self._seen = seen
            try:
                keys = load_keys(self._path)
            except KeysError as error:
                self._metrics.keys_unusable.inc()
                _log.warning("keys.json cannot be used, the workers known so far stay: %s", error)
                return
            allowed = keys.allowed()
            self.withdrawn = (self.withdrawn | self._allowed.keys()) - allowed.keys()
            self._allowed, self._revoked = allowed, keys.revoked()

    def callback(self, domain: str, key: bytes) -> bool:  # noqa: ARG002 - one domain
        """What the authenticator asks at each handshake: whether the holder of this public key (Z85) may come in."""
        self.refresh()
        public = key.decode()
        if public in self._allowed:
            return True
        self._metrics.handshake_refused("revoked_key" if public in self._revoked else "unknown_key")
        return False

    def still_allows(self, message: zmq.Frame) -> bool:
        """Whether a message's sender has not been shut out since its connection was made."""
        # Whoever has a connection was let in by `callback`: only withdrawn keys need to be looked for.
        return not self.withdrawn or message.get("User-Id") not in self.withdrawn


def secure_context(allow: AllowList) -> tuple[zmq.Context[zmq.Socket[bytes]], ThreadAuthenticator]:
    """A context whose CURVE sockets admit only whom the list allows; stop the authenticator before the context ends.

    A message's metadata "User-Id" is its sender's public key (Z85).
    """
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    authenticator = ThreadAuthenticator(context)
    authenticator.start()
    authenticator.configure_curve_callback("*", allow)
    return context, authenticator
