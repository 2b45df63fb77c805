/* What is behind a handle, for the files that share the work: requests, connecting, fields, one simulation. */
#ifndef PENSTOCK_HANDLE_H
#define PENSTOCK_HANDLE_H

#include "penstock.h"
#include "penstock_stream.h"

/* What is remembered of an announced field. */
typedef struct {
    char *name;
    penstock_dtype dtype;
    uint64_t size; /* elements of the whole field; once listed, of this rank's list */
    uint32_t components;
    bool is_static, listed, sent;
} pnsk_announced;

struct penstock {
    void *context;
    pnsk_connect_file server;
    uint8_t client[PNSK_CLIENT_BYTES];
    uint32_t ranks;
    pnsk_link control;
    pnsk_buffer hello; /* said again over a control connection that was made anew */
    uint64_t number;   /* of the latest request */
    pnsk_welcome welcome;
    pnsk_heartbeat *beat;
    pnsk_stream *streams; /* welcome.n_ranks */
    uint32_t n_streams;   /* those that are open */
    pnsk_header base;     /* incarnation, rank, simulation and attempt of every message */
    bool begun, announced;
    pnsk_assign assign;
    pnsk_announced *fields; /* accept.count */
    pnsk_accept accept;
    int64_t last_step;
    penstock_status broken; /* sticky */
    pnsk_error error;
};

/* Put into words what is wrong with an argument. */
penstock_status pnsk_bad(penstock *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Remember a failure after which the stream cannot be whole any more. */
penstock_status pnsk_settle(penstock *p, penstock_status status);

penstock_status pnsk_no_memory(penstock *p);

/* A header of this kind for the present simulation. */
pnsk_header pnsk_header_of(const penstock *p, uint8_t kind);

/* Send a request, again while it is not answered, and wait for the answer; deadline_ms 0: as long as the server is alive. The
 * server knows a repetition by its number, which is in `header`. The caller closes answer->payload. */
penstock_status pnsk_converse(penstock *p, const pnsk_header *header, const pnsk_buffer *payload, uint8_t expected,
                              int64_t deadline_ms, pnsk_message *answer);

/* The same under the next number. */
penstock_status pnsk_request(penstock *p, pnsk_header header, const pnsk_buffer *payload, uint8_t expected,
                             int64_t deadline_ms, pnsk_message *answer);

void pnsk_forget_fields(penstock *p);

#endif
