/* One encrypted DEALER connection to one socket of the server. */
#ifndef PENSTOCK_LINK_H
#define PENSTOCK_LINK_H

#include <zmq.h>

#include "penstock_connect_file.h"
#include "penstock_wire.h"

typedef struct {
    void *socket;
    void *monitor;      /* socket on which libzmq reports events of this connection */
    const char *peer;   /* for error messages: "the coordinator" or "a trainer rank" */
    char endpoint[256];
    bool secured;       /* the encrypted handshake has succeeded at least once */
    bool rejected;      /* the server rejected our keys */
    bool cut;           /* the connection broke after the handshake */
    bool unreadable;    /* something answers at the address, but the handshake fails */
    bool has_waker;     /* bytes on `waker` end a wait for messages */
    int waker;          /* descriptor */
} pnsk_link;

typedef struct {
    pnsk_header header;
    zmq_msg_t payload; /* empty if the message had none */
} pnsk_message;

/* Calls of libzmq, repeated while a signal interrupts them: a profiler or a timer of the solver may send many. */
int pnsk_send(void *socket, const void *data, size_t size, int flags);
int pnsk_msg_send(zmq_msg_t *message, void *socket, int flags);
int pnsk_msg_receive(zmq_msg_t *message, void *socket, int flags);
int pnsk_socket_connect(void *socket, const char *endpoint);

/* Milliseconds on a monotonic clock. */
int64_t pnsk_now_ms(void);

penstock_status pnsk_link_open(pnsk_link *link, void *context, const pnsk_connect_file *server, const char *endpoint,
                               const char *peer, bool control, pnsk_error *error);

/* Send one message: the header, and the payload unless it is NULL. Never blocks. */
penstock_status pnsk_link_send(pnsk_link *link, const pnsk_header *header, const pnsk_buffer *payload,
                               pnsk_error *error);

/* Send a multipart message; the parts are consumed even on failure. */
penstock_status pnsk_link_send_parts(pnsk_link *link, zmq_msg_t *parts, size_t count, pnsk_error *error);

/* Wait up to timeout_ms for a message. Sets *got if there is one; the caller then closes its payload. */
penstock_status pnsk_link_receive(pnsk_link *link, int timeout_ms, bool *got, pnsk_message *message, pnsk_error *error);

void pnsk_link_close(pnsk_link *link, int linger_ms);

/* Set the error text from a REFUSE message, and *reason unless `reason` is NULL. Closes the message's payload. */
penstock_status pnsk_refused(pnsk_message *message, uint32_t *reason, pnsk_error *error);

/* Whether the connection has broken since the last call; libzmq reconnects by itself. */
bool pnsk_link_was_cut(pnsk_link *link);

#endif
