/* penstock_announce and penstock_indices. */
#include "penstock_handle.h"
#include "penstock_text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DIMENSIONS 8

void pnsk_forget_fields(penstock *p)
{
    for (uint32_t i = 0; p->fields != NULL && i < p->accept.count; i++)
        free(p->fields[i].name);
    free(p->fields);
    p->fields = NULL;
    pnsk_accept_free(&p->accept);
}

/* Set the number of elements of a field; false if the announcement is invalid. */
static bool elements(const penstock_field *field, uint64_t *out)
{
    if (field->name == NULL || *field->name == '\0' || strlen(field->name) > 255 || field->components == 0 ||
        field->n_dimensions == 0 || field->n_dimensions > MAX_DIMENSIONS || pnsk_dtype_bytes((uint8_t)field->dtype) == 0 ||
        !pnsk_is_utf8((const uint8_t *)field->name, strlen(field->name)))
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
        return pnsk_no_memory(p);
    for (uint32_t i = 0; i < p->accept.count; i++) {
        pnsk_announced *f = &p->fields[i];
        f->name = strdup(fields[i].name);
        if (f->name == NULL)
            return pnsk_no_memory(p);
        f->dtype = fields[i].dtype;
        f->is_static = fields[i].is_static != 0;
        f->components = fields[i].components;
        (void)elements(&fields[i], &f->size); /* valid: checked before sending */
    }
    pnsk_lay_out_rows(p);
    return PENSTOCK_OK;
}

static penstock_status begin_streams(penstock *p)
{
    pnsk_buffer payload = {0};
    pnsk_begin_pack(&payload, p->ranks, p->assign.parameters, p->assign.n_parameters);
    const pnsk_header header = pnsk_header_of(p, PNSK_BEGIN);
    penstock_status status = payload.failed ? pnsk_no_memory(p) : PENSTOCK_OK;
    for (uint32_t i = 0; i < p->n_streams && status == PENSTOCK_OK; i++)
        status = pnsk_stream_begin(&p->streams[i], &header, &payload, p->ranks, &p->error);
    free(payload.data);
    return status;
}

penstock_status penstock_announce(penstock *p, const penstock_field *fields, size_t count)
{
    if (p->broken != PENSTOCK_OK)
        return p->broken;
    if (!p->begun || p->announced)
        return pnsk_bad(p, "penstock_announce: call it once, after penstock_begin");
    if (count == 0 || count > PNSK_MAX_ITEMS)
        return pnsk_bad(p, "penstock_announce: %zu fields; expected 1 to %u", count, PNSK_MAX_ITEMS);
    uint64_t size = 0;
    for (size_t i = 0; i < count; i++)
        if (!elements(&fields[i], &size))
            return pnsk_bad(p, "field %zu (\"%.100s\"): expected a name of at most 255 bytes of UTF-8, a known dtype, at least 1 component "
                       "and a shape of 1 to %d dimensions, none of them 0",
                       i, fields[i].name != NULL ? fields[i].name : "", MAX_DIMENSIONS);
    pnsk_buffer payload = {0};
    pnsk_announce_pack(&payload, fields, (uint32_t)count);
    const pnsk_header header = pnsk_header_of(p, PNSK_ANNOUNCE);
    pnsk_message answer;
    penstock_status status = pnsk_request(p, header, &payload, PNSK_ACCEPT, 0, &answer);
    free(payload.data);
    if (status != PENSTOCK_OK)
        return pnsk_settle(p, status);
    pnsk_forget_fields(p);
    if (!pnsk_accept_unpack(zmq_msg_data(&answer.payload), zmq_msg_size(&answer.payload), &p->accept, &p->error))
        status = pnsk_unreadable(&p->error);
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
    return pnsk_settle(p, status);
}

/* Send the list of points to every trainer rank that receives pieces of the field. */
static penstock_status send_indices(penstock *p, size_t field, const int64_t *points, uint64_t count)
{
    const pnsk_announced *f = &p->fields[field];
    const bool wide = f->size / f->components > INT32_MAX;
    pnsk_buffer payload = {0};
    pnsk_indices_pack(&payload, points, count, wide);
    pnsk_header header = pnsk_header_of(p, PNSK_INDICES);
    header.field = p->accept.ids[field];
    header.count = count;
    header.dtype = (uint8_t)(wide ? PENSTOCK_INT64 : PENSTOCK_INT32);
    const uint32_t n = f->is_static ? 1 : p->n_streams;
    penstock_status status = payload.failed ? pnsk_no_memory(p) : PENSTOCK_OK;
    for (uint32_t i = 0; i < n && status == PENSTOCK_OK; i++)
        status = pnsk_link_send(&p->streams[i].link, &header, &payload, &p->error);
    free(payload.data);
    return status;
}

penstock_status penstock_indices(penstock *p, size_t field, const int64_t *points, uint64_t count)
{
    if (p->broken != PENSTOCK_OK)
        return p->broken;
    if (!p->announced || field >= p->accept.count)
        return pnsk_bad(p, "penstock_indices: field %zu; announce the fields first", field);
    pnsk_announced *f = &p->fields[field];
    if (f->listed || f->sent)
        return pnsk_bad(p, "field %s: call penstock_indices once, before its first piece", f->name);
    if (points == NULL && count != 0)
        return pnsk_bad(p, "field %s: no indices", f->name);
    const uint64_t whole = f->size / f->components;
    for (uint64_t i = 0; i < count; i++)
        if (points[i] < 0 || (uint64_t)points[i] >= whole)
            return pnsk_bad(p, "field %s: index %" PRId64 ", expected 0 to %" PRIu64, f->name, points[i], whole - 1);
    penstock_status status = penstock_flush(p); /* rows must precede the list */
    p->row_bytes = 0;
    if (status == PENSTOCK_OK && count != 0 && !(f->is_static && !p->accept.wanted[field]))
        status = send_indices(p, field, points, count);
    f->listed = true;
    f->size = count * f->components;
    return pnsk_settle(p, status);
}
