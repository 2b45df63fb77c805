/* One data connection to one trainer rank: credit, coalescing of small pieces, and what the rank answers. */
#ifndef PENSTOCK_STREAM_H
#define PENSTOCK_STREAM_H

#include "penstock_heartbeat.h"

#define PNSK_WAIT_MS 200       /* between two looks at the heartbeat while waiting for the server */
#define PNSK_ASK_MS 4000       /* of waiting, after which the server is asked (again) */
#define PNSK_ASK_MOST_MS 60000 /* a trainer rank, which may have reason to be slow: longer each time, up to this */

typedef struct {
    pnsk_link link;
    const pnsk_welcome *welcome;
    pnsk_heartbeat *beat;
    pnsk_header opened; /* BEGIN of the simulation that is streamed */
    uint64_t pieces;    /* of it, sent and pending */
    uint64_t sent;  /* payload bytes since the connection was made, those pending included */
    uint64_t limit; /* cumulative payload bytes that may be sent; granted by CREDIT */
    zmq_msg_t *pending;
    size_t n_pending, room;
    uint64_t pending_bytes;
    int64_t last_step_ms;
    int64_t blocked_ms; /* spent waiting for credit */
    bool ended;         /* STREAMED has arrived */
    pnsk_streamed streamed;
} pnsk_stream;

penstock_status pnsk_stream_open(pnsk_stream *stream, void *context, const pnsk_connect_file *server,
                                 const pnsk_welcome *welcome, uint32_t trainer_rank, pnsk_heartbeat *beat,
                                 pnsk_error *error);

/* Open a simulation's stream. */
penstock_status pnsk_stream_begin(pnsk_stream *stream, const pnsk_header *header, const pnsk_buffer *begin,
                                  pnsk_error *error);

/* Whether credit lasts for a piece of so many bytes. */
bool pnsk_stream_may_send(const pnsk_stream *stream, uint64_t size);

/* Send one piece, waiting for credit first; the data are copied. */
penstock_status pnsk_stream_send(pnsk_stream *stream, const pnsk_header *header, const void *data, size_t size,
                                 pnsk_error *error);

penstock_status pnsk_stream_flush(pnsk_stream *stream, pnsk_error *error);

/* A time step is complete: flush unless the next one can be expected within the coalescing time; hear refusals. */
penstock_status pnsk_stream_step_sent(pnsk_stream *stream, pnsk_error *error);

/* END, and waiting for STREAMED: the rank has dealt with every piece. Two calls, so that all ranks work at once. */
penstock_status pnsk_stream_request_end(pnsk_stream *stream, pnsk_error *error);
penstock_status pnsk_stream_await_end(pnsk_stream *stream, pnsk_error *error);

/* Drop what is pending and close. */
void pnsk_stream_close(pnsk_stream *stream, int linger_ms);

#endif
