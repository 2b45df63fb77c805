/* One DEALER connection to one socket of the server: CURVE, whole messages, and what became of the connection. */
#ifndef PENSTOCK_LINK_H
#define PENSTOCK_LINK_H

#include <zmq.h>

#include "penstock_connect_file.h"
#include "penstock_wire.h"

typedef struct {
    void *socket;
    void *monitor;      /* libzmq's events of this connection */
    const char *peer;   /* "the coordinator", "a trainer rank": for messages */
    char endpoint[256];
    bool secured;       /* the encrypted handshake has succeeded at least once */
    bool rejected;      /* the server turned our keys down */
    bool cut;           /* the connection broke after it had been made */
    bool unreadable;    /* somebody answers there, but the handshake fails */
} pnsk_link;

typedef struct {
    pnsk_header header;
    zmq_msg_t payload; /* empty where the message had none */
} pnsk_message;

/* Milliseconds of a clock that only goes forward. */
int64_t pnsk_now_ms(void);

penstock_status pnsk_link_open(pnsk_link *link, void *context, const pnsk_connect_file *server, const char *endpoint,
                               const char *peer, bool control, pnsk_error *error);

/* Send one message: header, and the payload unless it is NULL. Never blocks. */
penstock_status pnsk_link_send(pnsk_link *link, const pnsk_header *header, const pnsk_buffer *payload,
                               pnsk_error *error);

/* Send a prepared multipart message; the parts are consumed whatever happens. */
penstock_status pnsk_link_send_parts(pnsk_link *link, zmq_msg_t *parts, size_t count, pnsk_error *error);

/* Wait up to timeout_ms for a message; *got says whether there is one in `message` (then close its payload). */
penstock_status pnsk_link_receive(pnsk_link *link, int timeout_ms, bool *got, pnsk_message *message, pnsk_error *error);

void pnsk_link_close(pnsk_link *link, int linger_ms);

/* Put a REFUSE message into words, and its reason into `reason` unless that is NULL. Closes its payload. */
penstock_status pnsk_refused(pnsk_message *message, uint32_t *reason, pnsk_error *error);

/* Whether the connection has broken since this was last asked; libzmq makes it anew by itself. */
bool pnsk_link_was_cut(pnsk_link *link);

#endif
