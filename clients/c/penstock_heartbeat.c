#include "penstock_heartbeat.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SLICE_MS 200     /* between two looks of the thread at the clock */
#define SUSPENDED_MS 1000 /* a longer pause of the thread means that the process was stopped, or had no core */
#define UNANSWERED 3      /* heartbeats without an answer after which connect.json is read again */
#define REREAD_MS 1000    /* between two readings */

struct pnsk_heartbeat {
    pthread_t thread;
    pthread_mutex_t lock; /* guards all members below except link and client, which only the thread uses once it runs */
    pnsk_link link;
    int waker[2]; /* a pipe: a byte in it tells the thread to stop at once. Without it (link.has_waker), after SLICE_MS. */
    pnsk_buffer client;
    uint8_t client_bytes[PNSK_CLIENT_BYTES];
    uint32_t incarnation;
    int64_t interval_ms, timeout_ms;
    bool stopping;
    int64_t simulation;
    uint32_t attempt;
    int64_t heard_ms;
    int64_t ran_ms; /* when the thread last looked for an answer */
    int64_t reread_ms;
    char *connect_file;
    penstock_status trouble; /* the first failure; PENSTOCK_OK if there was none */
    pnsk_error why;
};

static void hear(pnsk_heartbeat *beat, pnsk_message *message)
{
    pnsk_error error;
    penstock_status trouble = PENSTOCK_OK;
    bool abandon = false;
    if (message->header.kind == PNSK_REFUSE)
        trouble = pnsk_refused(message, NULL, &error);
    else {
        if (message->header.kind != PNSK_ALIVE) {
            trouble = PENSTOCK_BAD_MESSAGE;
            snprintf(error.text, sizeof error.text, "the coordinator answered a heartbeat with %s",
                     pnsk_kind_name(message->header.kind));
        } else if (!pnsk_alive_unpack(zmq_msg_data(&message->payload), zmq_msg_size(&message->payload), &abandon, &error))
            trouble = pnsk_unreadable(&error);
        zmq_msg_close(&message->payload);
    }
    pthread_mutex_lock(&beat->lock);
    beat->heard_ms = pnsk_now_ms();
    if (abandon && message->header.simulation == beat->simulation && message->header.attempt == beat->attempt) {
        trouble = PENSTOCK_ABANDONED;
        snprintf(error.text, sizeof error.text,
                 "the server no longer wants simulation %lld, attempt %u: the study is stopping, or another client has it",
                 (long long)beat->simulation, beat->attempt);
    }
    if (trouble != PENSTOCK_OK && beat->trouble == PENSTOCK_OK) {
        beat->trouble = trouble;
        beat->why = error;
    }
    pthread_mutex_unlock(&beat->lock);
}

static void note(pnsk_heartbeat *beat, penstock_status trouble, const pnsk_error *error)
{
    pthread_mutex_lock(&beat->lock);
    if (beat->trouble == PENSTOCK_OK) {
        beat->trouble = trouble;
        beat->why = *error;
    }
    pthread_mutex_unlock(&beat->lock);
}

static void *run(void *argument)
{
    pnsk_heartbeat *beat = argument;
    int64_t next_ms = pnsk_now_ms();
    for (;;) {
        pthread_mutex_lock(&beat->lock);
        const int64_t now = pnsk_now_ms();
        if (now - beat->ran_ms > SUSPENDED_MS) /* nobody could hear the server then */
            beat->heard_ms += now - beat->ran_ms;
        beat->ran_ms = now;
        const bool stopping = beat->stopping;
        pnsk_header header = {.kind = PNSK_HEARTBEAT,
                              .incarnation = beat->incarnation,
                              .simulation = beat->simulation,
                              .attempt = beat->attempt};
        pthread_mutex_unlock(&beat->lock);
        if (stopping)
            return NULL;
        pnsk_error error;
        penstock_status status = PENSTOCK_OK;
        if (now >= next_ms) {
            status = pnsk_link_send(&beat->link, &header, &beat->client, &error);
            next_ms = now + beat->interval_ms;
        }
        bool got = false;
        pnsk_message message;
        if (status == PENSTOCK_OK)
            status = pnsk_link_receive(&beat->link, next_ms - now < SLICE_MS ? (int)(next_ms - now) : SLICE_MS, &got,
                                       &message, &error);
        if (got)
            hear(beat, &message);
        if (status != PENSTOCK_OK) {
            note(beat, status, &error);
            return NULL;
        }
    }
}

/* Block all signals in the heartbeat's thread: the solver's handlers must run in the solver's thread. */
static int start_thread(pnsk_heartbeat *beat)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failed = pthread_create(&beat->thread, NULL, run, beat);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failed;
}

static void open_waker(pnsk_heartbeat *beat)
{
    if (pipe(beat->waker) != 0)
        return;
    for (int i = 0; i < 2; i++)
        (void)fcntl(beat->waker[i], F_SETFD, FD_CLOEXEC);
    beat->link.waker = beat->waker[0];
    beat->link.has_waker = true;
}

static void discard(pnsk_heartbeat *beat)
{
    for (int i = 0; beat->link.has_waker && i < 2; i++)
        close(beat->waker[i]);
    pnsk_link_close(&beat->link, 0);
    pthread_mutex_destroy(&beat->lock);
    free(beat->connect_file);
    free(beat);
}

pnsk_heartbeat *pnsk_heartbeat_start(void *context, const pnsk_connect_file *server,
                                     const char *connect_file, const uint8_t client[PNSK_CLIENT_BYTES],
                                     const pnsk_welcome *welcome, penstock_status *status, pnsk_error *error)
{
    pnsk_heartbeat *beat = calloc(1, sizeof *beat);
    if (beat == NULL) {
        snprintf(error->text, sizeof error->text, "out of memory for the heartbeat");
        *status = PENSTOCK_NO_MEMORY;
        return NULL;
    }
    memcpy(beat->client_bytes, client, PNSK_CLIENT_BYTES);
    beat->client = (pnsk_buffer){beat->client_bytes, PNSK_CLIENT_BYTES, PNSK_CLIENT_BYTES, false};
    beat->incarnation = server->incarnation;
    beat->interval_ms = welcome->heartbeat_ms;
    beat->timeout_ms = welcome->server_timeout_ms;
    beat->simulation = -1;
    beat->heard_ms = beat->ran_ms = pnsk_now_ms();
    beat->connect_file = strdup(connect_file); /* NULL when out of memory: it is then not read again */
    pthread_mutex_init(&beat->lock, NULL);
    int failed = 0;
    *status = pnsk_link_open(&beat->link, context, server, server->control, "the coordinator", true, error);
    if (*status == PENSTOCK_OK) {
        open_waker(beat);
        failed = start_thread(beat);
        if (failed == 0)
            return beat;
        snprintf(error->text, sizeof error->text, "cannot start the heartbeat's thread: %s; raise `ulimit -u`",
                 strerror(failed));
        *status = failed == ENOMEM ? PENSTOCK_NO_MEMORY : PENSTOCK_NO_CONNECTION;
    }
    discard(beat);
    return NULL;
}

void pnsk_heartbeat_serve(pnsk_heartbeat *beat, int64_t simulation, uint32_t attempt)
{
    pthread_mutex_lock(&beat->lock);
    beat->simulation = simulation;
    beat->attempt = attempt;
    pthread_mutex_unlock(&beat->lock);
}

/* Whether a restarted server has replaced connect.json: the old one will not answer any more. */
static bool restarted(pnsk_heartbeat *beat, pnsk_error *error)
{
    const int64_t now = pnsk_now_ms();
    if (beat->connect_file == NULL || now - beat->reread_ms < REREAD_MS)
        return false;
    beat->reread_ms = now;
    pnsk_connect_file server;
    pnsk_error ignored; /* missing or incomplete for the moment: the time-out decides */
    const bool another =
        pnsk_connect_file_read(beat->connect_file, &server, &ignored) && server.incarnation != beat->incarnation;
    if (another)
        snprintf(error->text, sizeof error->text, "the server has been restarted (as incarnation %u): connect again",
                 server.incarnation);
    pnsk_wipe(&server, sizeof server);
    return another;
}

penstock_status pnsk_heartbeat_check(pnsk_heartbeat *beat, pnsk_error *error)
{
    pthread_mutex_lock(&beat->lock);
    penstock_status status = beat->trouble;
    const int64_t silent_ms = beat->ran_ms - beat->heard_ms;
    if (status != PENSTOCK_OK)
        *error = beat->why;
    else if (silent_ms > beat->timeout_ms) {
        status = PENSTOCK_SERVER_LOST;
        snprintf(error->text, sizeof error->text,
                 "the server at %s has not answered for %.1f s (time-out %.1f s): is the study still running? "
                 "`penstock status` in its run directory tells",
                 beat->link.endpoint, (double)silent_ms / 1000, (double)beat->timeout_ms / 1000);
    }
    pthread_mutex_unlock(&beat->lock);
    if (status == PENSTOCK_OK && silent_ms > UNANSWERED * beat->interval_ms && restarted(beat, error))
        status = PENSTOCK_SERVER_LOST;
    return status;
}

void pnsk_heartbeat_stop(pnsk_heartbeat *beat)
{
    if (beat == NULL)
        return;
    pthread_mutex_lock(&beat->lock);
    beat->stopping = true;
    pthread_mutex_unlock(&beat->lock);
    if (beat->link.has_waker)
        while (write(beat->waker[1], "", 1) < 0 && errno == EINTR)
            ;
    pthread_join(beat->thread, NULL);
    discard(beat);
}
