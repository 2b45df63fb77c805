#include "penstock_link.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int64_t pnsk_now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Whether a call that returned `result` was interrupted by a signal and must be repeated. */
static bool interrupted(int result)
{
    return result < 0 && zmq_errno() == EINTR;
}

int pnsk_send(void *socket, const void *data, size_t size, int flags)
{
    int result;
    do
        result = zmq_send(socket, data, size, flags);
    while (interrupted(result));
    return result;
}

int pnsk_msg_send(zmq_msg_t *message, void *socket, int flags)
{
    int result;
    do
        result = zmq_msg_send(message, socket, flags);
    while (interrupted(result));
    return result;
}

int pnsk_msg_receive(zmq_msg_t *message, void *socket, int flags)
{
    int result;
    do
        result = zmq_msg_recv(message, socket, flags);
    while (interrupted(result));
    return result;
}

int pnsk_socket_connect(void *socket, const char *endpoint)
{
    int result;
    do
        result = zmq_connect(socket, endpoint);
    while (interrupted(result));
    return result;
}

/* Have libzmq report the events of a connection at the address `events`. */
static int watch(void *socket, const char *events)
{
    const int watched = ZMQ_EVENT_DISCONNECTED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
                        ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL;
    int result;
    do
        result = zmq_socket_monitor(socket, events, watched);
    while (interrupted(result));
    return result;
}

static penstock_status unusable(const pnsk_link *link, pnsk_error *error)
{
    const int code = zmq_errno();
    snprintf(error->text, sizeof error->text, "cannot connect to %s at %s: %s; is connect.json the current one?",
             link->peer, link->endpoint, zmq_strerror(code));
    return code == ENOMEM ? PENSTOCK_NO_MEMORY : PENSTOCK_NO_CONNECTION;
}

static bool set(void *socket, int option, int value)
{
    return zmq_setsockopt(socket, option, &value, sizeof value) == 0;
}

/* How long bytes may stay unacknowledged. TCP sends no keepalive then, and by itself gives up after 15 minutes. */
#define UNACKNOWLEDGED_MS 60000

/* Detect lost connections by TCP's time-outs and, on control connections, by libzmq's heartbeats. Data connections have no
 * heartbeats: they would fail while a trainer rank leaves messages unread. Interruptions shorter than the time-outs do no
 * harm. */
static bool set_keepalive(void *socket, bool control)
{
    const bool kept_alive = set(socket, ZMQ_TCP_MAXRT, UNACKNOWLEDGED_MS) && set(socket, ZMQ_TCP_KEEPALIVE, 1) && set(socket, ZMQ_TCP_KEEPALIVE_IDLE, 30) &&
                            set(socket, ZMQ_TCP_KEEPALIVE_INTVL, 10) && set(socket, ZMQ_TCP_KEEPALIVE_CNT, 3);
    return kept_alive && (!control || (set(socket, ZMQ_HEARTBEAT_IVL, 10000) && set(socket, ZMQ_HEARTBEAT_TIMEOUT, 60000) &&
                                       set(socket, ZMQ_HEARTBEAT_TTL, 60000)));
}

penstock_status pnsk_link_open(pnsk_link *link, void *context, const pnsk_connect_file *server, const char *endpoint,
                               const char *peer, bool control, pnsk_error *error)
{
    memset(link, 0, sizeof *link);
    link->peer = peer;
    snprintf(link->endpoint, sizeof link->endpoint, "%s", endpoint);
    link->socket = zmq_socket(context, ZMQ_DEALER);
    link->monitor = zmq_socket(context, ZMQ_PAIR);
    if (link->socket == NULL || link->monitor == NULL)
        return unusable(link, error);
    const int unlimited = 0; /* credit, not a number of messages, bounds what is in transit */
    const int reconnect_max_ms = 2000;
    char events[64];
    snprintf(events, sizeof events, "inproc://penstock-%p", link->socket);
    if (zmq_setsockopt(link->socket, ZMQ_SNDHWM, &unlimited, sizeof unlimited) != 0 ||
        zmq_setsockopt(link->socket, ZMQ_RCVHWM, &unlimited, sizeof unlimited) != 0 ||
        !set_keepalive(link->socket, control) ||
        zmq_setsockopt(link->socket, ZMQ_RECONNECT_IVL_MAX, &reconnect_max_ms, sizeof reconnect_max_ms) != 0 ||
        zmq_setsockopt(link->socket, ZMQ_CURVE_SERVERKEY, server->server_public_key, PNSK_Z85_KEY) != 0 ||
        zmq_setsockopt(link->socket, ZMQ_CURVE_PUBLICKEY, server->client_public_key, PNSK_Z85_KEY) != 0 ||
        zmq_setsockopt(link->socket, ZMQ_CURVE_SECRETKEY, server->client_secret_key, PNSK_Z85_KEY) != 0 ||
        watch(link->socket, events) != 0 || pnsk_socket_connect(link->monitor, events) != 0 ||
        pnsk_socket_connect(link->socket, endpoint) != 0)
        return unusable(link, error);
    return PENSTOCK_OK;
}

static penstock_status unsendable(const pnsk_link *link, pnsk_error *error)
{
    const int code = zmq_errno();
    snprintf(error->text, sizeof error->text,
             "cannot send to %s at %s (%s): the server has closed the connection; its log says why", link->peer,
             link->endpoint, zmq_strerror(code));
    return code == ENOMEM ? PENSTOCK_NO_MEMORY : PENSTOCK_SERVER_LOST;
}

penstock_status pnsk_link_send_parts(pnsk_link *link, zmq_msg_t *parts, size_t count, pnsk_error *error)
{
    penstock_status status = PENSTOCK_OK;
    for (size_t i = 0; i < count; i++) {
        const int flags = ZMQ_DONTWAIT | (i + 1 < count ? ZMQ_SNDMORE : 0);
        if (status != PENSTOCK_OK || pnsk_msg_send(&parts[i], link->socket, flags) < 0) {
            if (status == PENSTOCK_OK)
                status = unsendable(link, error);
            zmq_msg_close(&parts[i]);
        }
    }
    return status;
}

penstock_status pnsk_link_send(pnsk_link *link, const pnsk_header *header, const pnsk_buffer *payload,
                               pnsk_error *error)
{
    uint8_t raw[PNSK_HEADER_BYTES];
    pnsk_header_pack(header, raw);
    if (pnsk_send(link->socket, raw, sizeof raw, ZMQ_DONTWAIT | (payload != NULL ? ZMQ_SNDMORE : 0)) < 0)
        return unsendable(link, error);
    if (payload != NULL && pnsk_send(link->socket, payload->data, payload->size, ZMQ_DONTWAIT) < 0)
        return unsendable(link, error);
    return PENSTOCK_OK;
}

/* Read the events that libzmq has reported about the connection. */
static void read_events(pnsk_link *link)
{
    zmq_msg_t frame;
    zmq_msg_init(&frame);
    while (pnsk_msg_receive(&frame, link->monitor, ZMQ_DONTWAIT) >= 0) {
        uint16_t event = 0;
        if (zmq_msg_size(&frame) >= sizeof event)
            memcpy(&event, zmq_msg_data(&frame), sizeof event);
        while (zmq_msg_more(&frame)) /* the address, which is not needed */
            if (pnsk_msg_receive(&frame, link->monitor, 0) < 0)
                break;
        if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
            link->secured = true;
        else if (event == ZMQ_EVENT_HANDSHAKE_FAILED_AUTH)
            link->rejected = true;
        else if (event == ZMQ_EVENT_DISCONNECTED && link->secured)
            link->cut = true;
        else
            link->unreadable = true;
    }
    zmq_msg_close(&frame);
}

bool pnsk_link_was_cut(pnsk_link *link)
{
    read_events(link);
    const bool cut = link->cut;
    link->cut = false;
    return cut;
}

static penstock_status malformed(const pnsk_link *link, const char *what, pnsk_error *error)
{
    snprintf(error->text, sizeof error->text, "%s sent a message that cannot be read: %.500s", link->peer, what);
    return PENSTOCK_BAD_MESSAGE;
}

static penstock_status read_message(pnsk_link *link, zmq_msg_t *first, pnsk_message *message, pnsk_error *error)
{
    pnsk_error detail;
    const bool good = pnsk_header_unpack(zmq_msg_data(first), zmq_msg_size(first), &message->header, &detail);
    int frames = 1;
    for (bool more = zmq_msg_more(first); more; frames++) {
        if (pnsk_msg_receive(&message->payload, link->socket, 0) < 0)
            return malformed(link, "it ends in the middle", error);
        more = zmq_msg_more(&message->payload);
    }
    if (!good)
        return malformed(link, detail.text, error);
    return frames <= 2 ? PENSTOCK_OK : malformed(link, "it has more than two frames", error);
}

penstock_status pnsk_link_receive(pnsk_link *link, int timeout_ms, bool *got, pnsk_message *message, pnsk_error *error)
{
    *got = false;
    zmq_pollitem_t items[3] = {
        {link->socket, 0, ZMQ_POLLIN, 0}, {link->monitor, 0, ZMQ_POLLIN, 0}, {NULL, link->waker, ZMQ_POLLIN, 0}};
    if (zmq_poll(items, link->has_waker ? 3 : 2, timeout_ms) <= 0)
        return PENSTOCK_OK; /* nothing, or a signal: the caller decides whether to go on waiting */
    if (items[1].revents & ZMQ_POLLIN)
        read_events(link);
    zmq_msg_t first;
    zmq_msg_init(&first);
    zmq_msg_init(&message->payload);
    penstock_status status = PENSTOCK_OK;
    if (pnsk_msg_receive(&first, link->socket, ZMQ_DONTWAIT) >= 0) {
        status = read_message(link, &first, message, error);
        *got = status == PENSTOCK_OK;
    }
    zmq_msg_close(&first);
    if (!*got)
        zmq_msg_close(&message->payload);
    return status;
}

void pnsk_link_close(pnsk_link *link, int linger_ms)
{
    if (link->socket != NULL) {
        zmq_socket_monitor(link->socket, NULL, 0);
        zmq_setsockopt(link->socket, ZMQ_LINGER, &linger_ms, sizeof linger_ms);
        zmq_close(link->socket);
    }
    if (link->monitor != NULL) {
        const int none = 0;
        zmq_setsockopt(link->monitor, ZMQ_LINGER, &none, sizeof none);
        zmq_close(link->monitor);
    }
    link->socket = link->monitor = NULL;
}

penstock_status pnsk_refused(pnsk_message *message, uint32_t *reason, pnsk_error *error)
{
    pnsk_refuse refuse;
    penstock_status status = PENSTOCK_REFUSED;
    if (pnsk_refuse_unpack(zmq_msg_data(&message->payload), zmq_msg_size(&message->payload), &refuse, error)) {
        snprintf(error->text, sizeof error->text, "%.1900s (refused: %s)", refuse.text, pnsk_reason_name(refuse.reason));
        if (reason != NULL)
            *reason = refuse.reason;
        pnsk_refuse_free(&refuse);
    } else
        status = pnsk_unreadable(error);
    zmq_msg_close(&message->payload);
    return status;
}
