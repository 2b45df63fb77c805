#include "penstock_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SHARED_BLOCK (512u * 1024) /* bytes of a block in shared memory; such blocks stay in a processor's cache */
#define TIME_BYTES 8               /* of a row after the first */

/* Bytes of rows that one message may hold; more where they do not travel. */
static uint64_t held_bytes(const pnsk_stream *stream)
{
    uint64_t shared = stream->welcome->credit_bytes / 8;
    shared = !stream->takes ? 0 : shared < SHARED_BLOCK ? shared : SHARED_BLOCK;
    return shared > stream->welcome->coalesce_bytes ? shared : stream->welcome->coalesce_bytes;
}

static bool follows(const pnsk_rows *rows, int64_t step)
{
    if (rows->number == 1)
        return step > rows->first;
    return step == rows->first + (int64_t)rows->number * rows->distance;
}

/* Find room for as many rows as one message may hold, at least one. */
static bool make_room(pnsk_stream *stream, uint64_t row_bytes)
{
    pnsk_rows *rows = &stream->rows;
    const uint64_t held = held_bytes(stream);
    const uint64_t room = 2 * row_bytes > held ? 1 : held / row_bytes;
    const uint64_t size = room * row_bytes + (room - 1) * TIME_BYTES;
    *rows = (pnsk_rows){.row_bytes = row_bytes, .room = (size_t)room, .distance = 1};
    rows->times = malloc((size_t)room * sizeof *rows->times);
    if (rows->times == NULL)
        return false;
    rows->bytes = stream->takes ? pnsk_memory_find(&stream->memory, size, &rows->place) : NULL;
    rows->shared = rows->bytes != NULL;
    if (!rows->shared)
        rows->bytes = malloc((size_t)size);
    return rows->bytes != NULL;
}

void pnsk_rows_close(pnsk_stream *stream)
{
    if (!stream->rows.shared)
        free(stream->rows.bytes);
    free(stream->rows.times);
    stream->rows = (pnsk_rows){0};
}

static penstock_status no_memory(uint64_t size, pnsk_error *error)
{
    snprintf(error->text, sizeof error->text, "out of memory for time steps of %llu bytes", (unsigned long long)size);
    return PENSTOCK_NO_MEMORY;
}

penstock_status pnsk_rows_begin(pnsk_stream *stream, uint64_t row_bytes, int64_t step, double time, uint8_t **row,
                                pnsk_error *error)
{
    pnsk_rows *rows = &stream->rows;
    penstock_status status = pnsk_stream_make_room(stream, row_bytes + TIME_BYTES, error);
    if (status == PENSTOCK_OK && (stream->n_pending > 0 || (rows->number > 0 && !follows(rows, step))))
        status = pnsk_stream_flush(stream, error);
    if (status != PENSTOCK_OK)
        return status;
    if (rows->number == 0) {
        pnsk_rows_close(stream);
        if (!make_room(stream, row_bytes)) {
            pnsk_rows_close(stream);
            return no_memory(row_bytes, error);
        }
        rows->first = step;
        stream->pending_since_ms = pnsk_now_ms();
    } else if (rows->number == 1)
        rows->distance = step - rows->first;
    rows->times[rows->number] = time;
    rows->open = true;
    stream->sent += row_bytes + (rows->number > 0 ? TIME_BYTES : 0);
    stream->bytes += row_bytes + (rows->number > 0 ? TIME_BYTES : 0);
    *row = rows->bytes + rows->number * row_bytes;
    return PENSTOCK_OK;
}

penstock_status pnsk_rows_end(pnsk_stream *stream, pnsk_error *error)
{
    stream->rows.open = false;
    stream->rows.number++;
    return stream->rows.number == stream->rows.room ? pnsk_stream_flush(stream, error) : PENSTOCK_OK;
}

void pnsk_rows_drop(pnsk_stream *stream)
{
    pnsk_rows *rows = &stream->rows;
    if (!rows->open)
        return;
    rows->open = false;
    stream->sent -= rows->row_bytes + (rows->number > 0 ? TIME_BYTES : 0);
    stream->bytes -= rows->row_bytes + (rows->number > 0 ? TIME_BYTES : 0);
}

static void release(void *data, void *hint)
{
    (void)hint;
    free(data);
}

penstock_status pnsk_rows_flush(pnsk_stream *stream, pnsk_error *error)
{
    pnsk_rows *rows = &stream->rows;
    pnsk_rows_drop(stream);
    if (rows->number == 0)
        return PENSTOCK_OK;
    const size_t values = rows->number * (size_t)rows->row_bytes, times = (rows->number - 1) * TIME_BYTES;
    if (times > 0)
        memcpy(rows->bytes + values, rows->times + 1, times);
    pnsk_header header = stream->opened;
    header.kind = rows->shared ? PNSK_BLOCK | PNSK_REFERENCE : PNSK_BLOCK;
    header.step = rows->first;
    header.offset = (uint64_t)rows->distance;
    header.count = rows->number;
    header.time = rows->times[0];
    stream->pieces++;
    penstock_status status;
    if (rows->shared) {
        uint8_t reference[PNSK_REFERENCE_BYTES];
        pnsk_reference_pack(rows->place, values + times, reference);
        pnsk_memory_keep(&stream->memory, rows->place, values + times, stream->bytes);
        const pnsk_buffer payload = {reference, sizeof reference, sizeof reference, false};
        status = pnsk_link_send(&stream->link, &header, &payload, error);
    } else {
        zmq_msg_t parts[2];
        status = zmq_msg_init_size(&parts[0], PNSK_HEADER_BYTES) == 0 ? PENSTOCK_OK : no_memory(values, error);
        if (status == PENSTOCK_OK && zmq_msg_init_data(&parts[1], rows->bytes, values + times, release, NULL) != 0) {
            zmq_msg_close(&parts[0]);
            status = no_memory(values, error);
        }
        if (status == PENSTOCK_OK) {
            rows->bytes = NULL; /* the message's now */
            pnsk_header_pack(&header, zmq_msg_data(&parts[0]));
            status = pnsk_link_send_parts(&stream->link, parts, 2, error);
        }
    }
    pnsk_rows_close(stream);
    return status;
}
