/* Which bytes of a shared memory are free: payloads are placed one after another and given back in the same order. As
 * penstock_client.ring. */
#ifndef PENSTOCK_RING_H
#define PENSTOCK_RING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PNSK_ALIGNMENT 64 /* bytes; a payload begins at a multiple, as fast copies like it */

typedef struct {
    uint64_t at;
    uint64_t mark;
} pnsk_placed;

/* The bytes that have ever been used are one stretch from `first`. At first the ring is a small part of the range, likely
 * to stay in a processor's cache, and a larger one once that has been full. */
typedef struct {
    uint64_t first, size; /* first byte of the range; one past its last byte */
    uint64_t head;        /* where the newest payload ends */
    uint64_t turn;        /* where it goes back to the beginning */
    pnsk_placed *placed;  /* the payloads, the oldest first, from `oldest` on in a circle of `room` */
    size_t oldest, count, room;
} pnsk_ring;

/* Begin an empty ring. room: payloads that it can hold. false: out of memory. */
bool pnsk_ring_open(pnsk_ring *ring, uint64_t first, uint64_t size, size_t room);
void pnsk_ring_close(pnsk_ring *ring);

/* Set *at to the first of `size` free bytes; false if there is no room for them. They stay free until pnsk_ring_place. */
bool pnsk_ring_find(pnsk_ring *ring, uint64_t size, uint64_t *at);

/* Take the first `size` of the bytes that the last pnsk_ring_find has found. mark: number with which pnsk_ring_release gives
 * them back; none may be smaller than the one before. */
void pnsk_ring_place(pnsk_ring *ring, uint64_t at, uint64_t size, uint64_t mark);

/* Give back every payload whose mark is at most `mark`. */
void pnsk_ring_release(pnsk_ring *ring, uint64_t mark);

#endif
