#include "penstock.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "penstock_stream.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "field data travel as they lie in memory, which must be little-endian"
#endif

#define LINGER_MS 5000
#define FAIL_WAIT_MS 5000
#define CONNECT_TIMEOUT_SECONDS 30.0
#define MAX_DIMENSIONS 8

/* What is remembered of an announced field. */
typedef struct {
    char *name;
    penstock_dtype dtype;
    uint64_t size; /* elements of the whole field */
    bool is_static;
} announced;

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
    announced *fields; /* accept.count */
    pnsk_accept accept;
    int64_t last_step;
    penstock_status broken; /* sticky */
    pnsk_error error;
};

static penstock_status bad(penstock *p, const char *format, ...) __attribute__((format(printf, 2, 3)));

static penstock_status bad(penstock *p, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(p->error.text, sizeof p->error.text, format, args);
    va_end(args);
    return PENSTOCK_BAD_ARGUMENT;
}

/* Remember a failure after which the stream cannot be whole any more. */
static penstock_status settle(penstock *p, penstock_status status)
{
    if (status != PENSTOCK_OK && p->broken == PENSTOCK_OK)
        p->broken = status;
    return status;
}

static penstock_status no_memory(penstock *p)
{
    snprintf(p->error.text, sizeof p->error.text, "out of memory");
    return settle(p, PENSTOCK_NO_MEMORY);
}

static pnsk_header header_of(const penstock *p, uint8_t kind)
{
    pnsk_header header = p->base;
    header.kind = kind;
    return header;
}

/* What an answer is worth: DONE, or NO_HELLO when the connection was made anew and HELLO is to be said over it first. */
typedef enum { DONE, LATE, NO_HELLO } worth;

static worth judge(penstock *p, const pnsk_header *asked, uint8_t expected, pnsk_message *answer, penstock_status *status)
{
    if (answer->header.kind == PNSK_REFUSE && (answer->header.offset == asked->offset || answer->header.offset == 0)) {
        uint32_t reason = 0;
        *status = pnsk_refused(answer, &reason, &p->error);
        return reason == PNSK_NO_HELLO ? NO_HELLO : DONE;
    }
    if (answer->header.offset != asked->offset) { /* the second answer to something that was asked twice */
        zmq_msg_close(&answer->payload);
        return LATE;
    }
    *status = PENSTOCK_OK;
    if (answer->header.kind == expected)
        return DONE;
    zmq_msg_close(&answer->payload);
    if (answer->header.kind == PNSK_NO_MORE) {
        snprintf(p->error.text, sizeof p->error.text, "the study has ended; no more simulations are wanted");
        *status = PENSTOCK_ABANDONED;
    } else {
        snprintf(p->error.text, sizeof p->error.text, "%s in answer to %s, expected %s", pnsk_kind_name(answer->header.kind),
                 pnsk_kind_name(asked->kind), pnsk_kind_name(expected));
        *status = PENSTOCK_BAD_MESSAGE;
    }
    return DONE;
}

static penstock_status send_hello(penstock *p)
{
    pnsk_header header = header_of(p, PNSK_HELLO);
    header.simulation = -1;
    header.attempt = 0;
    return pnsk_link_send(&p->control, &header, &p->hello, &p->error);
}

/* Send a request, again while it is not answered, and wait for the answer; deadline_ms 0: as long as the server is alive. The
 * server knows a repetition by its number, which is in `header`. The caller closes answer->payload. */
static penstock_status converse(penstock *p, const pnsk_header *header, const pnsk_buffer *payload, uint8_t expected,
                                int64_t deadline_ms, pnsk_message *answer)
{
    int64_t again_ms = 0;
    for (;;) {
        penstock_status status = PENSTOCK_OK;
        if (pnsk_now_ms() >= again_ms) {
            status = pnsk_link_send(&p->control, header, payload, &p->error);
            again_ms = pnsk_now_ms() + PNSK_ASK_MS;
        }
        bool got = false;
        if (status == PENSTOCK_OK)
            status = pnsk_link_receive(&p->control, PNSK_WAIT_MS, &got, answer, &p->error);
        if (status != PENSTOCK_OK)
            return status;
        if (got) {
            const worth is = judge(p, header, expected, answer, &status);
            if (is == DONE)
                return status;
            if (is == NO_HELLO) {
                if ((status = send_hello(p)) != PENSTOCK_OK)
                    return status;
                again_ms = 0;
            }
            continue;
        }
        if (p->beat != NULL && (status = pnsk_heartbeat_check(p->beat, &p->error)) != PENSTOCK_OK)
            return status;
        if (deadline_ms != 0 && (pnsk_now_ms() > deadline_ms || p->control.rejected))
            return PENSTOCK_NO_CONNECTION;
    }
}

static penstock_status request(penstock *p, pnsk_header header, const pnsk_buffer *payload, uint8_t expected,
                               int64_t deadline_ms, pnsk_message *answer)
{
    if (payload->failed)
        return no_memory(p);
    header.offset = ++p->number;
    return converse(p, &header, payload, expected, deadline_ms, answer);
}

/* --- connecting ----------------------------------------------------------------------------------------------- */

static penstock_status connect_timeout(penstock *p, double *seconds)
{
    const char *text = getenv("PENSTOCK_CONNECT_TIMEOUT");
    *seconds = CONNECT_TIMEOUT_SECONDS;
    if (text == NULL || *text == '\0')
        return PENSTOCK_OK;
    char *end = NULL;
    *seconds = strtod(text, &end);
    if (end == text || *end != '\0' || !(*seconds > 0) || *seconds > 1e6)
        return bad(p, "PENSTOCK_CONNECT_TIMEOUT is \"%.100s\": expected seconds, such as 30", text);
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
        return no_memory(p);
    const pnsk_header header = header_of(p, PNSK_HELLO);
    pnsk_message answer;
    const int64_t deadline = pnsk_now_ms() + (int64_t)(seconds * 1000) + 1;
    penstock_status status = converse(p, &header, &p->hello, PNSK_WELCOME, deadline, &answer);
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
    pnsk_error detail;
    if (!pnsk_welcome_unpack(zmq_msg_data(&answer.payload), zmq_msg_size(&answer.payload), &p->welcome, &detail) ||
        p->welcome.n_ranks == 0) {
        snprintf(p->error.text, sizeof p->error.text, "WELCOME cannot be read: %.500s",
                 p->welcome.n_ranks == 0 && p->welcome.solver != NULL ? "it names no trainer rank" : detail.text);
        status = PENSTOCK_BAD_MESSAGE;
    }
    zmq_msg_close(&answer.payload);
    return status;
}

static penstock_status open_streams(penstock *p)
{
    p->beat = pnsk_heartbeat_start(p->context, &p->server, p->client, &p->welcome, &p->error);
    if (p->beat == NULL)
        return PENSTOCK_NO_CONNECTION;
    p->streams = calloc(p->welcome.n_ranks, sizeof *p->streams);
    if (p->streams == NULL)
        return no_memory(p);
    for (uint32_t i = 0; i < p->welcome.n_ranks; i++) {
        p->n_streams = i + 1;
        const penstock_status status =
            pnsk_stream_open(&p->streams[i], p->context, &p->server, &p->welcome, i, p->beat, &p->error);
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
        return bad(p, "rank %u of %u: expected 0 <= rank < ranks", rank, ranks);
    if (path == NULL || *path == '\0')
        path = getenv("PENSTOCK_CONNECT");
    if (path == NULL || *path == '\0') {
        snprintf(p->error.text, sizeof p->error.text,
                 "no server given: set PENSTOCK_CONNECT to the connect.json in the study's run directory");
        return PENSTOCK_NO_CONNECTION;
    }
    if (!pnsk_connect_file_read(path, &p->server, &p->error))
        return PENSTOCK_NO_CONNECTION;
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
        return no_memory(p);
    p->ranks = ranks;
    p->base = (pnsk_header){.incarnation = p->server.incarnation, .simulation = -1, .rank = rank};
    status = pnsk_link_open(&p->control, p->context, &p->server, p->server.control, "the coordinator", true, &p->error);
    if (status == PENSTOCK_OK)
        status = say_hello(p, seconds);
    return status == PENSTOCK_OK ? open_streams(p) : status;
}

penstock_status penstock_connect(penstock **handle, const char *connect_file, uint32_t rank, uint32_t ranks)
{
    penstock *p = calloc(1, sizeof *p);
    *handle = p;
    if (p == NULL)
        return PENSTOCK_NO_MEMORY;
    const penstock_status status = connect_to(p, connect_file, rank, ranks);
    p->broken = status;
    return status;
}

/* --- one simulation ------------------------------------------------------------------------------------------- */

static penstock_status variable(penstock *p, const char *name, int64_t low, int64_t high, int64_t *out)
{
    const char *text = getenv(name);
    char *end = NULL;
    errno = 0;
    const long long value = text != NULL ? strtoll(text, &end, 10) : 0;
    if (text == NULL || end == text || *end != '\0' || errno != 0 || value < low || value > high)
        return bad(p, "%s is %s%.100s: a Penstock worker sets it to a number for a solver it starts; run the solver "
                   "through a study (penstock run), or set it by hand",
                   name, text == NULL ? "not set" : "", text == NULL ? "" : text);
    *out = value;
    return PENSTOCK_OK;
}

penstock_status penstock_begin(penstock *p)
{
    if (p->broken != PENSTOCK_OK)
        return p->broken;
    if (p->begun)
        return bad(p, "penstock_begin was called already; finish simulation %" PRId64 " first", p->base.simulation);
    int64_t simulation = 0, attempt = 0;
    penstock_status status = variable(p, "PENSTOCK_SIMULATION", 0, INT64_MAX, &simulation);
    if (status == PENSTOCK_OK)
        status = variable(p, "PENSTOCK_ATTEMPT", 1, UINT32_MAX, &attempt);
    if (status != PENSTOCK_OK)
        return status;
    pnsk_header header = header_of(p, PNSK_NEXT);
    header.simulation = simulation;
    header.attempt = (uint32_t)attempt;
    const pnsk_buffer nothing = {0};
    pnsk_message answer;
    status = request(p, header, &nothing, PNSK_ASSIGN, 0, &answer);
    if (status != PENSTOCK_OK)
        return settle(p, status);
    pnsk_assign_free(&p->assign);
    if (!pnsk_assign_unpack(zmq_msg_data(&answer.payload), zmq_msg_size(&answer.payload), &p->assign, &p->error))
        status = PENSTOCK_BAD_MESSAGE;
    else if (p->assign.n_parameters != p->welcome.n_parameters) {
        snprintf(p->error.text, sizeof p->error.text, "ASSIGN has %u parameters, WELCOME named %u",
                 p->assign.n_parameters, p->welcome.n_parameters);
        status = PENSTOCK_BAD_MESSAGE;
    }
    zmq_msg_close(&answer.payload);
    if (status != PENSTOCK_OK)
        return settle(p, status);
    p->base.simulation = answer.header.simulation;
    p->base.attempt = answer.header.attempt;
    p->begun = true;
    p->announced = false;
    p->last_step = -1;
    pnsk_heartbeat_serve(p->beat, p->base.simulation, p->base.attempt);
    return PENSTOCK_OK;
}

int64_t penstock_simulation(const penstock *p)
{
    return p->base.simulation;
}

uint32_t penstock_attempt(const penstock *p)
{
    return p->base.attempt;
}

int penstock_is_validation(const penstock *p)
{
    return p->assign.validation ? 1 : 0;
}

size_t penstock_parameters(const penstock *p, const char *const **names, const double **values)
{
    if (names != NULL)
        *names = (const char *const *)p->welcome.parameters;
    if (values != NULL)
        *values = p->assign.parameters;
    return p->assign.n_parameters;
}

static void forget_fields(penstock *p)
{
    for (uint32_t i = 0; p->fields != NULL && i < p->accept.count; i++)
        free(p->fields[i].name);
    free(p->fields);
    p->fields = NULL;
    pnsk_accept_free(&p->accept);
}

/* Elements of a field; false when the announcement makes no sense. */
static bool elements(const penstock_field *field, uint64_t *out)
{
    if (field->name == NULL || *field->name == '\0' || strlen(field->name) > 255 || field->components == 0 ||
        field->n_dimensions == 0 || field->n_dimensions > MAX_DIMENSIONS || pnsk_dtype_bytes((uint8_t)field->dtype) == 0)
        return false;
    uint64_t size = field->components;
    for (uint32_t d = 0; d < field->n_dimensions; d++) {
        if (field->shape[d] == 0 || size > UINT64_MAX / 16 / field->shape[d])
            return false;
        size *= field->shape[d];
    }
    *out = size;
    return true;
}

static penstock_status remember_fields(penstock *p, const penstock_field *fields)
{
    p->fields = calloc(p->accept.count, sizeof *p->fields);
    if (p->fields == NULL)
        return no_memory(p);
    for (uint32_t i = 0; i < p->accept.count; i++) {
        announced *f = &p->fields[i];
        f->name = strdup(fields[i].name);
        if (f->name == NULL)
            return no_memory(p);
        f->dtype = fields[i].dtype;
        f->is_static = fields[i].is_static != 0;
        (void)elements(&fields[i], &f->size); /* checked before it was sent */
    }
    return PENSTOCK_OK;
}

static penstock_status begin_streams(penstock *p)
{
    pnsk_buffer payload = {0};
    pnsk_begin_pack(&payload, p->ranks, p->assign.parameters, p->assign.n_parameters);
    const pnsk_header header = header_of(p, PNSK_BEGIN);
    penstock_status status = payload.failed ? no_memory(p) : PENSTOCK_OK;
    for (uint32_t i = 0; i < p->n_streams && status == PENSTOCK_OK; i++)
        status = pnsk_stream_begin(&p->streams[i], &header, &payload, &p->error);
    free(payload.data);
    return status;
}

penstock_status penstock_announce(penstock *p, const penstock_field *fields, size_t count)
{
    if (p->broken != PENSTOCK_OK)
        return p->broken;
    if (!p->begun || p->announced)
        return bad(p, "penstock_announce: call it once, after penstock_begin");
    if (count == 0 || count > PNSK_MAX_ITEMS)
        return bad(p, "penstock_announce: %zu fields; expected 1 to %u", count, PNSK_MAX_ITEMS);
    uint64_t size = 0;
    for (size_t i = 0; i < count; i++)
        if (!elements(&fields[i], &size))
            return bad(p, "field %zu (\"%.100s\"): expected a name of at most 255 bytes, a known dtype, at least 1 component "
                       "and a shape of 1 to %d dimensions, none of them 0",
                       i, fields[i].name != NULL ? fields[i].name : "", MAX_DIMENSIONS);
    pnsk_buffer payload = {0};
    pnsk_announce_pack(&payload, fields, (uint32_t)count);
    const pnsk_header header = header_of(p, PNSK_ANNOUNCE);
    pnsk_message answer;
    penstock_status status = request(p, header, &payload, PNSK_ACCEPT, 0, &answer);
    free(payload.data);
    if (status != PENSTOCK_OK)
        return settle(p, status);
    forget_fields(p);
    if (!pnsk_accept_unpack(zmq_msg_data(&answer.payload), zmq_msg_size(&answer.payload), &p->accept, &p->error))
        status = PENSTOCK_BAD_MESSAGE;
    else if (p->accept.count != count) {
        snprintf(p->error.text, sizeof p->error.text, "ACCEPT has %u fields, announced were %zu", p->accept.count, count);
        status = PENSTOCK_BAD_MESSAGE;
    }
    zmq_msg_close(&answer.payload);
    if (status == PENSTOCK_OK)
        status = remember_fields(p, fields);
    if (status == PENSTOCK_OK)
        status = begin_streams(p);
    p->announced = status == PENSTOCK_OK;
    return settle(p, status);
}

int penstock_wanted(const penstock *p, size_t field)
{
    return p->announced && field < p->accept.count && p->accept.wanted[field] ? 1 : 0;
}

/* Everything that can be wrong with the arguments of a send. */
static penstock_status check_piece(penstock *p, size_t field, int64_t step, penstock_dtype dtype, const void *data,
                                   uint64_t offset, uint64_t count)
{
    if (!p->announced)
        return bad(p, "penstock_send: announce the fields first");
    if (field >= p->accept.count)
        return bad(p, "penstock_send: field %zu, announced were %u", field, p->accept.count);
    const announced *f = &p->fields[field];
    if (f->is_static != (step == PENSTOCK_STATIC_STEP))
        return bad(p, "field %s: time step %" PRId64 ", but it was announced as %s", f->name, step,
                   f->is_static ? "static (send it at PENSTOCK_STATIC_STEP)" : "not static (time steps are 0, 1, 2, ...)");
    if (!f->is_static && step != p->last_step && step != p->last_step + 1)
        return bad(p, "field %s: time step %" PRId64 " after %" PRId64 ": number them 0, 1, 2, ... as they are sent",
                   f->name, step, p->last_step);
    if (dtype != f->dtype)
        return bad(p, "field %s: dtype %d, announced was %d", f->name, (int)dtype, (int)f->dtype);
    if (offset > f->size || count > f->size - offset)
        return bad(p, "field %s: %" PRIu64 " elements from %" PRIu64 ", announced were %" PRIu64 " in all", f->name, count,
                   offset, f->size);
    if (data == NULL && count != 0)
        return bad(p, "field %s: no data", f->name);
    return PENSTOCK_OK;
}

static pnsk_stream *stream_of(penstock *p, int64_t step)
{
    if (step == PENSTOCK_STATIC_STEP)
        return &p->streams[0];
    const uint64_t turn = (uint64_t)p->base.simulation + (p->welcome.pin_simulations ? 0 : (uint64_t)step);
    return &p->streams[turn % p->n_streams];
}

penstock_status penstock_send(penstock *p, size_t field, int64_t step, double time, penstock_dtype dtype,
                              const void *data, uint64_t offset, uint64_t count)
{
    if (p->broken != PENSTOCK_OK)
        return p->broken;
    penstock_status status = check_piece(p, field, step, dtype, data, offset, count);
    if (status != PENSTOCK_OK)
        return status;
    if (step > p->last_step)
        p->last_step = step;
    if (count == 0 || (p->fields[field].is_static && !p->accept.wanted[field]))
        return PENSTOCK_OK; /* a rank without cells, or geometry that the server has */
    status = pnsk_heartbeat_check(p->beat, &p->error);
    const uint64_t size = count * pnsk_dtype_bytes((uint8_t)dtype);
    pnsk_stream *stream = stream_of(p, step);
    /* While this client waits for one trainer rank, no other rank may starve on what is held back here for it. */
    if (!pnsk_stream_may_send(stream, size))
        for (uint32_t i = 0; i < p->n_streams && status == PENSTOCK_OK; i++)
            status = pnsk_stream_flush(&p->streams[i], &p->error);
    pnsk_header header = header_of(p, PNSK_PIECE);
    header.step = step;
    header.field = p->accept.ids[field];
    header.offset = offset;
    header.count = count;
    header.dtype = (uint8_t)dtype;
    header.time = time;
    if (status == PENSTOCK_OK)
        status = pnsk_stream_send(stream, &header, data, (size_t)size, &p->error);
    return settle(p, status);
}

penstock_status penstock_step_sent(penstock *p)
{
    if (p->broken != PENSTOCK_OK)
        return p->broken;
    if (!p->announced || p->last_step < 0)
        return bad(p, "penstock_step_sent: no time step has been sent");
    const penstock_status status = pnsk_stream_step_sent(stream_of(p, p->last_step), &p->error);
    return settle(p, status != PENSTOCK_OK ? status : pnsk_heartbeat_check(p->beat, &p->error));
}

penstock_status penstock_flush(penstock *p)
{
    penstock_status status = p->broken;
    for (uint32_t i = 0; i < p->n_streams && status == PENSTOCK_OK; i++)
        status = pnsk_stream_flush(&p->streams[i], &p->error);
    return settle(p, status);
}

static penstock_status send_finish(penstock *p, uint8_t outcome, const char *message, int64_t deadline_ms)
{
    double blocked_seconds = 0;
    for (uint32_t i = 0; i < p->n_streams; i++) {
        blocked_seconds += (double)p->streams[i].blocked_ms / 1000;
        p->streams[i].blocked_ms = 0;
    }
    pnsk_buffer payload = {0};
    pnsk_finish_pack(&payload, outcome, p->ranks, (uint64_t)(p->last_step + 1), blocked_seconds, message);
    const pnsk_header header = header_of(p, PNSK_FINISH);
    pnsk_message answer;
    const penstock_status status = request(p, header, &payload, PNSK_FINISHED, deadline_ms, &answer);
    free(payload.data);
    if (status != PENSTOCK_OK)
        return status;
    zmq_msg_close(&answer.payload);
    p->begun = p->announced = false;
    pnsk_heartbeat_serve(p->beat, -1, 0);
    return PENSTOCK_OK;
}

penstock_status penstock_finish(penstock *p)
{
    if (p->broken != PENSTOCK_OK)
        return p->broken;
    if (!p->begun)
        return bad(p, "penstock_finish: no simulation has been begun");
    penstock_status status = PENSTOCK_OK;
    const uint32_t n = p->announced ? p->n_streams : 0;
    for (uint32_t i = 0; i < n && status == PENSTOCK_OK; i++)
        status = pnsk_stream_request_end(&p->streams[i], &p->error);
    for (uint32_t i = 0; i < n && status == PENSTOCK_OK; i++)
        status = pnsk_stream_await_end(&p->streams[i], &p->error);
    if (status == PENSTOCK_OK)
        status = send_finish(p, PNSK_OUTCOME_FINISHED, "", 0);
    return settle(p, status);
}

penstock_status penstock_fail(penstock *p, const char *message)
{
    if (!p->begun)
        return bad(p, "penstock_fail: no simulation has been begun");
    const pnsk_error why = p->error;
    const penstock_status status = send_finish(p, PNSK_OUTCOME_FAILED, message, pnsk_now_ms() + FAIL_WAIT_MS);
    if (status == PENSTOCK_OK)
        p->error = why; /* still the reason for which the caller gave up */
    else if (status == PENSTOCK_NO_CONNECTION)
        snprintf(p->error.text, sizeof p->error.text, "the server did not take note of the failure within %d s",
                 FAIL_WAIT_MS / 1000);
    return status;
}

void penstock_close(penstock *p)
{
    if (p == NULL)
        return;
    const int linger = p->broken == PENSTOCK_OK ? LINGER_MS : 0;
    pnsk_heartbeat_stop(p->beat);
    for (uint32_t i = 0; i < p->n_streams; i++)
        pnsk_stream_close(&p->streams[i], linger);
    free(p->streams);
    pnsk_link_close(&p->control, linger);
    if (p->context != NULL)
        zmq_ctx_term(p->context);
    forget_fields(p);
    free(p->hello.data);
    pnsk_assign_free(&p->assign);
    pnsk_welcome_free(&p->welcome);
    free(p);
}

const char *penstock_error(const penstock *p)
{
    return p == NULL ? "out of memory" : p->error.text;
}
