/* One data connection to one trainer rank: credit, coalescing of small pieces, the rank's answers. */
#ifndef PENSTOCK_STREAM_H
#define PENSTOCK_STREAM_H

#include "penstock_heartbeat.h"
#include "penstock_memory.h"

#define PNSK_HELD_STEPS 8      /* time steps of which pieces are held back at most where solver ranks share time steps */
#define PNSK_WAIT_MS 200       /* between two checks of the heartbeat while waiting for the server */
#define PNSK_ASK_MS 4000       /* without an answer, after which a question is repeated */
#define PNSK_ASK_MOST_MS 60000 /* longest such wait for a trainer rank, which doubles with each repetition */

/* Whole time steps that wait to be sent in one message. */
typedef struct {
    uint8_t *bytes; /* the rows, one behind the other; NULL: none */
    double *times;  /* of each */
    bool shared;    /* they lie in the shared memory, from `place` on */
    uint64_t place, row_bytes;
    size_t room, number;     /* rows that fit; rows that are there */
    bool open;               /* another row is being written */
    int64_t first, distance; /* the first time step; from one to the next */
} pnsk_rows;

typedef struct {
    pnsk_link link;
    const pnsk_welcome *welcome;
    pnsk_heartbeat *beat;
    pnsk_header opened; /* BEGIN header of the current simulation */
    bool shared;        /* several solver ranks send parts of the same time steps */
    uint64_t pieces;    /* of the current simulation, sent or pending */
    uint64_t bytes;     /* payload bytes of these pieces */
    bool has_credit;    /* CREDIT for the current simulation has arrived */
    uint64_t sent;      /* payload bytes since the connection was established, pending ones included */
    uint64_t limit;     /* cumulative payload bytes that may be sent; granted by CREDIT */
    zmq_msg_t *pending;
    size_t n_pending, room;
    uint64_t pending_bytes;
    pnsk_rows rows;           /* at most one of these and the pieces is pending */
    int64_t pending_since_ms; /* when the oldest pending piece or row was put there */
    uint32_t pending_steps;   /* time steps completed since then */
    int64_t last_step_ms;
    int64_t blocked_ms; /* time spent waiting for credit */
    bool ended;         /* STREAMED has arrived */
    pnsk_streamed streamed;
    pnsk_memory memory;
    bool declined; /* the rank has not taken the memory, or the system has none */
    bool offered;  /* SHARE was sent, and SHARED has not arrived */
    bool takes;    /* the rank reads the memory */
    bool settled;  /* the rank has dealt with all pieces of the simulation before */
} pnsk_stream;

penstock_status pnsk_stream_open(pnsk_stream *stream, void *context, const pnsk_connect_file *server,
                                 const pnsk_welcome *welcome, uint32_t trainer_rank, pnsk_heartbeat *beat,
                                 pnsk_error *error);

/* Open a simulation's stream. ranks: number of solver ranks that send to it. */
penstock_status pnsk_stream_begin(pnsk_stream *stream, const pnsk_header *header, const pnsk_buffer *begin,
                                  uint32_t ranks, pnsk_error *error);

/* Whether the credit suffices for a piece of `size` bytes. */
bool pnsk_stream_may_send(const pnsk_stream *stream, uint64_t size);

/* Where the credit does not suffice for `size` bytes, flush and wait for it. */
penstock_status pnsk_stream_make_room(pnsk_stream *stream, uint64_t size, pnsk_error *error);

/* Wait for credit, then send one piece; the data are copied, once. */
penstock_status pnsk_stream_send(pnsk_stream *stream, const pnsk_header *header, const void *data, size_t size,
                                 pnsk_error *error);

penstock_status pnsk_stream_flush(pnsk_stream *stream, pnsk_error *error);

/* Mark a time step as complete. Flushes unless time steps follow each other within the coalescing time; reports
 * refusals. */
penstock_status pnsk_stream_step_sent(pnsk_stream *stream, pnsk_error *error);

/* Flush if the oldest pending piece has waited for the coalescing time. */
penstock_status pnsk_stream_flush_old(pnsk_stream *stream, pnsk_error *error);

/* Send END, then wait for STREAMED, which says that the rank has processed every piece. Two calls, so that all trainer
 * ranks can work at the same time. */
penstock_status pnsk_stream_request_end(pnsk_stream *stream, pnsk_error *error);
penstock_status pnsk_stream_await_end(pnsk_stream *stream, pnsk_error *error);

/* Drop what is pending and close. */
void pnsk_stream_close(pnsk_stream *stream, int linger_ms);

#endif
