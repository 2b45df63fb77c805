/* Internal definition of the handle, and the functions that the files of the public calls share. */
#ifndef PENSTOCK_HANDLE_H
#define PENSTOCK_HANDLE_H

#include "penstock.h"
#include "penstock_stream.h"

/* An announced field. */
typedef struct {
    char *name;
    penstock_dtype dtype;
    uint64_t size; /* elements of the whole field; after penstock_indices, of this rank's list */
    uint32_t components;
    bool is_static;
    bool listed; /* penstock_indices has been called */
    bool sent;   /* a piece has been sent */
    uint64_t step_elements; /* elements sent of the current time step */
    uint64_t row_offset;    /* its first byte in the row of a time step */
} pnsk_announced;

struct penstock {
    void *context;
    pnsk_connect_file server;
    uint8_t client[PNSK_CLIENT_BYTES];
    uint32_t ranks;
    pnsk_link control;
    pnsk_buffer hello; /* HELLO payload, repeated after the control connection was re-established */
    uint64_t number;   /* number of the last request */
    pnsk_welcome welcome;
    pnsk_heartbeat *beat;
    pnsk_stream *streams; /* one per trainer rank: welcome.n_ranks */
    uint32_t n_streams;   /* number of open streams */
    pnsk_header base;     /* header fields of every message: incarnation, rank, simulation, attempt */
    bool begun, announced;
    pnsk_assign assign;
    pnsk_announced *fields; /* accept.count of them */
    pnsk_accept accept;
    int64_t last_step;
    uint64_t row_bytes; /* of a whole time step; 0: time steps are sent in pieces */
    uint8_t *row;       /* where the values of the current time step go; NULL: they are sent in pieces */
    double row_time;
    penstock_status broken; /* the first failure, returned by every later call */
    pnsk_error error;
};

/* Set the error text for a wrong argument; returns PENSTOCK_BAD_ARGUMENT. */
penstock_status pnsk_bad(penstock *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Record a failure after which the stream cannot be complete; returns `status`. */
penstock_status pnsk_settle(penstock *p, penstock_status status);

penstock_status pnsk_no_memory(penstock *p);

/* A header of this kind for the current simulation. */
pnsk_header pnsk_header_of(const penstock *p, uint8_t kind);

/* Send a request and wait for its answer, repeating the request until it is answered. The server recognises a repetition
 * by the number in `header`. deadline_ms: value of pnsk_now_ms at which to give up; 0: wait while the server is alive. The
 * caller closes answer->payload. */
penstock_status pnsk_converse(penstock *p, const pnsk_header *header, const pnsk_buffer *payload, uint8_t expected,
                              int64_t deadline_ms, pnsk_message *answer);

/* pnsk_converse with the next request number. */
penstock_status pnsk_request(penstock *p, pnsk_header header, const pnsk_buffer *payload, uint8_t expected,
                             int64_t deadline_ms, pnsk_message *answer);

void pnsk_forget_fields(penstock *p);

/* The stream to the trainer rank that receives a time step. */
pnsk_stream *pnsk_stream_of(penstock *p, int64_t step);

/* Before waiting for one trainer rank, flush all: others may be waiting for what is held back here. */
penstock_status pnsk_flush_before_waiting(penstock *p, const pnsk_stream *stream, uint64_t size);

/* Send part of a field, in pieces that a message has room for. */
penstock_status pnsk_send_pieces(penstock *p, size_t field, int64_t step, double time, const void *data, uint64_t offset,
                                 uint64_t count);

/* Find out whether time steps can be sent as rows, and where each field lies in them. */
void pnsk_lay_out_rows(penstock *p);

/* Begin the row of a time step, where time steps are sent as rows. */
penstock_status pnsk_row_begin(penstock *p, int64_t step, double time);

/* Whether a part of a field continues the current row: it must follow the part before, at the same time. */
bool pnsk_row_takes(const penstock *p, size_t field, double time, uint64_t offset);
void pnsk_row_put(penstock *p, size_t field, const void *data, uint64_t count);

/* End the current row, if there is one; a row that is not whole is sent in pieces. */
penstock_status pnsk_row_end(penstock *p);

/* Send what is in the current row, if there is one, in pieces. */
penstock_status pnsk_row_break(penstock *p);

#endif
