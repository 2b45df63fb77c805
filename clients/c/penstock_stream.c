#include "penstock_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

penstock_status pnsk_stream_open(pnsk_stream *stream, void *context, const pnsk_connect_file *server,
                                 const pnsk_welcome *welcome, uint32_t trainer_rank, pnsk_heartbeat *beat,
                                 pnsk_error *error)
{
    memset(stream, 0, sizeof *stream);
    stream->welcome = welcome;
    stream->beat = beat;
    stream->settled = true;
    return pnsk_link_open(&stream->link, context, server, welcome->rank_endpoints[trainer_rank], "a trainer rank", false,
                          error);
}

static bool ours(const pnsk_stream *stream, const pnsk_header *header)
{
    return header->simulation == stream->opened.simulation && header->attempt == stream->opened.attempt;
}

/* The rank counts bytes from the start of the connection, and libzmq may have reconnected since the last simulation. Its
 * answer to BEGIN gives its count: it has processed everything that came before BEGIN. */
static void take_credit(pnsk_stream *stream, uint64_t count)
{
    if (!stream->has_credit) {
        stream->has_credit = true;
        stream->sent = count - stream->welcome->credit_bytes + stream->bytes;
        stream->limit = count;
    } else if (count > stream->limit)
        stream->limit = count;
    const int64_t dealt_with = (int64_t)(stream->limit - stream->welcome->credit_bytes - (stream->sent - stream->bytes));
    if (dealt_with > 0)
        pnsk_memory_release(&stream->memory, (uint64_t)dealt_with);
}

/* Process the rank's answer to SHARE. */
static void take_answer(pnsk_stream *stream, bool taken)
{
    if (!stream->offered)
        return;
    stream->offered = false;
    stream->takes = taken;
    stream->declined = !taken;
    if (!taken)
        pnsk_memory_close(&stream->memory);
}

/* Process one message and free it. Messages of an earlier simulation are ignored. */
static penstock_status process(pnsk_stream *stream, pnsk_message *message, pnsk_error *error)
{
    const pnsk_header *header = &message->header;
    penstock_status status = PENSTOCK_OK;
    if (header->kind == PNSK_REFUSE) {
        if (ours(stream, header) || header->attempt == 0) /* attempt 0: the rank could not read a message */
            return pnsk_refused(message, NULL, error);
    } else if (header->kind == PNSK_CREDIT) {
        if (ours(stream, header))
            take_credit(stream, header->count);
    } else if (header->kind == PNSK_SHARED) {
        if (ours(stream, header))
            take_answer(stream, header->count == 1);
    } else if (header->kind == PNSK_STREAMED) {
        if (ours(stream, header)) {
            if (!pnsk_streamed_unpack(zmq_msg_data(&message->payload), zmq_msg_size(&message->payload), &stream->streamed,
                                      error))
                status = pnsk_unreadable(error);
            stream->ended = true;
        }
    } else {
        snprintf(error->text, sizeof error->text, "%s on a data connection", pnsk_kind_name(header->kind));
        status = PENSTOCK_BAD_MESSAGE;
    }
    zmq_msg_close(&message->payload);
    return status;
}

/* Process all messages that have arrived, waiting up to timeout_ms for the first one. */
static penstock_status listen_for(pnsk_stream *stream, int timeout_ms, pnsk_error *error)
{
    bool got = true;
    for (int wait = timeout_ms; got; wait = 0) {
        pnsk_message message;
        penstock_status status = pnsk_link_receive(&stream->link, wait, &got, &message, error);
        if (status != PENSTOCK_OK)
            return status;
        if (!got)
            break;
        status = process(stream, &message, error);
        if (status != PENSTOCK_OK)
            return status;
    }
    /* Pieces in transit over a broken connection are lost; libzmq reconnects silently, so check for it here. */
    if (stream->link.cut || stream->link.rejected) {
        snprintf(error->text, sizeof error->text,
                 "%s %s at %s: the server has stopped, or the network between has failed; its log says which",
                 stream->link.cut ? "lost the connection to" : "the keys in connect.json were rejected by",
                 stream->link.peer, stream->link.endpoint);
        return PENSTOCK_SERVER_LOST;
    }
    return PENSTOCK_OK;
}

static penstock_status ask(pnsk_stream *stream, uint8_t kind, pnsk_error *error)
{
    pnsk_header question = stream->opened;
    question.kind = kind;
    return pnsk_link_send(&stream->link, &question, NULL, error);
}

/* State of a wait for the rank. */
typedef struct {
    int64_t ask_at_ms;   /* when to ask the rank next */
    int64_t interval_ms; /* between the last question and the next */
} waiting;

static waiting begin_waiting(void)
{
    return (waiting){pnsk_now_ms() + PNSK_ASK_MS, PNSK_ASK_MS};
}

/* Wait up to PNSK_WAIT_MS for messages; a failure means that waiting on is pointless. After a silent reconnect the rank has
 * forgotten this stream and sends nothing, so `question` is repeated until it answers or refuses. */
static penstock_status wait_for_rank(pnsk_stream *stream, uint8_t question, waiting *wait, pnsk_error *error)
{
    penstock_status status = listen_for(stream, PNSK_WAIT_MS, error);
    if (status == PENSTOCK_OK)
        status = pnsk_heartbeat_check(stream->beat, error);
    const int64_t now = pnsk_now_ms();
    if (status != PENSTOCK_OK || now < wait->ask_at_ms)
        return status;
    wait->interval_ms = wait->interval_ms < PNSK_ASK_MOST_MS / 2 ? 2 * wait->interval_ms : PNSK_ASK_MOST_MS;
    wait->ask_at_ms = now + wait->interval_ms;
    return ask(stream, question, error);
}

/* Offer memory to the rank. It is done for each simulation: libzmq may have reconnected since the last. */
static penstock_status offer_memory(pnsk_stream *stream, const pnsk_header *begin, pnsk_error *error)
{
    stream->takes = stream->offered = false;
    /* Pieces of a simulation that has failed may wait to be read, and nothing tells: the next gets other memory. */
    if (!stream->settled)
        pnsk_memory_close(&stream->memory);
    stream->settled = false;
    if (stream->memory.bytes == NULL && !stream->declined) {
        const penstock_status status = pnsk_memory_open(&stream->memory, stream->welcome->credit_bytes, error);
        if (status != PENSTOCK_OK)
            return status;
    }
    if (stream->memory.bytes == NULL) {
        stream->declined = true;
        return PENSTOCK_OK;
    }
    pnsk_memory_release(&stream->memory, stream->bytes); /* all of the simulation before */
    pnsk_header header = *begin;
    header.kind = PNSK_SHARE;
    pnsk_buffer payload = {0};
    pnsk_share_pack(&payload, &stream->memory.share);
    stream->offered = true;
    const penstock_status status =
        payload.failed ? PENSTOCK_NO_MEMORY : pnsk_link_send(&stream->link, &header, &payload, error);
    if (payload.failed)
        snprintf(error->text, sizeof error->text, "out of memory");
    free(payload.data);
    return status;
}

penstock_status pnsk_stream_begin(pnsk_stream *stream, const pnsk_header *header, const pnsk_buffer *begin,
                                  uint32_t ranks, pnsk_error *error)
{
    penstock_status status = pnsk_stream_flush(stream, error); /* what a failed simulation has left pending */
    if (status == PENSTOCK_OK)
        status = offer_memory(stream, header, error);
    if (status != PENSTOCK_OK)
        return status;
    stream->ended = false;
    stream->opened = *header;
    stream->shared = ranks > 1;
    stream->pieces = stream->bytes = 0;
    stream->has_credit = false;
    /* Nothing of this simulation has been sent yet, so nothing is lost; but credit counts from 0 on a new connection. */
    if (pnsk_link_was_cut(&stream->link))
        stream->sent = stream->limit = 0;
    return pnsk_link_send(&stream->link, header, begin, error);
}

/* The second condition admits a piece larger than the whole window once nothing else is in transit. */
bool pnsk_stream_may_send(const pnsk_stream *stream, uint64_t size)
{
    return stream->sent + size <= stream->limit ||
           (stream->limit > 0 && stream->sent + stream->welcome->credit_bytes <= stream->limit);
}

static penstock_status wait_for_credit(pnsk_stream *stream, uint64_t size, pnsk_error *error)
{
    const int64_t begun = pnsk_now_ms();
    waiting wait = begin_waiting();
    penstock_status status = listen_for(stream, 0, error);
    /* The rank grants more credit when an eighth of the window has been used; a large piece may need it earlier. */
    if (status == PENSTOCK_OK && size > stream->welcome->credit_bytes / 8)
        status = ask(stream, PNSK_CREDIT, error);
    while (status == PENSTOCK_OK && !pnsk_stream_may_send(stream, size))
        status = wait_for_rank(stream, PNSK_CREDIT, &wait, error);
    stream->blocked_ms += pnsk_now_ms() - begun;
    return status;
}

penstock_status pnsk_stream_flush(pnsk_stream *stream, pnsk_error *error)
{
    const size_t count = stream->n_pending;
    stream->n_pending = 0;
    stream->pending_bytes = 0;
    stream->pending_steps = 0;
    const penstock_status status = pnsk_rows_flush(stream, error);
    if (status != PENSTOCK_OK) {
        for (size_t i = 0; i < count; i++)
            zmq_msg_close(&stream->pending[i]);
        return status;
    }
    return pnsk_link_send_parts(&stream->link, stream->pending, count, error);
}

static penstock_status out_of_memory(size_t size, pnsk_error *error)
{
    snprintf(error->text, sizeof error->text, "out of memory for a piece of %zu bytes", size);
    return PENSTOCK_NO_MEMORY;
}

static bool append(pnsk_stream *stream, const void *data, size_t size)
{
    zmq_msg_t *part = &stream->pending[stream->n_pending];
    if (zmq_msg_init_size(part, size) != 0)
        return false;
    if (size != 0)
        memcpy(zmq_msg_data(part), data, size);
    stream->n_pending++;
    return true;
}

penstock_status pnsk_stream_make_room(pnsk_stream *stream, uint64_t size, pnsk_error *error)
{
    if (pnsk_stream_may_send(stream, size))
        return PENSTOCK_OK;
    const penstock_status status = pnsk_stream_flush(stream, error);
    return status == PENSTOCK_OK ? wait_for_credit(stream, size, error) : status;
}

penstock_status pnsk_stream_send(pnsk_stream *stream, const pnsk_header *header, const void *data, size_t size,
                                 pnsk_error *error)
{
    penstock_status status = pnsk_stream_make_room(stream, size, error);
    if (status == PENSTOCK_OK && stream->rows.number > 0)
        status = pnsk_stream_flush(stream, error);
    if (status != PENSTOCK_OK)
        return status;
    if (stream->n_pending + 2 > stream->room) {
        const size_t room = 2 * stream->room + 16;
        zmq_msg_t *grown = calloc(room, sizeof *grown);
        if (grown == NULL)
            return out_of_memory(size, error);
        for (size_t i = 0; i < stream->n_pending; i++) { /* realloc must not move a zmq_msg_t */
            zmq_msg_init(&grown[i]);
            zmq_msg_move(&grown[i], &stream->pending[i]);
        }
        free(stream->pending);
        stream->pending = grown;
        stream->room = room;
    }
    if (stream->n_pending == 0)
        stream->pending_since_ms = pnsk_now_ms();
    pnsk_header sent = *header;
    uint8_t raw[PNSK_HEADER_BYTES], reference[PNSK_REFERENCE_BYTES];
    uint64_t at = 0;
    void *shared = stream->takes ? pnsk_memory_find(&stream->memory, size, &at) : NULL;
    if (shared != NULL) {
        sent.kind |= PNSK_REFERENCE;
        pnsk_reference_pack(at, size, reference);
    }
    pnsk_header_pack(&sent, raw);
    if (!append(stream, raw, sizeof raw))
        return out_of_memory(size, error);
    if (!append(stream, shared != NULL ? reference : data, shared != NULL ? sizeof reference : size)) {
        zmq_msg_close(&stream->pending[--stream->n_pending]);
        return out_of_memory(size, error);
    }
    stream->pieces++;
    stream->sent += size;
    stream->bytes += size;
    if (shared != NULL) {
        memcpy(shared, data, size);
        pnsk_memory_keep(&stream->memory, at, size, stream->bytes);
    }
    stream->pending_bytes += size;
    return stream->pending_bytes >= stream->welcome->coalesce_bytes ? pnsk_stream_flush(stream, error) : status;
}

penstock_status pnsk_stream_step_sent(pnsk_stream *stream, pnsk_error *error)
{
    const int64_t now = pnsk_now_ms();
    const bool slow = now - stream->last_step_ms > stream->welcome->coalesce_ms;
    stream->last_step_ms = now;
    stream->pending_steps++;
    /* The server bounds the unfinished time steps of a simulation, so a rank must not hold back its part of many. */
    const bool many = stream->shared && stream->pending_steps >= PNSK_HELD_STEPS;
    const penstock_status status =
        slow || many ? pnsk_stream_flush(stream, error) : pnsk_stream_flush_old(stream, error);
    return status == PENSTOCK_OK ? listen_for(stream, 0, error) : status;
}

penstock_status pnsk_stream_flush_old(pnsk_stream *stream, pnsk_error *error)
{
    const bool holds = stream->n_pending != 0 || stream->rows.number != 0;
    const bool old = holds && pnsk_now_ms() - stream->pending_since_ms >= stream->welcome->coalesce_ms;
    return old ? pnsk_stream_flush(stream, error) : PENSTOCK_OK;
}

penstock_status pnsk_stream_request_end(pnsk_stream *stream, pnsk_error *error)
{
    const penstock_status status = pnsk_stream_flush(stream, error);
    return status != PENSTOCK_OK ? status : ask(stream, PNSK_END, error);
}

penstock_status pnsk_stream_await_end(pnsk_stream *stream, pnsk_error *error)
{
    penstock_status status = PENSTOCK_OK;
    waiting wait = begin_waiting();
    while (status == PENSTOCK_OK && !stream->ended)
        status = wait_for_rank(stream, PNSK_END, &wait, error);
    if (status != PENSTOCK_OK)
        return status;
    const pnsk_streamed *s = &stream->streamed;
    if (s->refused > 0) {
        snprintf(error->text, sizeof error->text, "%s at %s refused %llu pieces of this simulation; its log says why",
                 stream->link.peer, stream->link.endpoint, (unsigned long long)s->refused);
        return PENSTOCK_REFUSED;
    }
    const uint64_t arrived = s->accepted + s->duplicates;
    if (arrived != stream->pieces) {
        snprintf(error->text, sizeof error->text,
                 "%llu of %llu pieces have reached %s at %s: the connection has broken, and what was on the way is lost; the "
                 "simulation must be run again",
                 (unsigned long long)arrived, (unsigned long long)stream->pieces, stream->link.peer, stream->link.endpoint);
        return PENSTOCK_SERVER_LOST;
    }
    stream->settled = true;
    return PENSTOCK_OK;
}

void pnsk_stream_close(pnsk_stream *stream, int linger_ms)
{
    for (size_t i = 0; i < stream->n_pending; i++)
        zmq_msg_close(&stream->pending[i]);
    free(stream->pending);
    stream->pending = NULL;
    stream->n_pending = stream->room = 0;
    pnsk_rows_close(stream);
    pnsk_link_close(&stream->link, linger_ms);
    pnsk_memory_close(&stream->memory);
}
