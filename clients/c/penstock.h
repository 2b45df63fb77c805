/**
 * @file penstock.h
 * @brief libpenstock: stream a solver's time steps to a Penstock training server, from C or any language that calls C.
 *
 * A solver process that a Penstock worker started for one simulation runs this on each of its MPI ranks:
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
 * Errors: no call blocks for ever. Each waits only while the server answers heartbeats; otherwise it returns
 * PENSTOCK_SERVER_LOST. After any failure except PENSTOCK_BAD_ARGUMENT, every later call except penstock_fail and
 * penstock_close returns the same failure.
 *
 * Threads: all state is in the handles, so different threads may use different handles at the same time. Only one thread
 * at a time may use a handle; another thread may take over where the program synchronises the two (a lock, a join, the
 * end of an OpenMP region). Handles do not survive fork().
 *
 * Memory: on the server's node, values are passed in memory that both map, where the system has memfd_create.
 *
 * The library needs libzmq (4.3 or later, with CURVE) and POSIX threads. docs/wire-format.md specifies the wire format.
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

/** A connection to the server of one study. */
typedef struct penstock penstock;

/** Result of a call; penstock_error describes a failure. */
typedef enum {
    PENSTOCK_OK = 0,            /**< success */
    PENSTOCK_BAD_ARGUMENT = 1,  /**< a mistake in the call; nothing was sent */
    PENSTOCK_NO_CONNECTION = 2, /**< no usable connect.json, or no answer from the address in it */
    PENSTOCK_BAD_MESSAGE = 3,   /**< the server sent bytes that are not a message of this wire format */
    PENSTOCK_REFUSED = 4,       /**< the server refused a message */
    PENSTOCK_ABANDONED = 5,     /**< the server no longer wants this simulation */
    PENSTOCK_SERVER_LOST = 6,   /**< the server stopped answering or closed a connection */
    PENSTOCK_NO_MEMORY = 7      /**< out of memory */
} penstock_status;

/** Element type of a field. */
typedef enum {
    PENSTOCK_FLOAT32 = 1, /**< float */
    PENSTOCK_FLOAT64 = 2, /**< double */
    PENSTOCK_INT32 = 3,   /**< int32_t */
    PENSTOCK_INT64 = 4    /**< int64_t */
} penstock_dtype;

/** A field that the solver announces. Elements are ordered by point, with the components of a point side by side. */
typedef struct {
    const char *name;      /**< name of the field in the study file */
    penstock_dtype dtype;  /**< element type */
    uint32_t components;   /**< per point: 1 scalar, 3 vector, 6 symmetric tensor, 9 tensor */
    uint32_t n_dimensions; /**< number of entries of `shape`, at most 8 */
    const uint64_t *shape; /**< spatial shape of the whole field over all ranks, row-major: {ny, nx} or {n_cells} */
    int is_static;         /**< 1: mesh geometry, sent with PENSTOCK_STATIC_STEP and at most once per study; else 0 */
} penstock_field;

/** Time step number of static fields. */
#define PENSTOCK_STATIC_STEP (-1)

/**
 * @brief Connect to the server of a study.
 *
 * Gives up after 30 s, or after PENSTOCK_CONNECT_TIMEOUT seconds.
 *
 * @param[out] handle        set in every case, also on failure (then call penstock_error and penstock_close); NULL only
 *                           when out of memory.
 * @param      connect_file  path of connect.json; NULL: the value of PENSTOCK_CONNECT.
 * @param      rank          MPI rank of this process, from 0; 0 for a serial solver.
 * @param      ranks         number of MPI ranks; 1 for a serial solver.
 * @return PENSTOCK_OK or a failure.
 */
penstock_status penstock_connect(penstock **handle, const char *connect_file, uint32_t rank, uint32_t ranks);

/**
 * @brief Take the simulation that this process was started for (PENSTOCK_SIMULATION and PENSTOCK_ATTEMPT).
 *
 * @return PENSTOCK_OK or a failure.
 */
penstock_status penstock_begin(penstock *handle);

/** @brief Id of the current simulation; -1 if there is none. */
int64_t penstock_simulation(const penstock *handle);

/** @brief Attempt number of the current simulation, starting at 1. */
uint32_t penstock_attempt(const penstock *handle);

/** @brief 1 if the current simulation is held out for validation, else 0. */
int penstock_is_validation(const penstock *handle);

/**
 * @brief Parameters of the current simulation.
 *
 * @param[out] names   names of the parameters, valid until the handle is closed; may be NULL.
 * @param[out] values  their values in the same order, valid until the next penstock_begin or penstock_close; may be NULL.
 * @return number of parameters.
 */
size_t penstock_parameters(const penstock *handle, const char *const **names, const double **values);

/**
 * @brief Announce the fields that will be sent, once per simulation. Later calls refer to a field by its index in `fields`.
 *
 * @param fields  the fields, static ones included; not needed after the call.
 * @param count   number of fields.
 * @return PENSTOCK_OK or a failure.
 */
penstock_status penstock_announce(penstock *handle, const penstock_field *fields, size_t count);

/**
 * @brief List the points that this rank holds, where its part of a field is not contiguous (an unstructured mesh's
 * partition).
 *
 * Call it once per simulation and field, after penstock_announce and before the first piece of the field. Afterwards,
 * `offset` and `count` of penstock_send refer to this list and must be multiples of the number of components.
 *
 * @param field   index of the field.
 * @param points  points of the whole field, numbered from 0, in the order in which this rank will send them. No point may
 *                belong to two ranks.
 * @param count   number of points; may be 0.
 * @return PENSTOCK_OK or a failure.
 */
penstock_status penstock_indices(penstock *handle, size_t field, const int64_t *points, uint64_t count);

/** @brief 0 if `field` is a static field that the server already has, so that it need not be sent; else 1. */
int penstock_wanted(const penstock *handle, size_t field);

/**
 * @brief Send this rank's piece of one field of one time step. Waits while the server has no room.
 *
 * @param field   index of the field.
 * @param step    number of the time step: 0, 1, 2, ... in the order of sending, or PENSTOCK_STATIC_STEP.
 * @param time    physical time in the solver's units; NaN if there is none.
 * @param dtype   element type of `data`, as announced.
 * @param data    the elements; may be overwritten after the call. NULL if `count` is 0.
 * @param offset  first element of the piece in the whole field, components included.
 * @param count   number of elements in the piece, components included; may be 0.
 * @return PENSTOCK_OK or a failure.
 */
penstock_status penstock_send(penstock *handle, size_t field, int64_t step, double time, penstock_dtype dtype,
                              const void *data, uint64_t offset, uint64_t count);

/**
 * @brief Mark the current time step as complete; call it after all its pieces have been passed to penstock_send.
 *
 * Small pieces are held back and sent with those of the next time step if time steps follow each other within the
 * server's coalescing time.
 *
 * @return PENSTOCK_OK or a failure, such as PENSTOCK_REFUSED if the server has refused a piece.
 */
penstock_status penstock_step_sent(penstock *handle);

/**
 * @brief Send all pieces that are held back.
 *
 * @return PENSTOCK_OK or a failure.
 */
penstock_status penstock_flush(penstock *handle);

/**
 * @brief Wait until the server has processed every time step, then report the simulation as finished.
 *
 * @return PENSTOCK_OK or a failure.
 */
penstock_status penstock_finish(penstock *handle);

/**
 * @brief Report the simulation as failed instead of finished. The server decides whether it is tried again.
 *
 * @param message  the reason, for the study's report.
 * @return PENSTOCK_OK, or a failure if the server has not confirmed the report within 5 s.
 */
penstock_status penstock_fail(penstock *handle, const char *message);

/**
 * @brief Report the simulation as failed because of another process, and use this handle no more.
 *
 * @param message  why; penstock_error returns it from now on.
 * @return PENSTOCK_ABANDONED, as every later call but penstock_fail and penstock_close.
 */
penstock_status penstock_abandon(penstock *handle, const char *message);

/**
 * @brief Close every connection and free the handle, within 5 s. The server hands an unfinished simulation out again.
 *
 * @param handle  may be NULL.
 */
void penstock_close(penstock *handle);

/**
 * @brief Describe the last failure and what to do about it.
 *
 * @return the text; empty if no call has failed. Valid until the next call with this handle.
 */
const char *penstock_error(const penstock *handle);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif

#endif
