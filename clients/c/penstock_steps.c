/* Time steps that this process sends as a whole: their pieces are gathered in a row. */
#include "penstock_handle.h"
#include "penstock_rows.h"

#include <stdlib.h>
#include <string.h>

void pnsk_lay_out_rows(penstock *p)
{
    uint64_t size = 0;
    for (uint32_t i = 0; i < p->accept.count; i++) {
        pnsk_announced *f = &p->fields[i];
        const uint64_t bytes = f->is_static ? 0 : f->size * pnsk_dtype_bytes((uint8_t)f->dtype);
        size = bytes > PNSK_MAX_PIECE || size > PNSK_MAX_PIECE ? PNSK_MAX_PIECE + 1u : size + bytes;
        f->row_offset = 0;
        for (uint32_t j = 0; j < p->accept.count; j++) /* fields lie by rising id */
            if (!p->fields[j].is_static && p->accept.ids[j] < p->accept.ids[i])
                f->row_offset += p->fields[j].size * pnsk_dtype_bytes((uint8_t)p->fields[j].dtype);
    }
    p->row = NULL;
    p->row_bytes = p->ranks == 1 && size <= PNSK_MAX_PIECE ? size : 0;
}

penstock_status pnsk_row_begin(penstock *p, int64_t step, double time)
{
    pnsk_stream *stream = pnsk_stream_of(p, step);
    penstock_status status = p->row_bytes != 0 ? pnsk_heartbeat_check(p->beat, &p->error) : PENSTOCK_OK;
    if (p->row_bytes == 0 || status != PENSTOCK_OK)
        return status;
    status = pnsk_flush_before_waiting(p, stream, p->row_bytes + sizeof time);
    if (status == PENSTOCK_OK)
        status = pnsk_rows_begin(stream, p->row_bytes, step, time, &p->row, &p->error);
    p->row_time = time;
    return status;
}

bool pnsk_row_takes(const penstock *p, size_t field, double time, uint64_t offset)
{
    const pnsk_announced *f = &p->fields[field];
    return p->row != NULL && !f->is_static && offset == f->step_elements && memcmp(&time, &p->row_time, sizeof time) == 0;
}

void pnsk_row_put(penstock *p, size_t field, const void *data, uint64_t count)
{
    const pnsk_announced *f = &p->fields[field];
    const uint64_t width = pnsk_dtype_bytes((uint8_t)f->dtype);
    if (count != 0)
        memcpy(p->row + f->row_offset + f->step_elements * width, data, (size_t)(count * width));
}

penstock_status pnsk_row_end(penstock *p)
{
    if (p->row == NULL)
        return PENSTOCK_OK;
    for (uint32_t i = 0; i < p->accept.count; i++)
        if (!p->fields[i].is_static && p->fields[i].step_elements < p->fields[i].size)
            return pnsk_row_break(p);
    p->row = NULL;
    return pnsk_rows_end(pnsk_stream_of(p, p->last_step), &p->error);
}

penstock_status pnsk_row_break(penstock *p)
{
    if (p->row == NULL)
        return PENSTOCK_OK;
    uint8_t *copy = malloc((size_t)p->row_bytes); /* the row's bytes are free from now on, and pieces may get them */
    if (copy == NULL)
        return pnsk_no_memory(p);
    memcpy(copy, p->row, (size_t)p->row_bytes);
    p->row = NULL;
    pnsk_rows_drop(pnsk_stream_of(p, p->last_step));
    penstock_status status = PENSTOCK_OK;
    for (uint32_t i = 0; i < p->accept.count && status == PENSTOCK_OK; i++)
        if (!p->fields[i].is_static && p->fields[i].step_elements > 0)
            status = pnsk_send_pieces(p, i, p->last_step, p->row_time, copy + p->fields[i].row_offset, 0,
                                      p->fields[i].step_elements);
    free(copy);
    return status;
}
