/* The wire format in C: the 64-byte header and the payloads that a solver sends and receives (docs/wire-format.md).
 *
 * Internal to libpenstock, and independent of sockets. Every read is bounds-checked: a payload that is too short, too long
 * or contains an impossible length is refused, with the reason in `error`.
 */
#ifndef PENSTOCK_WIRE_H
#define PENSTOCK_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "penstock.h"

#define PNSK_VERSION 1
#define PNSK_HEADER_BYTES 64
#define PNSK_CLIENT_BYTES 16
#define PNSK_MAX_PIECE (1u << 24) /* bytes; a larger part of a field goes as several pieces, so that messages stay small */
#define PNSK_MAX_STRING (1u << 20)
#define PNSK_MAX_ITEMS (1u << 16)

enum pnsk_kind {
    PNSK_HELLO = 1,
    PNSK_WELCOME,
    PNSK_NEXT,
    PNSK_ASSIGN,
    PNSK_NO_MORE,
    PNSK_ANNOUNCE,
    PNSK_ACCEPT,
    PNSK_BEGIN,
    PNSK_PIECE,
    PNSK_CREDIT,
    PNSK_END,
    PNSK_STREAMED,
    PNSK_FINISH,
    PNSK_FINISHED,
    PNSK_HEARTBEAT,
    PNSK_ALIVE,
    PNSK_REFUSE,
    PNSK_INDICES,
    PNSK_SHARE,
    PNSK_SHARED,
    PNSK_BLOCK
};

#define PNSK_REFERENCE 0x80 /* of the kind byte: the payload frame holds a reference to shared memory, not the payload */
#define PNSK_REFERENCE_BYTES 16

enum pnsk_reason { PNSK_NO_HELLO = 13 }; /* the reason that this library reacts to */

enum pnsk_outcome { PNSK_OUTCOME_FINISHED = 0, PNSK_OUTCOME_FAILED = 1, PNSK_OUTCOME_FAILED_FOR_GOOD = 4 };

/* The fields of the header, as in penstock_client.wire.Header. */
typedef struct {
    uint8_t kind;
    uint8_t dtype;
    uint32_t incarnation;
    uint32_t attempt;
    int64_t simulation;
    int64_t step;
    uint32_t field;
    uint32_t rank;
    uint64_t offset;
    uint64_t count;
    double time;
} pnsk_header;

typedef struct {
    char text[2048];
    bool no_memory; /* after a failure of the functions below: it was memory, not the payload */
} pnsk_error;

/* A growing byte buffer. The caller frees `data`. failed: out of memory. */
typedef struct {
    uint8_t *data;
    size_t size, room;
    bool failed;
} pnsk_buffer;

typedef struct {
    uint32_t heartbeat_ms, server_timeout_ms;
    uint64_t credit_bytes;
    uint32_t coalesce_bytes, coalesce_ms;
    bool pin_simulations;
    uint32_t n_ranks, n_parameters, n_fields;
    char **rank_endpoints; /* n_ranks */
    char **parameters;     /* n_parameters names */
    char **fields;         /* n_fields names */
    char *solver;          /* JSON text for workers */
} pnsk_welcome;

/* Where memory of this process is that a server on the same node can read. */
typedef struct {
    uint8_t boot[16]; /* boot id of the machine */
    uint32_t pid, descriptor;
    uint64_t size;
    uint8_t token[16]; /* random bytes, with which the memory begins */
} pnsk_share;

typedef struct {
    bool validation;
    uint32_t n_parameters;
    double *parameters;
} pnsk_assign;

typedef struct {
    uint32_t count;
    uint32_t *ids;
    bool *wanted;
} pnsk_accept;

typedef struct {
    uint64_t accepted, duplicates, refused;
} pnsk_streamed;

typedef struct {
    uint32_t reason;
    char *text;
} pnsk_refuse;

/* Name of a message kind or refusal reason; "?" for an unknown one. */
const char *pnsk_kind_name(uint8_t kind);
const char *pnsk_reason_name(uint32_t reason);

/* Bytes of one element; 0 for an unknown dtype. */
size_t pnsk_dtype_bytes(uint8_t dtype);

void pnsk_header_pack(const pnsk_header *header, uint8_t out[PNSK_HEADER_BYTES]);
bool pnsk_header_unpack(const uint8_t *frame, size_t size, pnsk_header *header, pnsk_error *error);

/* Payloads that a solver sends. The caller zeroes `out` before and checks out->failed after the call. */
void pnsk_hello_pack(pnsk_buffer *out, const uint8_t client[PNSK_CLIENT_BYTES], uint32_t pid, const char *host);
void pnsk_announce_pack(pnsk_buffer *out, const penstock_field *fields, uint32_t count);
void pnsk_begin_pack(pnsk_buffer *out, uint32_t ranks, const double *parameters, uint32_t count);
void pnsk_indices_pack(pnsk_buffer *out, const int64_t *points, uint64_t count, bool wide);
void pnsk_share_pack(pnsk_buffer *out, const pnsk_share *share);
void pnsk_reference_pack(uint64_t offset, uint64_t size, uint8_t out[PNSK_REFERENCE_BYTES]);
void pnsk_finish_pack(pnsk_buffer *out, uint8_t outcome, uint32_t ranks, uint64_t steps, double blocked_seconds,
                      const char *message);

/* Payloads that a solver receives. After success the caller frees them with the matching function; after failure there
 * is nothing to free. */
bool pnsk_welcome_unpack(const uint8_t *frame, size_t size, pnsk_welcome *out, pnsk_error *error);
bool pnsk_assign_unpack(const uint8_t *frame, size_t size, pnsk_assign *out, pnsk_error *error);
bool pnsk_accept_unpack(const uint8_t *frame, size_t size, pnsk_accept *out, pnsk_error *error);
bool pnsk_streamed_unpack(const uint8_t *frame, size_t size, pnsk_streamed *out, pnsk_error *error);
bool pnsk_alive_unpack(const uint8_t *frame, size_t size, bool *abandon, pnsk_error *error);
bool pnsk_refuse_unpack(const uint8_t *frame, size_t size, pnsk_refuse *out, pnsk_error *error);

/* The status of a payload that could not be read: PENSTOCK_BAD_MESSAGE or PENSTOCK_NO_MEMORY. */
penstock_status pnsk_unreadable(const pnsk_error *error);

void pnsk_welcome_free(pnsk_welcome *welcome);
void pnsk_assign_free(pnsk_assign *assign);
void pnsk_accept_free(pnsk_accept *accept);
void pnsk_refuse_free(pnsk_refuse *refuse);

#endif
