#include "penstock_wire.h"
#include "penstock_text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool fail(pnsk_error *error, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool fail(pnsk_error *error, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    error->no_memory = false;
    return false;
}

const char *pnsk_kind_name(uint8_t kind)
{
    static const char *const names[] = {"?",      "HELLO",  "WELCOME",  "NEXT",   "ASSIGN",   "NO_MORE",
                                        "ANNOUNCE", "ACCEPT", "BEGIN",  "PIECE",  "CREDIT",   "END",
                                        "STREAMED", "FINISH", "FINISHED", "HEARTBEAT", "ALIVE", "REFUSE", "INDICES",
                                        "SHARE",    "SHARED", "BLOCK"};
    return kind < sizeof names / sizeof *names ? names[kind] : "?";
}

const char *pnsk_reason_name(uint32_t reason)
{
    static const char *const names[] = {"?",          "malformed",     "version",       "incarnation", "unknown_simulation",
                                        "stale_attempt", "unknown_field", "schema",     "size",        "dtype",
                                        "not_finite", "no_begin",      "study_over",  "no_hello",    "given_up"};
    return reason < sizeof names / sizeof *names ? names[reason] : "?";
}

size_t pnsk_dtype_bytes(uint8_t dtype)
{
    static const uint8_t sizes[] = {0, 4, 8, 4, 8};
    return dtype < sizeof sizes ? sizes[dtype] : 0;
}

/* --- little-endian numbers on any machine -------------------------------------------------------------------- */

static void put_le(uint8_t *at, uint64_t value, unsigned bytes)
{
    for (unsigned i = 0; i < bytes; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get_le(const uint8_t *at, unsigned bytes)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < bytes; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static double double_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* --- header --------------------------------------------------------------------------------------------------- */

void pnsk_header_pack(const pnsk_header *h, uint8_t out[PNSK_HEADER_BYTES])
{
    memcpy(out, "PNSK", 4);
    put_le(out + 4, PNSK_VERSION, 2);
    out[6] = h->kind;
    out[7] = h->dtype;
    put_le(out + 8, h->incarnation, 4);
    put_le(out + 12, h->attempt, 4);
    put_le(out + 16, (uint64_t)h->simulation, 8);
    put_le(out + 24, (uint64_t)h->step, 8);
    put_le(out + 32, h->field, 4);
    put_le(out + 36, h->rank, 4);
    put_le(out + 40, h->offset, 8);
    put_le(out + 48, h->count, 8);
    put_le(out + 56, bits_of(h->time), 8);
}

bool pnsk_header_unpack(const uint8_t *frame, size_t size, pnsk_header *h, pnsk_error *error)
{
    if (size != PNSK_HEADER_BYTES)
        return fail(error, "header frame of %zu bytes, expected %d", size, PNSK_HEADER_BYTES);
    if (memcmp(frame, "PNSK", 4) != 0)
        return fail(error, "header without the magic PNSK: the sender does not speak Penstock");
    const unsigned version = (unsigned)get_le(frame + 4, 2);
    if (version != PNSK_VERSION)
        return fail(error, "wire format version %u, this side speaks %d: install the same penstock on both sides", version,
                    PNSK_VERSION);
    h->kind = frame[6];
    h->dtype = frame[7];
    if (h->kind < PNSK_HELLO || h->kind > PNSK_BLOCK || (h->dtype != 0 && pnsk_dtype_bytes(h->dtype) == 0))
        return fail(error, "unknown kind %u or dtype %u in header", h->kind, h->dtype);
    h->incarnation = (uint32_t)get_le(frame + 8, 4);
    h->attempt = (uint32_t)get_le(frame + 12, 4);
    h->simulation = (int64_t)get_le(frame + 16, 8);
    h->step = (int64_t)get_le(frame + 24, 8);
    h->field = (uint32_t)get_le(frame + 32, 4);
    h->rank = (uint32_t)get_le(frame + 36, 4);
    h->offset = get_le(frame + 40, 8);
    h->count = get_le(frame + 48, 8);
    h->time = double_of(get_le(frame + 56, 8));
    return true;
}

/* --- writing payloads ----------------------------------------------------------------------------------------- */

static void put_bytes(pnsk_buffer *out, const void *data, size_t size)
{
    if (out->failed)
        return;
    if (size > out->room - out->size) {
        const size_t room = 2 * out->room + size + 64;
        uint8_t *grown = realloc(out->data, room);
        if (grown == NULL) {
            out->failed = true;
            return;
        }
        out->data = grown;
        out->room = room;
    }
    if (size != 0)
        memcpy(out->data + out->size, data, size);
    out->size += size;
}

static void put_number(pnsk_buffer *out, uint64_t value, unsigned bytes)
{
    uint8_t raw[8];
    put_le(raw, value, bytes);
    put_bytes(out, raw, bytes);
}

static void put_string(pnsk_buffer *out, const char *text)
{
    const size_t size = strlen(text);
    put_number(out, size, 4);
    put_bytes(out, text, size);
}

/* Write a text that comes from elsewhere (a message of the solver, a host name). The server refuses text that is not UTF-8,
 * so bytes that are not are replaced by U+FFFD. NULL: the empty text. */
static void put_foreign_text(pnsk_buffer *out, const char *text)
{
    const size_t size = text != NULL ? strnlen(text, PNSK_MAX_FOREIGN_TEXT) : 0;
    const size_t at = out->size;
    put_number(out, 0, 4);
    for (size_t i = 0; i < size && !out->failed;) {
        const size_t n = pnsk_utf8_character((const uint8_t *)text + i, size - i);
        if (n != 0)
            put_bytes(out, text + i, n);
        else if (size < PNSK_MAX_FOREIGN_TEXT || size - i > 3) /* else a character that the bound has cut */
            put_bytes(out, "\xEF\xBF\xBD", 3);
        i += n != 0 ? n : 1;
    }
    if (!out->failed)
        put_le(out->data + at, out->size - at - 4, 4);
}

static void put_doubles(pnsk_buffer *out, const double *values, uint32_t count)
{
    put_number(out, count, 4);
    for (uint32_t i = 0; i < count; i++)
        put_number(out, bits_of(values[i]), 8);
}

void pnsk_hello_pack(pnsk_buffer *out, const uint8_t client[PNSK_CLIENT_BYTES], uint32_t pid, const char *host)
{
    put_bytes(out, client, PNSK_CLIENT_BYTES);
    put_number(out, pid, 4);
    put_foreign_text(out, host);
}

void pnsk_announce_pack(pnsk_buffer *out, const penstock_field *fields, uint32_t count)
{
    put_number(out, count, 4);
    for (uint32_t i = 0; i < count; i++) {
        const penstock_field *f = &fields[i];
        put_string(out, f->name);
        put_number(out, (uint64_t)f->dtype, 1);
        put_number(out, f->is_static ? 1 : 0, 1);
        put_number(out, f->components, 4);
        put_number(out, f->n_dimensions, 4);
        for (uint32_t d = 0; d < f->n_dimensions; d++)
            put_number(out, f->shape[d], 8);
    }
}

void pnsk_begin_pack(pnsk_buffer *out, uint32_t ranks, const double *parameters, uint32_t count)
{
    put_number(out, ranks, 4);
    put_doubles(out, parameters, count);
}

/* Write the points as int64 if `wide`, else as int32. */
void pnsk_indices_pack(pnsk_buffer *out, const int64_t *points, uint64_t count, bool wide)
{
    for (uint64_t i = 0; i < count; i++)
        put_number(out, (uint64_t)points[i], wide ? 8 : 4);
}

void pnsk_share_pack(pnsk_buffer *out, const pnsk_share *share)
{
    put_bytes(out, share->boot, sizeof share->boot);
    put_number(out, share->pid, 4);
    put_number(out, share->descriptor, 4);
    put_number(out, share->size, 8);
    put_bytes(out, share->token, sizeof share->token);
}

void pnsk_reference_pack(uint64_t offset, uint64_t size, uint8_t out[PNSK_REFERENCE_BYTES])
{
    put_le(out, offset, 8);
    put_le(out + 8, size, 8);
}

void pnsk_finish_pack(pnsk_buffer *out, uint8_t outcome, uint32_t ranks, uint64_t steps, double blocked_seconds,
                      const char *message)
{
    put_number(out, outcome, 1);
    put_number(out, ranks, 4);
    put_number(out, steps, 8);
    put_number(out, bits_of(blocked_seconds), 8);
    put_foreign_text(out, message);
}

/* --- reading payloads ----------------------------------------------------------------------------------------- */

/* Reads a payload from its beginning and keeps the first error; values read after an error are 0. */
typedef struct {
    const uint8_t *data;
    size_t size, at;
    bool ok;
    pnsk_error *error;
} reader;

static const uint8_t *take(reader *r, uint64_t size)
{
    if (!r->ok)
        return NULL;
    if (size > r->size - r->at) {
        r->ok = fail(r->error, "payload of %zu bytes ends %llu bytes too early", r->size,
                     (unsigned long long)(size - (r->size - r->at)));
        return NULL;
    }
    const uint8_t *start = r->data + r->at;
    r->at += (size_t)size;
    return start;
}

static uint64_t take_number(reader *r, unsigned bytes)
{
    const uint8_t *raw = take(r, bytes);
    return raw == NULL ? 0 : get_le(raw, bytes);
}

static void *take_memory(reader *r, size_t count, size_t item)
{
    if (!r->ok)
        return NULL;
    void *memory = calloc(count != 0 ? count : 1, item);
    if (memory == NULL) {
        r->ok = fail(r->error, "out of memory for %zu items", count);
        r->error->no_memory = true;
    }
    return memory;
}

/* Read a u32 number of items of at least `item` bytes each; checked against the bytes left, before any allocation. */
static uint32_t take_count(reader *r, size_t item)
{
    const uint32_t count = (uint32_t)take_number(r, 4);
    if (!r->ok)
        return 0;
    if (count > PNSK_MAX_ITEMS || (uint64_t)count * item > r->size - r->at) {
        r->ok = fail(r->error, "payload announces %u items, more than it can hold", count);
        return 0;
    }
    return count;
}

static char *take_string(reader *r)
{
    const uint32_t size = (uint32_t)take_number(r, 4);
    if (r->ok && size > PNSK_MAX_STRING)
        r->ok = fail(r->error, "string of %u bytes, at most %u are allowed", size, PNSK_MAX_STRING);
    const uint8_t *raw = take(r, size);
    if (r->ok && (!pnsk_is_utf8(raw, size) || memchr(raw, 0, size) != NULL))
        r->ok = fail(r->error, "string that is not UTF-8 text");
    char *text = take_memory(r, (size_t)size + 1, 1);
    if (text != NULL)
        memcpy(text, raw, size);
    return text;
}

static char **take_strings(reader *r, uint32_t *count)
{
    *count = take_count(r, 4);
    char **texts = take_memory(r, *count, sizeof *texts);
    for (uint32_t i = 0; i < *count && r->ok; i++)
        texts[i] = take_string(r);
    return texts;
}

static void free_strings(char **texts, uint32_t count)
{
    for (uint32_t i = 0; texts != NULL && i < count; i++)
        free(texts[i]);
    free(texts);
}

static bool at_end(reader *r)
{
    if (r->ok && r->at != r->size)
        r->ok = fail(r->error, "payload has %zu bytes too many", r->size - r->at);
    return r->ok;
}

bool pnsk_welcome_unpack(const uint8_t *frame, size_t size, pnsk_welcome *out, pnsk_error *error)
{
    reader r = {frame, size, 0, true, error};
    memset(out, 0, sizeof *out);
    out->heartbeat_ms = (uint32_t)take_number(&r, 4);
    out->server_timeout_ms = (uint32_t)take_number(&r, 4);
    out->credit_bytes = take_number(&r, 8);
    out->coalesce_bytes = (uint32_t)take_number(&r, 4);
    out->coalesce_ms = (uint32_t)take_number(&r, 4);
    out->pin_simulations = take_number(&r, 1) != 0;
    out->rank_endpoints = take_strings(&r, &out->n_ranks);
    out->parameters = take_strings(&r, &out->n_parameters);
    out->fields = take_strings(&r, &out->n_fields);
    out->solver = take_string(&r);
    if (at_end(&r))
        return true;
    pnsk_welcome_free(out);
    return false;
}

bool pnsk_assign_unpack(const uint8_t *frame, size_t size, pnsk_assign *out, pnsk_error *error)
{
    reader r = {frame, size, 0, true, error};
    memset(out, 0, sizeof *out);
    out->validation = take_number(&r, 1) != 0;
    out->n_parameters = take_count(&r, 8);
    out->parameters = take_memory(&r, out->n_parameters, sizeof *out->parameters);
    for (uint32_t i = 0; i < out->n_parameters && r.ok; i++)
        out->parameters[i] = double_of(take_number(&r, 8));
    if (at_end(&r))
        return true;
    pnsk_assign_free(out);
    return false;
}

bool pnsk_accept_unpack(const uint8_t *frame, size_t size, pnsk_accept *out, pnsk_error *error)
{
    reader r = {frame, size, 0, true, error};
    memset(out, 0, sizeof *out);
    out->count = take_count(&r, 5);
    out->ids = take_memory(&r, out->count, sizeof *out->ids);
    out->wanted = take_memory(&r, out->count, sizeof *out->wanted);
    for (uint32_t i = 0; i < out->count && r.ok; i++) {
        out->ids[i] = (uint32_t)take_number(&r, 4);
        out->wanted[i] = take_number(&r, 1) != 0;
    }
    if (at_end(&r))
        return true;
    pnsk_accept_free(out);
    return false;
}

bool pnsk_streamed_unpack(const uint8_t *frame, size_t size, pnsk_streamed *out, pnsk_error *error)
{
    reader r = {frame, size, 0, true, error};
    out->accepted = take_number(&r, 8);
    out->duplicates = take_number(&r, 8);
    out->refused = take_number(&r, 8);
    return at_end(&r);
}

bool pnsk_alive_unpack(const uint8_t *frame, size_t size, bool *abandon, pnsk_error *error)
{
    reader r = {frame, size, 0, true, error};
    *abandon = take_number(&r, 1) != 0;
    return at_end(&r);
}

bool pnsk_refuse_unpack(const uint8_t *frame, size_t size, pnsk_refuse *out, pnsk_error *error)
{
    reader r = {frame, size, 0, true, error};
    out->reason = (uint32_t)take_number(&r, 4);
    out->text = NULL;
    if (r.ok && strcmp(pnsk_reason_name(out->reason), "?") == 0)
        r.ok = fail(error, "unknown refusal reason %u", out->reason);
    out->text = take_string(&r);
    if (at_end(&r))
        return true;
    pnsk_refuse_free(out);
    return false;
}

penstock_status pnsk_unreadable(const pnsk_error *error)
{
    return error->no_memory ? PENSTOCK_NO_MEMORY : PENSTOCK_BAD_MESSAGE;
}

void pnsk_welcome_free(pnsk_welcome *w)
{
    free_strings(w->rank_endpoints, w->n_ranks);
    free_strings(w->parameters, w->n_parameters);
    free_strings(w->fields, w->n_fields);
    free(w->solver);
    memset(w, 0, sizeof *w);
}

void pnsk_assign_free(pnsk_assign *a)
{
    free(a->parameters);
    memset(a, 0, sizeof *a);
}

void pnsk_accept_free(pnsk_accept *a)
{
    free(a->ids);
    free(a->wanted);
    memset(a, 0, sizeof *a);
}

void pnsk_refuse_free(pnsk_refuse *r)
{
    free(r->text);
    r->text = NULL;
}
