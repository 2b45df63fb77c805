/* Heartbeats on a thread and a connection of their own, independent of the solver's and the server's steps. */
#ifndef PENSTOCK_HEARTBEAT_H
#define PENSTOCK_HEARTBEAT_H

#include "penstock_link.h"

typedef struct pnsk_heartbeat pnsk_heartbeat;

/* Start the heartbeat, without a simulation. Returns NULL and sets `status` and `error` on failure. */
pnsk_heartbeat *pnsk_heartbeat_start(void *context, const pnsk_connect_file *server,
                                     const char *connect_file, const uint8_t client[PNSK_CLIENT_BYTES],
                                     const pnsk_welcome *welcome, penstock_status *status, pnsk_error *error);

/* Set the simulation that the heartbeat names; -1, 0 for none. */
void pnsk_heartbeat_serve(pnsk_heartbeat *beat, int64_t simulation, uint32_t attempt);

/* Evaluate the server's answers: PENSTOCK_OK, _SERVER_LOST (no answer for too long), _REFUSED, _ABANDONED or
 * _BAD_MESSAGE. */
penstock_status pnsk_heartbeat_check(pnsk_heartbeat *beat, pnsk_error *error);

/* Stop and free; `beat` may be NULL. */
void pnsk_heartbeat_stop(pnsk_heartbeat *beat);

#endif
