/* Fuzz target: everything that libpenstock reads, from bytes. The first byte says what the rest is taken for.
 *
 * The entry point is libFuzzer's, so that `clang -fsanitize=fuzzer` takes this file as it is; fuzz_driver.c does with gcc.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "penstock_stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void expect(bool good, const char *what)
{
    if (!good) {
        fprintf(stderr, "FINDING: %s\n", what);
        abort();
    }
}

/* A reason is always given, and ends. */
static void check_error(const pnsk_error *error)
{
    expect(memchr(error->text, 0, sizeof error->text) != NULL && error->text[0] != '\0', "a failure without a reason");
}

static void header(const uint8_t *data, size_t size)
{
    pnsk_error error = {.text = ""};
    pnsk_header read, again;
    uint8_t raw[PNSK_HEADER_BYTES];
    if (!pnsk_header_unpack(data, size, &read, &error)) {
        check_error(&error);
        return;
    }
    expect(pnsk_kind_name(read.kind)[0] != '?', "a header of no kind is taken");
    pnsk_header_pack(&read, raw);
    expect(memcmp(raw, data, sizeof raw) == 0, "a header is written other than it was read");
    expect(pnsk_header_unpack(raw, sizeof raw, &again, &error), "a header that was written is not read");
}

static size_t total(char *const *texts, uint32_t count)
{
    size_t size = 0;
    for (uint32_t i = 0; i < count; i++)
        size += strlen(texts[i]);
    return size;
}

static void payload(uint8_t kind, const uint8_t *data, size_t size)
{
    pnsk_error error = {.text = ""};
    bool good = false;
    if (kind == 0) {
        pnsk_welcome w;
        if ((good = pnsk_welcome_unpack(data, size, &w, &error))) {
            const size_t texts = total(w.rank_endpoints, w.n_ranks) + total(w.parameters, w.n_parameters) +
                                 total(w.fields, w.n_fields) + strlen(w.solver);
            expect(texts <= size, "WELCOME has more text than bytes");
            pnsk_welcome_free(&w);
        }
    } else if (kind == 1) {
        pnsk_assign a;
        if ((good = pnsk_assign_unpack(data, size, &a, &error))) {
            expect(size == 5 + 8 * (size_t)a.n_parameters, "ASSIGN of another length");
            pnsk_assign_free(&a);
        }
    } else if (kind == 2) {
        pnsk_accept a;
        if ((good = pnsk_accept_unpack(data, size, &a, &error))) {
            expect(size == 4 + 5 * (size_t)a.count, "ACCEPT of another length");
            pnsk_accept_free(&a);
        }
    } else if (kind == 3) {
        pnsk_streamed s;
        good = pnsk_streamed_unpack(data, size, &s, &error);
        expect(!good || size == 24, "STREAMED of another length");
    } else if (kind == 4) {
        bool abandon;
        good = pnsk_alive_unpack(data, size, &abandon, &error);
        expect(!good || size == 1, "ALIVE of another length");
    } else {
        pnsk_refuse r;
        if ((good = pnsk_refuse_unpack(data, size, &r, &error))) {
            expect(strlen(r.text) + 8 == size, "REFUSE of another length");
            pnsk_refuse_free(&r);
        }
    }
    if (!good)
        check_error(&error);
}

static void connect_file(const uint8_t *data, size_t size)
{
    pnsk_error error = {.text = ""};
    pnsk_connect_file read;
    if (!pnsk_connect_file_parse((const char *)data, size, "connect.json", &read, &error)) {
        check_error(&error);
        return;
    }
    expect(strlen(read.server_public_key) == 40 && strlen(read.client_public_key) == 40 &&
               strlen(read.client_secret_key) == 40 && strlen(read.control) < sizeof read.control,
           "a connect.json without its keys is taken");
}

/* A data connection inside this process: the library's own, to a server that says whatever the bytes are. Each message is
 * a byte (how many frames, and whether the first is a header of a kind that clients know), then its frames, each behind a
 * byte that is its length. */
static void stream_hears(const uint8_t *data, size_t size)
{
    static void *context, *server;
    static pnsk_stream stream;
    static char endpoint[] = "inproc://rank", *endpoints[] = {endpoint};
    static pnsk_welcome welcome = {.credit_bytes = 1000, .n_ranks = 1, .rank_endpoints = endpoints};
    pnsk_error error = {.text = ""};
    if (context == NULL) {
        static const char key[] = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7";
        pnsk_connect_file file;
        memset(&file, 0, sizeof file);
        memcpy(file.server_public_key, key, sizeof key);
        memcpy(file.client_public_key, key, sizeof key);
        memcpy(file.client_secret_key, key, sizeof key);
        context = zmq_ctx_new();
        server = zmq_socket(context, ZMQ_DEALER);
        expect(zmq_bind(server, "inproc://rank") == 0, "no socket");
        expect(pnsk_stream_open(&stream, context, &file, &welcome, 0, NULL, &error) == PENSTOCK_OK, "no stream");
    }
    static const uint8_t kinds[] = {PNSK_CREDIT, PNSK_STREAMED, PNSK_REFUSE, PNSK_ASSIGN, PNSK_ALIVE};
    size_t at = 0, messages = 0;
    while (at < size && messages < 16) {
        const uint8_t how = data[at++];
        const unsigned frames = 1 + how % 3;
        for (unsigned i = 0; i < frames; i++) {
            size_t n = at < size ? data[at++] : 0;
            n = n < size - at ? n : size - at;
            const int more = i + 1 < frames ? ZMQ_SNDMORE : 0;
            if (i == 0 && how & 0x80) {
                uint8_t raw[PNSK_HEADER_BYTES];
                const pnsk_header h = {.kind = kinds[(how >> 2) % sizeof kinds], .count = n};
                pnsk_header_pack(&h, raw);
                expect(zmq_send(server, raw, sizeof raw, more) >= 0, "cannot send");
                continue;
            }
            expect(zmq_send(server, data + at, n, more) >= 0, "cannot send");
            at += n;
        }
        messages++;
    }
    /* Each failure ends one look; nothing stays behind for the next input. */
    for (size_t i = 0; i <= messages; i++) {
        const uint64_t limit = stream.limit;
        const penstock_status status = pnsk_stream_step_sent(&stream, &error);
        expect(stream.limit >= limit, "credit was taken back");
        expect(status == PENSTOCK_OK || status == PENSTOCK_BAD_MESSAGE || status == PENSTOCK_REFUSED, "another failure");
        if (status != PENSTOCK_OK)
            check_error(&error);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const uint8_t what = data[0];
    const size_t rest = size - 1;
    uint8_t *copy = malloc(rest != 0 ? rest : 1); /* of its own size, so that a read past its end is seen */
    if (copy == NULL)
        abort();
    memcpy(copy, data + 1, rest);
    switch (what % 4) {
    case 0: header(copy, rest); break;
    case 1: payload((uint8_t)(what / 4 % 6), copy, rest); break;
    case 2: connect_file(copy, rest); break;
    default: stream_hears(copy, rest);
    }
    free(copy);
    return 0;
}
