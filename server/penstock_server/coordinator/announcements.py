"""The agreement on the study's fields, and the clients that wait for the trainer ranks to be ready for them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from penstock_client.payloads import Accept, Announce
from penstock_client.wire import Header
from penstock_server.study import Schema, Study, agree
from penstock_server.telemetry import EventLog


class Announcements:
    """Checks what clients announce, and keeps the answers back until the trainer ranks are ready.

    Args:
        study: its [fields], [samples], [parameters] and [server].
        parameters: names of a simulation's parameters, as clients are told them.
        events: gets the schema once it is known.
        on_schema: see `Coordinator`.
        schema: what a checkpoint has agreed on; None: to be agreed on with the first client.
    """

    def __init__(
        self,
        study: Study,
        parameters: tuple[str, ...],
        events: EventLog,
        on_schema: Callable[[Schema], bool],
        schema: Schema | None,
    ) -> None:
        self._study = study
        self._parameters = parameters
        self._events = events
        self._on_schema = on_schema
        self._schema = schema
        self._ready = schema is not None
        self._waiting: dict[bytes, tuple[Header, Accept]] = {}  # by client id
        self._static_arrived: set[str] = set()

    def add(self, client_id: bytes, header: Header, announce: Announce) -> None:
        """Check an announcement; its answer is among those of `take_answers` once the trainer ranks are ready.

        Args:
            client_id: whose announcement it is. A later one of the same client replaces it.
            header: of ANNOUNCE.
            announce: its payload.

        Raises:
            Refused: the fields are not those of the study, or not those that the first client announced.
        """
        study = self._study
        schema = agree(
            announce.fields,
            study.fields,
            self._parameters,
            study.samples,
            self._schema,
            seeds=len(study.parameters.seeds),
            max_message=study.server.max_message,
        )
        if self._schema is None:
            self._events.write("schema", fields={f.name: [*f.shape, f.components] for f in schema.spec.fields})
            self._schema = schema
            self._ready = self._on_schema(schema)
        ids = tuple(schema.ids[f.name] for f in announce.fields)
        wanted = tuple(f.name not in self._static_arrived for f in announce.fields)
        self._waiting[client_id] = header, Accept(ids, wanted)

    def set_ready(self) -> None:
        """Note that the trainer ranks are ready for the fields."""
        self._ready = True

    def take_answers(self, admitted: Callable[[int], bool]) -> Iterable[tuple[bytes, Header, Accept]]:
        """Return client id, request and answer of those that may begin now; each is returned once.

        Args:
            admitted: returns whether the trainer ranks take the current attempt of a simulation.
        """
        if not self._ready:
            return []
        ready = {key: waits for key, waits in self._waiting.items() if admitted(waits[0].simulation)}
        for key in ready:
            del self._waiting[key]
        return [(key, header, accept) for key, (header, accept) in ready.items()]

    def add_static(self, name: str) -> None:
        """Note that a static field is complete; clients that announce it later need not send it."""
        self._static_arrived.add(name)

    def state_dict(self) -> list[str]:
        """Return the names of the static fields that are complete, for a checkpoint."""
        return sorted(self._static_arrived)

    def load_state_dict(self, static_arrived: Iterable[str]) -> None:
        """Replace the names of the static fields that are complete."""
        self._static_arrived = set(static_arrived)
