/* The C codec against the shared vectors of docs/wire-format.md.
 *
 * vectors.h is written by tests/clients/c_vectors.py from tests/wire/vectors.json: the tables below, in C. Payloads that
 * the library sends must be encoded to exactly the vector's bytes; those it receives must be decoded to exactly its values.
 * Every payload it receives is also cut at each length and must then be refused (valgrind sees reads past the end).
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "penstock_wire.h"

typedef struct {
    const uint8_t *data;
    size_t size;
} bytes;

typedef struct {
    const char *name;
    pnsk_header header;
    bytes raw;
} header_vector;

typedef struct {
    const char *name;
    uint8_t kind;
    bytes raw;
    const void *values; /* the struct of this kind, below; NULL: must be refused */
} payload_vector;

typedef struct {
    const uint8_t *client;
    uint32_t pid;
    const char *host;
} hello_values;

typedef struct {
    uint32_t count;
    const penstock_field *fields;
} announce_values;

typedef struct {
    uint32_t ranks, n_parameters;
    const double *parameters;
} begin_values;

typedef struct {
    uint8_t outcome;
    uint32_t ranks;
    uint64_t steps;
    double blocked_seconds;
    const char *message;
} finish_values;

typedef struct {
    const char *name;
    pnsk_header header;
    bytes raw;
    uint64_t offset, size;
    bytes payload;
} reference_vector;

#include "vectors.h"

static int failures;

static void expect(bool good, const char *name, const char *what)
{
    if (!good) {
        printf("FAILED %s: %s\n", name, what);
        failures++;
    }
}

static bool same_text(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}

static bool same_texts(char *const *a, char *const *b, uint32_t count)
{
    bool same = true;
    for (uint32_t i = 0; i < count; i++)
        same = same && same_text(a[i], b[i]);
    return same;
}

static void check_headers(void)
{
    for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
        const header_vector *v = &headers[i];
        uint8_t raw[PNSK_HEADER_BYTES], again[PNSK_HEADER_BYTES];
        pnsk_header back;
        pnsk_error error;
        pnsk_header_pack(&v->header, raw);
        expect(v->raw.size == sizeof raw && memcmp(raw, v->raw.data, sizeof raw) == 0, v->name, "packs to other bytes");
        expect(pnsk_header_unpack(v->raw.data, v->raw.size, &back, &error), v->name, "is refused");
        pnsk_header_pack(&back, again);
        expect(memcmp(raw, again, sizeof raw) == 0, v->name, "does not come back as it was");
    }
    for (size_t i = 0; i < sizeof invalid_headers / sizeof *invalid_headers; i++) {
        pnsk_header back;
        pnsk_error error = {.text = ""};
        const bytes raw = invalid_headers[i].raw;
        expect(!pnsk_header_unpack(raw.data, raw.size, &back, &error), invalid_headers[i].name, "is taken for a header");
        expect((strncmp(error.text, "wire format version", 19) == 0) == invalid_headers[i].version, invalid_headers[i].name,
               "is refused for another reason");
    }
}

/* References are only sent: a header that announces one is refused. */
static void check_references(void)
{
    for (size_t i = 0; i < sizeof references / sizeof *references; i++) {
        const reference_vector *v = &references[i];
        uint8_t raw[PNSK_HEADER_BYTES], payload[PNSK_REFERENCE_BYTES];
        pnsk_header header = v->header, back;
        pnsk_error error;
        header.kind |= PNSK_REFERENCE;
        pnsk_header_pack(&header, raw);
        pnsk_reference_pack(v->offset, v->size, payload);
        expect(v->raw.size == sizeof raw && memcmp(raw, v->raw.data, sizeof raw) == 0, v->name, "packs to other bytes");
        expect(v->payload.size == sizeof payload && memcmp(payload, v->payload.data, sizeof payload) == 0, v->name,
               "is encoded to other bytes");
        expect(!pnsk_header_unpack(raw, sizeof raw, &back, &error), v->name, "is not refused");
    }
}

static void check_encoded(const payload_vector *v)
{
    pnsk_buffer out = {0};
    if (v->kind == PNSK_HELLO) {
        const hello_values *h = v->values;
        pnsk_hello_pack(&out, h->client, h->pid, h->host);
    } else if (v->kind == PNSK_ANNOUNCE) {
        const announce_values *a = v->values;
        pnsk_announce_pack(&out, a->fields, a->count);
    } else if (v->kind == PNSK_BEGIN) {
        const begin_values *b = v->values;
        pnsk_begin_pack(&out, b->ranks, b->parameters, b->n_parameters);
    } else if (v->kind == PNSK_SHARE) {
        pnsk_share_pack(&out, v->values);
    } else {
        const finish_values *f = v->values;
        pnsk_finish_pack(&out, f->outcome, f->ranks, f->steps, f->blocked_seconds, f->message);
    }
    expect(!out.failed && out.size == v->raw.size && memcmp(out.data, v->raw.data, out.size) == 0, v->name,
           "is encoded to other bytes");
    free(out.data);
}

/* Decode, compare with the values where there are any, and free. */
static bool decode(const payload_vector *v, const uint8_t *data, size_t size)
{
    pnsk_error error;
    bool good = false, same = true;
    if (v->kind == PNSK_WELCOME) {
        pnsk_welcome w;
        const pnsk_welcome *e = v->values;
        good = pnsk_welcome_unpack(data, size, &w, &error);
        if (good && e != NULL)
            same = w.heartbeat_ms == e->heartbeat_ms && w.server_timeout_ms == e->server_timeout_ms &&
                   w.credit_bytes == e->credit_bytes && w.coalesce_bytes == e->coalesce_bytes &&
                   w.coalesce_ms == e->coalesce_ms && w.pin_simulations == e->pin_simulations &&
                   w.n_ranks == e->n_ranks && w.n_parameters == e->n_parameters && w.n_fields == e->n_fields &&
                   same_texts(w.rank_endpoints, e->rank_endpoints, w.n_ranks) &&
                   same_texts(w.parameters, e->parameters, w.n_parameters) &&
                   same_texts(w.fields, e->fields, w.n_fields) && same_text(w.solver, e->solver);
        if (good)
            pnsk_welcome_free(&w);
    } else if (v->kind == PNSK_ASSIGN) {
        pnsk_assign a;
        const pnsk_assign *e = v->values;
        good = pnsk_assign_unpack(data, size, &a, &error);
        if (good && e != NULL)
            same = a.validation == e->validation && a.n_parameters == e->n_parameters &&
                   memcmp(a.parameters, e->parameters, a.n_parameters * sizeof(double)) == 0;
        if (good)
            pnsk_assign_free(&a);
    } else if (v->kind == PNSK_ACCEPT) {
        pnsk_accept a;
        const pnsk_accept *e = v->values;
        good = pnsk_accept_unpack(data, size, &a, &error);
        if (good && e != NULL)
            same = a.count == e->count && memcmp(a.ids, e->ids, a.count * sizeof *a.ids) == 0 &&
                   memcmp(a.wanted, e->wanted, a.count * sizeof *a.wanted) == 0;
        if (good)
            pnsk_accept_free(&a);
    } else if (v->kind == PNSK_STREAMED) {
        pnsk_streamed s;
        const pnsk_streamed *e = v->values;
        good = pnsk_streamed_unpack(data, size, &s, &error);
        if (good && e != NULL)
            same = s.accepted == e->accepted && s.duplicates == e->duplicates && s.refused == e->refused;
    } else if (v->kind == PNSK_ALIVE) {
        bool abandon;
        good = pnsk_alive_unpack(data, size, &abandon, &error);
        if (good && v->values != NULL)
            same = abandon == *(const bool *)v->values;
    } else if (v->kind == PNSK_REFUSE) {
        pnsk_refuse r;
        const pnsk_refuse *e = v->values;
        good = pnsk_refuse_unpack(data, size, &r, &error);
        if (good && e != NULL)
            same = r.reason == e->reason && same_text(r.text, e->text);
        if (good)
            pnsk_refuse_free(&r);
    }
    expect(same, v->name, "is decoded to other values");
    return good;
}

static void check_decoded(const payload_vector *v)
{
    expect(decode(v, v->raw.data, v->raw.size) == (v->values != NULL), v->name,
           v->values != NULL ? "is refused" : "is not refused");
    payload_vector cut = *v;
    cut.values = NULL;
    for (size_t size = 0; v->values != NULL && size < v->raw.size; size++) {
        uint8_t *part = malloc(size + 1); /* of its own, so that a read past its end is seen */
        memcpy(part, v->raw.data, size);
        uint8_t *exact = realloc(part, size != 0 ? size : 1);
        expect(!decode(&cut, exact, size), v->name, "is not refused when it is cut");
        free(exact);
    }
}

int main(void)
{
    check_headers();
    check_references();
    size_t n = sizeof payloads / sizeof *payloads;
    for (size_t i = 0; i < n; i++) {
        const payload_vector *v = &payloads[i];
        const bool sent = v->kind == PNSK_HELLO || v->kind == PNSK_ANNOUNCE || v->kind == PNSK_BEGIN ||
                          v->kind == PNSK_FINISH || v->kind == PNSK_SHARE;
        if (sent)
            check_encoded(v);
        else
            check_decoded(v);
    }
    printf("%zu headers, %zu payloads, %d failures\n", sizeof headers / sizeof *headers, n, failures);
    return failures != 0;
}
