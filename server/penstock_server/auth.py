"""Who may speak: CURVE on every socket, keys made per study, and a ZAP allow-list."""

from __future__ import annotations

from dataclasses import dataclass

import zmq
from zmq.auth.thread import ThreadAuthenticator


@dataclass(frozen=True)
class StudyKeys:
    """The key pairs of a study, Z85, 40 characters each. The client pair is what connect.json hands to workers."""

    server_public: str
    server_secret: str
    client_public: str
    client_secret: str

    @classmethod
    def make(cls) -> StudyKeys:
        """New keys from the system's random source."""
        pairs = [key.decode() for _ in range(2) for key in zmq.curve_keypair()]
        return cls(*pairs)

    def __repr__(self) -> str:
        return f"StudyKeys(server_public={self.server_public!r}, ...)"


class _AllowList:
    """Credentials callback of the authenticator: only listed client keys (Z85) pass."""

    def __init__(self, keys: set[bytes]) -> None:
        self._keys = keys

    def callback(self, domain: str, key: bytes) -> bool:  # noqa: ARG002 - one domain
        return key in self._keys


def secure_context(keys: StudyKeys) -> tuple[zmq.Context[zmq.Socket[bytes]], ThreadAuthenticator]:
    """A context whose CURVE sockets admit only the study's clients; stop the authenticator before the context ends."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    authenticator = ThreadAuthenticator(context)
    authenticator.start()
    authenticator.configure_curve_callback("*", _AllowList({keys.client_public.encode()}))
    return context, authenticator
