/* penstock_connect: reads connect.json and opens all connections. */
#include "penstock_handle.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CONNECT_TIMEOUT_SECONDS 30.0

static penstock_status connect_timeout(penstock *p, double *seconds)
{
    const char *text = getenv("PENSTOCK_CONNECT_TIMEOUT");
    *seconds = CONNECT_TIMEOUT_SECONDS;
    if (text == NULL || *text == '\0')
        return PENSTOCK_OK;
    char *end = NULL;
    *seconds = strtod(text, &end);
    if (end == text || *end != '\0' || !(*seconds > 0) || *seconds > 1e6)
        return pnsk_bad(p, "PENSTOCK_CONNECT_TIMEOUT is \"%.100s\": expected seconds, such as 30", text);
    return PENSTOCK_OK;
}

static bool random_bytes(uint8_t *out, size_t size)
{
    FILE *source = fopen("/dev/urandom", "rb");
    const bool good = source != NULL && fread(out, 1, size, source) == size;
    if (source != NULL)
        fclose(source);
    return good;
}

static penstock_status say_hello(penstock *p, double seconds)
{
    char host[256] = "?";
    gethostname(host, sizeof host - 1);
    pnsk_hello_pack(&p->hello, p->client, (uint32_t)getpid(), host);
    if (p->hello.failed)
        return pnsk_no_memory(p);
    const pnsk_header header = pnsk_header_of(p, PNSK_HELLO);
    pnsk_message answer;
    const int64_t deadline = pnsk_now_ms() + (int64_t)(seconds * 1000) + 1;
    penstock_status status = pnsk_converse(p, &header, &p->hello, PNSK_WELCOME, deadline, &answer);
    if (status == PENSTOCK_NO_CONNECTION) {
        const char *what = p->control.rejected
                               ? "the server rejects the keys in connect.json: it belongs to another study, take the "
                                 "one in this study's run directory"
                           : p->control.secured    ? "the server is there but does not answer; see its log"
                           : p->control.unreadable ? "somebody is there, but the encrypted handshake fails: is connect.json "
                                                     "the current one?"
                                                   : "is the study running, and can this machine reach that address?";
        snprintf(p->error.text, sizeof p->error.text, "no answer from the server at %s within %g s: %s",
                 p->server.control, seconds, what);
    }
    if (status != PENSTOCK_OK)
        return status;
    pnsk_error detail = {.text = "it names no trainer rank"};
    if (!pnsk_welcome_unpack(zmq_msg_data(&answer.payload), zmq_msg_size(&answer.payload), &p->welcome, &detail) ||
        p->welcome.n_ranks == 0) {
        snprintf(p->error.text, sizeof p->error.text, "WELCOME cannot be read: %.500s", detail.text);
        status = pnsk_unreadable(&detail);
    }
    zmq_msg_close(&answer.payload);
    return status;
}

static penstock_status open_streams(penstock *p, const char *connect_file)
{
    penstock_status status = PENSTOCK_OK;
    p->beat = pnsk_heartbeat_start(p->context, &p->server, connect_file, p->client, &p->welcome, &status, &p->error);
    if (p->beat == NULL)
        return status;
    p->streams = calloc(p->welcome.n_ranks, sizeof *p->streams);
    if (p->streams == NULL)
        return pnsk_no_memory(p);
    for (uint32_t i = 0; i < p->welcome.n_ranks; i++) {
        p->n_streams = i + 1;
        status = pnsk_stream_open(&p->streams[i], p->context, &p->server, &p->welcome, i, p->beat, &p->error);
        if (status != PENSTOCK_OK)
            return status;
    }
    return PENSTOCK_OK;
}

static penstock_status connect_to(penstock *p, const char *path, uint32_t rank, uint32_t ranks)
{
    double seconds = 0;
    penstock_status status = connect_timeout(p, &seconds);
    if (status != PENSTOCK_OK)
        return status;
    if (ranks == 0 || rank >= ranks)
        return pnsk_bad(p, "rank %u of %u: expected 0 <= rank < ranks", rank, ranks);
    if (path == NULL || *path == '\0')
        path = getenv("PENSTOCK_CONNECT");
    if (path == NULL || *path == '\0') {
        snprintf(p->error.text, sizeof p->error.text,
                 "no server given: set PENSTOCK_CONNECT to the connect.json in the study's run directory");
        return PENSTOCK_NO_CONNECTION;
    }
    if (!pnsk_connect_file_read(path, &p->server, &p->error))
        return p->error.no_memory ? PENSTOCK_NO_MEMORY : PENSTOCK_NO_CONNECTION;
    if (!zmq_has("curve")) {
        snprintf(p->error.text, sizeof p->error.text, "this libzmq was built without CURVE: install one that has it");
        return PENSTOCK_NO_CONNECTION;
    }
    if (!random_bytes(p->client, sizeof p->client)) {
        snprintf(p->error.text, sizeof p->error.text, "cannot read /dev/urandom (%s)", strerror(errno));
        return PENSTOCK_NO_CONNECTION;
    }
    p->context = zmq_ctx_new();
    if (p->context == NULL)
        return pnsk_no_memory(p);
    p->ranks = ranks;
    p->base = (pnsk_header){.incarnation = p->server.incarnation, .simulation = -1, .rank = rank};
    status = pnsk_link_open(&p->control, p->context, &p->server, p->server.control, "the coordinator", true, &p->error);
    if (status == PENSTOCK_OK)
        status = say_hello(p, seconds);
    return status == PENSTOCK_OK ? open_streams(p, path) : status;
}

penstock_status penstock_connect(penstock **handle, const char *connect_file, uint32_t rank, uint32_t ranks)
{
    penstock *p = calloc(1, sizeof *p);
    *handle = p;
    if (p == NULL)
        return PENSTOCK_NO_MEMORY;
    p->base.simulation = -1;
    const penstock_status status = connect_to(p, connect_file, rank, ranks);
    p->broken = status;
    return status;
}
