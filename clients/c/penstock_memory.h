/* Memory of this process that a server on the same node reads: payloads go there in place of a message (SHARE of
 * docs/wire-format.md).
 *
 * It has no name (memfd_create), so nothing is left of it when both processes have ended, however they end. It can neither
 * shrink nor lose pages, so a server that has mapped it can read what was once written for as long as it likes. */
#ifndef PENSTOCK_MEMORY_H
#define PENSTOCK_MEMORY_H

#include "penstock_ring.h"
#include "penstock_wire.h"

#define PNSK_SMALLEST_SHARED 4096 /* bytes; smaller payloads go in the message, where they cost less */

/* The memory of one data connection. bytes: NULL where there is none. */
typedef struct {
    uint8_t *bytes;
    int descriptor;
    pnsk_share share;
    pnsk_ring ring;
} pnsk_memory;

/* Make memory for `window` payload bytes under way. Where the system has no such memory, memory->bytes stays NULL.
 * Returns PENSTOCK_NO_MEMORY where an allocation fails. */
penstock_status pnsk_memory_open(pnsk_memory *memory, uint64_t window, pnsk_error *error);

/* Give the memory back, once the trainer rank has done so too. Does nothing where there is none. */
void pnsk_memory_close(pnsk_memory *memory);

/* Find room for a payload of `size` bytes and set *at to its place. Returns where to write it. Returns NULL if the
 * payload must go in the message: it is small, there is no memory, or no room is free. */
void *pnsk_memory_find(pnsk_memory *memory, uint64_t size, uint64_t *at);

/* Keep the payload that was written to the place found last. mark: payload bytes sent up to its end. */
void pnsk_memory_keep(pnsk_memory *memory, uint64_t at, uint64_t size, uint64_t mark);

/* Use the bytes of payloads again that the trainer rank has dealt with: those with marks up to `mark`. */
void pnsk_memory_release(pnsk_memory *memory, uint64_t mark);

#endif
