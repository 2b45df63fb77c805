/* Heartbeats on a thread and a connection of their own, so that a long solver step or a slow server step kills nobody. */
#ifndef PENSTOCK_HEARTBEAT_H
#define PENSTOCK_HEARTBEAT_H

#include "penstock_link.h"

typedef struct pnsk_heartbeat pnsk_heartbeat;

/* Start beating for "no simulation". NULL, and the reason in `error`, when that is not possible. */
pnsk_heartbeat *pnsk_heartbeat_start(void *context, const pnsk_connect_file *server,
                                     const uint8_t client[PNSK_CLIENT_BYTES], const pnsk_welcome *welcome,
                                     pnsk_error *error);

/* From now on beat for this simulation; -1, 0 when idle. */
void pnsk_heartbeat_serve(pnsk_heartbeat *beat, int64_t simulation, uint32_t attempt);

/* What the answers, or their absence, mean: OK, SERVER_LOST, REFUSED or ABANDONED. */
penstock_status pnsk_heartbeat_check(pnsk_heartbeat *beat, pnsk_error *error);

/* Stop and free; NULL is fine. */
void pnsk_heartbeat_stop(pnsk_heartbeat *beat);

#endif
