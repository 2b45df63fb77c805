/* Requests to the coordinator, and error texts. */
#include "penstock_handle.h"

#include <stdarg.h>
#include <stdio.h>

#define MOST_HELLOS 20 /* in one request: the server forgets a client once for each connection that breaks */

penstock_status pnsk_bad(penstock *p, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(p->error.text, sizeof p->error.text, format, args);
    va_end(args);
    return PENSTOCK_BAD_ARGUMENT;
}

penstock_status pnsk_settle(penstock *p, penstock_status status)
{
    if (status != PENSTOCK_OK && p->broken == PENSTOCK_OK)
        p->broken = status;
    return status;
}

penstock_status pnsk_no_memory(penstock *p)
{
    snprintf(p->error.text, sizeof p->error.text, "out of memory");
    return pnsk_settle(p, PENSTOCK_NO_MEMORY);
}

pnsk_header pnsk_header_of(const penstock *p, uint8_t kind)
{
    pnsk_header header = p->base;
    header.kind = kind;
    return header;
}

/* Meaning of a message for a request. NO_HELLO: the connection is a new one, which needs HELLO first. */
typedef enum { ANSWERED, UNRELATED, NO_HELLO } verdict;

static verdict judge(penstock *p, const pnsk_header *asked, uint8_t expected, pnsk_message *answer, penstock_status *status)
{
    if (answer->header.kind == PNSK_REFUSE && (answer->header.offset == asked->offset || answer->header.offset == 0)) {
        uint32_t reason = 0;
        *status = pnsk_refused(answer, &reason, &p->error);
        return reason == PNSK_NO_HELLO ? NO_HELLO : ANSWERED;
    }
    if (answer->header.offset != asked->offset) { /* a second answer to a repeated request */
        zmq_msg_close(&answer->payload);
        return UNRELATED;
    }
    *status = PENSTOCK_OK;
    if (answer->header.kind == expected)
        return ANSWERED;
    zmq_msg_close(&answer->payload);
    if (answer->header.kind == PNSK_NO_MORE) {
        snprintf(p->error.text, sizeof p->error.text, "the study has ended; no more simulations are wanted");
        *status = PENSTOCK_ABANDONED;
    } else {
        snprintf(p->error.text, sizeof p->error.text, "%s in answer to %s, expected %s", pnsk_kind_name(answer->header.kind),
                 pnsk_kind_name(asked->kind), pnsk_kind_name(expected));
        *status = PENSTOCK_BAD_MESSAGE;
    }
    return ANSWERED;
}

static penstock_status send_hello(penstock *p)
{
    pnsk_header header = pnsk_header_of(p, PNSK_HELLO);
    header.simulation = -1;
    header.attempt = 0;
    return pnsk_link_send(&p->control, &header, &p->hello, &p->error);
}

penstock_status pnsk_converse(penstock *p, const pnsk_header *header, const pnsk_buffer *payload, uint8_t expected,
                                int64_t deadline_ms, pnsk_message *answer)
{
    int64_t next_ms = 0;
    unsigned hellos = 0;
    for (;;) {
        penstock_status status = PENSTOCK_OK;
        if (pnsk_now_ms() >= next_ms) {
            status = pnsk_link_send(&p->control, header, payload, &p->error);
            next_ms = pnsk_now_ms() + PNSK_ASK_MS;
        }
        bool got = false;
        if (status == PENSTOCK_OK)
            status = pnsk_link_receive(&p->control, PNSK_WAIT_MS, &got, answer, &p->error);
        if (status != PENSTOCK_OK)
            return status;
        if (got) {
            const verdict found = judge(p, header, expected, answer, &status);
            if (found == ANSWERED)
                return status;
            if (found == UNRELATED)
                continue;
            if (++hellos > MOST_HELLOS || (status = send_hello(p)) != PENSTOCK_OK)
                return status;
            next_ms = hellos == 1 ? 0 : pnsk_now_ms() + PNSK_WAIT_MS;
        }
        /* The failure of a simulation that is no longer wanted is reported all the same. */
        status = p->beat != NULL ? pnsk_heartbeat_check(p->beat, &p->error) : PENSTOCK_OK;
        if (status != PENSTOCK_OK && !(status == PENSTOCK_ABANDONED && header->kind == PNSK_FINISH && deadline_ms != 0))
            return status;
        if (deadline_ms != 0 && (pnsk_now_ms() > deadline_ms || p->control.rejected))
            return PENSTOCK_NO_CONNECTION;
    }
}

penstock_status pnsk_request(penstock *p, pnsk_header header, const pnsk_buffer *payload, uint8_t expected,
                               int64_t deadline_ms, pnsk_message *answer)
{
    if (payload->failed)
        return pnsk_no_memory(p);
    header.offset = ++p->number;
    return pnsk_converse(p, &header, payload, expected, deadline_ms, answer);
}
