/* The public calls for one simulation: begin, send, finish. */
#include "penstock_handle.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "field data travel as they lie in memory, which must be little-endian"
#endif

#define LINGER_MS 5000
#define FAIL_WAIT_MS 5000

static penstock_status variable(penstock *p, const char *name, int64_t low, int64_t high, int64_t *out)
{
    const char *text = getenv(name);
    char *end = NULL;
    errno = 0;
    const long long value = text != NULL ? strtoll(text, &end, 10) : 0;
    if (text == NULL || end == text || *end != '\0' || errno != 0 || value < low || value > high)
        return pnsk_bad(p, "%s is %s%.100s: a Penstock worker sets it to a number for a solver it starts; run the solver "
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
        return pnsk_bad(p, "penstock_begin was called already; finish simulation %" PRId64 " first", p->base.simulation);
    int64_t simulation = 0, attempt = 0;
    penstock_status status = variable(p, "PENSTOCK_SIMULATION", 0, INT64_MAX, &simulation);
    if (status == PENSTOCK_OK)
        status = variable(p, "PENSTOCK_ATTEMPT", 1, UINT32_MAX, &attempt);
    if (status != PENSTOCK_OK)
        return status;
    pnsk_header header = pnsk_header_of(p, PNSK_NEXT);
    header.simulation = simulation;
    header.attempt = (uint32_t)attempt;
    const pnsk_buffer nothing = {0};
    pnsk_message answer;
    status = pnsk_request(p, header, &nothing, PNSK_ASSIGN, 0, &answer);
    if (status != PENSTOCK_OK)
        return pnsk_settle(p, status);
    pnsk_assign_free(&p->assign);
    if (!pnsk_assign_unpack(zmq_msg_data(&answer.payload), zmq_msg_size(&answer.payload), &p->assign, &p->error))
        status = pnsk_unreadable(&p->error);
    else if (p->assign.n_parameters != p->welcome.n_parameters) {
        snprintf(p->error.text, sizeof p->error.text, "ASSIGN has %u parameters, WELCOME named %u",
                 p->assign.n_parameters, p->welcome.n_parameters);
        status = PENSTOCK_BAD_MESSAGE;
    }
    zmq_msg_close(&answer.payload);
    if (status != PENSTOCK_OK)
        return pnsk_settle(p, status);
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

int penstock_wanted(const penstock *p, size_t field)
{
    return p->announced && field < p->accept.count && p->accept.wanted[field] ? 1 : 0;
}

/* Check the arguments of penstock_send. */
static penstock_status check_piece(penstock *p, size_t field, int64_t step, penstock_dtype dtype, const void *data,
                                   uint64_t offset, uint64_t count)
{
    if (!p->announced)
        return pnsk_bad(p, "penstock_send: announce the fields first");
    if (field >= p->accept.count)
        return pnsk_bad(p, "penstock_send: field %zu, announced were %u", field, p->accept.count);
    const pnsk_announced *f = &p->fields[field];
    if (f->is_static != (step == PENSTOCK_STATIC_STEP))
        return pnsk_bad(p, "field %s: time step %" PRId64 ", but it was announced as %s", f->name, step,
                   f->is_static ? "static (send it at PENSTOCK_STATIC_STEP)" : "not static (time steps are 0, 1, 2, ...)");
    if (!f->is_static && step != p->last_step && step != p->last_step + 1)
        return pnsk_bad(p, "field %s: time step %" PRId64 " after %" PRId64 ": number them 0, 1, 2, ... as they are sent",
                   f->name, step, p->last_step);
    if (dtype != f->dtype)
        return pnsk_bad(p, "field %s: dtype %d, announced was %d", f->name, (int)dtype, (int)f->dtype);
    if (offset > f->size || count > f->size - offset)
        return pnsk_bad(p, "field %s: %" PRIu64 " elements from %" PRIu64 ", announced were %" PRIu64 " in all", f->name, count,
                   offset, f->size);
    if (f->listed && (offset % f->components != 0 || count % f->components != 0))
        return pnsk_bad(p, "field %s: %" PRIu64 " elements from %" PRIu64 ", expected whole points of %u components", f->name,
                   count, offset, f->components);
    if (data == NULL && count != 0)
        return pnsk_bad(p, "field %s: no data", f->name);
    return PENSTOCK_OK;
}

pnsk_stream *pnsk_stream_of(penstock *p, int64_t step)
{
    if (step == PENSTOCK_STATIC_STEP)
        return &p->streams[0];
    const uint64_t turn = (uint64_t)p->base.simulation + (p->welcome.pin_simulations ? 0 : (uint64_t)step);
    return &p->streams[turn % p->n_streams];
}

penstock_status pnsk_flush_before_waiting(penstock *p, const pnsk_stream *stream, uint64_t size)
{
    penstock_status status = PENSTOCK_OK;
    if (!pnsk_stream_may_send(stream, size))
        for (uint32_t i = 0; i < p->n_streams && status == PENSTOCK_OK; i++)
            status = pnsk_stream_flush(&p->streams[i], &p->error);
    return status;
}

static penstock_status send_piece(penstock *p, const pnsk_header *header, const void *data, uint64_t size)
{
    pnsk_stream *stream = pnsk_stream_of(p, header->step);
    const penstock_status status = pnsk_flush_before_waiting(p, stream, size);
    return status == PENSTOCK_OK ? pnsk_stream_send(stream, header, data, (size_t)size, &p->error) : status;
}

penstock_status pnsk_send_pieces(penstock *p, size_t field, int64_t step, double time, const void *data, uint64_t offset,
                                 uint64_t count)
{
    penstock_status status = pnsk_heartbeat_check(p->beat, &p->error);
    pnsk_header header = pnsk_header_of(p, PNSK_PIECE);
    header.step = step;
    header.field = p->accept.ids[field];
    header.dtype = (uint8_t)p->fields[field].dtype;
    header.time = time;
    const uint64_t width = pnsk_dtype_bytes(header.dtype);
    const uint64_t components = p->fields[field].components;
    const uint64_t points = PNSK_MAX_PIECE / (width * components);
    const uint64_t most = (points > 0 ? points : 1) * components; /* a list of indices needs whole points */
    for (uint64_t sent = 0; sent < count && status == PENSTOCK_OK; sent += header.count) {
        header.offset = offset + sent;
        header.count = count - sent < most ? count - sent : most;
        status = send_piece(p, &header, (const char *)data + sent * width, header.count * width);
    }
    return status;
}

penstock_status penstock_send(penstock *p, size_t field, int64_t step, double time, penstock_dtype dtype,
                              const void *data, uint64_t offset, uint64_t count)
{
    if (p->broken != PENSTOCK_OK)
        return p->broken;
    penstock_status status = check_piece(p, field, step, dtype, data, offset, count);
    if (status != PENSTOCK_OK)
        return status;
    if (step > p->last_step) {
        status = pnsk_row_end(p);
        p->last_step = step;
        for (uint32_t i = 0; i < p->accept.count; i++)
            p->fields[i].step_elements = 0;
        if (status == PENSTOCK_OK)
            status = pnsk_row_begin(p, step, time);
    }
    p->fields[field].sent = true;
    const bool sends = count != 0 && (!p->fields[field].is_static || p->accept.wanted[field]);
    if (status == PENSTOCK_OK && sends) { /* else a rank without cells, or geometry that the server already has */
        if (pnsk_row_takes(p, field, time, offset))
            pnsk_row_put(p, field, data, count);
        else {
            status = pnsk_row_break(p);
            if (status == PENSTOCK_OK)
                status = pnsk_send_pieces(p, field, step, time, data, offset, count);
        }
    }
    p->fields[field].step_elements += count;
    return pnsk_settle(p, status);
}

/* The server would drop a time step that is not whole. A rank among several may hold no part of a field. */
static penstock_status check_whole(penstock *p, const char *call)
{
    for (uint32_t i = 0; p->ranks == 1 && p->last_step >= 0 && i < p->accept.count; i++) {
        const pnsk_announced *f = &p->fields[i];
        if (!f->is_static && f->step_elements < f->size)
            return pnsk_bad(p, "%s: %" PRIu64 " of %" PRIu64 " elements of field %s have been sent in time step %" PRId64
                       ": send all fields of a time step", call, f->step_elements, f->size, f->name, p->last_step);
    }
    return PENSTOCK_OK;
}

penstock_status penstock_step_sent(penstock *p)
{
    if (p->broken != PENSTOCK_OK)
        return p->broken;
    if (!p->announced || p->last_step < 0)
        return pnsk_bad(p, "penstock_step_sent: no time step has been sent");
    penstock_status status = check_whole(p, "penstock_step_sent");
    if (status != PENSTOCK_OK)
        return status;
    status = pnsk_row_end(p);
    if (status == PENSTOCK_OK)
        status = pnsk_stream_step_sent(pnsk_stream_of(p, p->last_step), &p->error);
    for (uint32_t i = 0; i < p->n_streams && status == PENSTOCK_OK; i++) /* the other trainer ranks wait, too */
        status = pnsk_stream_flush_old(&p->streams[i], &p->error);
    return pnsk_settle(p, status != PENSTOCK_OK ? status : pnsk_heartbeat_check(p->beat, &p->error));
}

penstock_status penstock_flush(penstock *p)
{
    penstock_status status = p->broken != PENSTOCK_OK ? p->broken : pnsk_row_break(p);
    for (uint32_t i = 0; i < p->n_streams && status == PENSTOCK_OK; i++)
        status = pnsk_stream_flush(&p->streams[i], &p->error);
    return pnsk_settle(p, status);
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
    const pnsk_header header = pnsk_header_of(p, PNSK_FINISH);
    pnsk_message answer;
    const penstock_status status = pnsk_request(p, header, &payload, PNSK_FINISHED, deadline_ms, &answer);
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
        return pnsk_bad(p, "penstock_finish: no simulation has been begun");
    penstock_status status = p->announced ? check_whole(p, "penstock_finish") : PENSTOCK_OK;
    if (status != PENSTOCK_OK)
        return status;
    const uint32_t n = p->announced ? p->n_streams : 0;
    status = pnsk_row_end(p);
    for (uint32_t i = 0; i < n && status == PENSTOCK_OK; i++)
        status = pnsk_stream_request_end(&p->streams[i], &p->error);
    for (uint32_t i = 0; i < n && status == PENSTOCK_OK; i++)
        status = pnsk_stream_await_end(&p->streams[i], &p->error);
    if (status == PENSTOCK_OK)
        status = send_finish(p, PNSK_OUTCOME_FINISHED, "", 0);
    return pnsk_settle(p, status);
}

penstock_status penstock_fail(penstock *p, const char *message)
{
    if (!p->begun)
        return pnsk_bad(p, "penstock_fail: no simulation has been begun");
    const pnsk_error why = p->error;
    p->row = NULL; /* the flush forgets the row that is not whole */
    for (uint32_t i = 0; i < p->n_streams && p->broken == PENSTOCK_OK; i++) /* the control connection tells what is wrong */
        (void)pnsk_stream_flush(&p->streams[i], &p->error);
    const penstock_status status = send_finish(p, PNSK_OUTCOME_FAILED, message, pnsk_now_ms() + FAIL_WAIT_MS);
    if (status == PENSTOCK_OK)
        p->error = why; /* keep the error for which the caller reports the failure */
    else if (status == PENSTOCK_NO_CONNECTION)
        snprintf(p->error.text, sizeof p->error.text, "the server did not take note of the failure within %d s",
                 FAIL_WAIT_MS / 1000);
    return status;
}

penstock_status penstock_abandon(penstock *p, const char *message)
{
    (void)penstock_fail(p, message); /* best effort: the server notices the end of this process anyway */
    snprintf(p->error.text, sizeof p->error.text, "%.1900s", message != NULL ? message : "");
    return pnsk_settle(p, PENSTOCK_ABANDONED);
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
        while (zmq_ctx_term(p->context) != 0 && zmq_errno() == EINTR)
            ;
    pnsk_forget_fields(p);
    free(p->hello.data);
    pnsk_wipe(&p->server, sizeof p->server);
    pnsk_assign_free(&p->assign);
    pnsk_welcome_free(&p->welcome);
    free(p);
}

const char *penstock_error(const penstock *p)
{
    return p == NULL ? "out of memory" : p->error.text;
}
