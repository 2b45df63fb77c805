/* libpenstock: stream a solver's time steps to a Penstock training server, from C or anything that can call C.
 *
 * A solver process that a Penstock worker started for one simulation does, on each of its MPI ranks:
 *
 *     penstock *p;
 *     if (penstock_connect(&p, NULL, rank, ranks) != PENSTOCK_OK ||
 *         penstock_begin(p) != PENSTOCK_OK ||
 *         penstock_announce(p, fields, n_fields) != PENSTOCK_OK)
 *         die(penstock_error(p));
 *     for (step = 0; ...; step++) {
 *         ... solve ...
 *         if (penstock_send(p, 0, step, time, PENSTOCK_FLOAT64, u, offset, count) != PENSTOCK_OK ||
 *             penstock_step_sent(p) != PENSTOCK_OK)
 *             die(penstock_error(p));
 *     }
 *     if (penstock_finish(p) != PENSTOCK_OK)
 *         die(penstock_error(p));
 *     penstock_close(p);
 *
 * No call hangs: each waits for the server only as long as it answers heartbeats, and otherwise returns
 * PENSTOCK_SERVER_LOST. After any failure but PENSTOCK_BAD_ARGUMENT every later call but penstock_fail and
 * penstock_close returns the same failure.
 *
 * Threads: the library has no state outside its handles, so different threads may use different handles at once. One
 * handle is used by one thread at a time; another thread may take it over where the program orders the two (a lock, a
 * join, the end of an OpenMP region). Handles do not survive fork().
 *
 * The library needs libzmq (4.3 or later, with CURVE) and threads. The wire format is in docs/wire-format.md.
 */
#ifndef PENSTOCK_H
#define PENSTOCK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#ifdef __GNUC__
#pragma GCC visibility push(default)
#endif

typedef struct penstock penstock;

typedef enum {
    PENSTOCK_OK = 0,
    PENSTOCK_BAD_ARGUMENT = 1,  /* a mistake in the call; nothing was sent */
    PENSTOCK_NO_CONNECTION = 2, /* no usable connect.json, or nobody answers where it points */
    PENSTOCK_BAD_MESSAGE = 3,   /* the server sent bytes that are not a message of this wire format */
    PENSTOCK_REFUSED = 4,       /* the server refused a message; penstock_error says why */
    PENSTOCK_ABANDONED = 5,     /* the server no longer wants this simulation */
    PENSTOCK_SERVER_LOST = 6,   /* the server stopped answering, or closed a connection */
    PENSTOCK_NO_MEMORY = 7
} penstock_status;

typedef enum {
    PENSTOCK_FLOAT32 = 1,
    PENSTOCK_FLOAT64 = 2,
    PENSTOCK_INT32 = 3,
    PENSTOCK_INT64 = 4
} penstock_dtype;

/* A field as it will be sent. shape: spatial shape of the whole field over all solver ranks, row-major: {ny, nx} or
 * {n_cells}. Elements are ordered by point, components fastest (1 scalar, 3 vector, 6 symmetric tensor, 9 tensor).
 * is_static: mesh geometry, sent at PENSTOCK_STATIC_STEP and at most once a study. */
typedef struct {
    const char *name;
    penstock_dtype dtype;
    uint32_t components;
    uint32_t n_dimensions; /* at most 8 */
    const uint64_t *shape;
    int is_static;
} penstock_field;

#define PENSTOCK_STATIC_STEP (-1)

/* Connect to the server of a study. connect_file: path of connect.json; NULL: where PENSTOCK_CONNECT points.
 * rank, ranks: this process's MPI rank and how many there are (0, 1 for a serial solver). Gives up after 30 s, or
 * PENSTOCK_CONNECT_TIMEOUT seconds. *handle is always set, also on failure (read penstock_error, then penstock_close);
 * only when memory has run out it is NULL. */
penstock_status penstock_connect(penstock **handle, const char *connect_file, uint32_t rank, uint32_t ranks);

/* Take on the simulation this process was started for (PENSTOCK_SIMULATION and PENSTOCK_ATTEMPT). */
penstock_status penstock_begin(penstock *handle);

/* Of the simulation taken on: its id, the how-manieth attempt it is (from 1), 1 if it is held out for validation. */
int64_t penstock_simulation(const penstock *handle);
uint32_t penstock_attempt(const penstock *handle);
int penstock_is_validation(const penstock *handle);

/* Its parameters: their number; names and values (valid until the handle is closed) where the pointers are not NULL. */
size_t penstock_parameters(const penstock *handle, const char *const **names, const double **values);

/* Say which fields will be sent, once a simulation, and open the streams. Later calls name a field by its place here. */
penstock_status penstock_announce(penstock *handle, const penstock_field *fields, size_t count);

/* For a rank whose part of a field is not contiguous, such as the partition of an unstructured mesh: the points of the
 * whole field that it holds, from 0, in the order in which it will send them. Once a simulation, after penstock_announce
 * and before the field's first piece; from then on `offset` and `count` of penstock_send refer to this list, and are
 * whole points (multiples of the field's components). The list may be empty. No point may belong to two ranks. */
penstock_status penstock_indices(penstock *handle, size_t field, const int64_t *points, uint64_t count);

/* 0 for a static field that the server has already and that need not be sent, else 1. */
int penstock_wanted(const penstock *handle, size_t field);

/* Send this rank's piece of one field of one time step: elements [offset, offset + count) of the whole field,
 * components included. step: 0, 1, 2, ... in order of emission, or PENSTOCK_STATIC_STEP. time: physical time in the
 * solver's units (NaN: none). data may be overwritten on return; it may be empty. Waits while the server has no room. */
penstock_status penstock_send(penstock *handle, size_t field, int64_t step, double time, penstock_dtype dtype,
                              const void *data, uint64_t offset, uint64_t count);

/* All pieces of a time step have been handed over. Small ones travel together; they wait for the next time step only
 * where time steps follow each other within the server's coalescing time. Reports what the server refused meanwhile. */
penstock_status penstock_step_sent(penstock *handle);

/* Send now what is waiting for company. */
penstock_status penstock_flush(penstock *handle);

/* Wait until the server has dealt with every time step, then report the simulation finished. */
penstock_status penstock_finish(penstock *handle);

/* Report the simulation failed instead (waits 5 s at most). The server decides whether it is tried again. */
penstock_status penstock_fail(penstock *handle, const char *message);

/* Close every connection and free the handle (5 s at most). An unfinished simulation is handed out again. */
void penstock_close(penstock *handle);

/* What went wrong in the last call that did not return PENSTOCK_OK, and what to do about it. */
const char *penstock_error(const penstock *handle);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif

#endif
