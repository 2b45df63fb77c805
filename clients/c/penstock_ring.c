#include "penstock_ring.h"

#include <stdlib.h>
#include <string.h>

bool pnsk_ring_open(pnsk_ring *ring, uint64_t first, uint64_t size, size_t room)
{
    *ring = (pnsk_ring){.first = first, .size = size, .head = first, .turn = first + (size - first) / 8, .room = room};
    ring->placed = calloc(room, sizeof *ring->placed);
    return ring->placed != NULL;
}

void pnsk_ring_close(pnsk_ring *ring)
{
    free(ring->placed);
    memset(ring, 0, sizeof *ring);
}

static uint64_t aligned(uint64_t size)
{
    return (size + PNSK_ALIGNMENT - 1) / PNSK_ALIGNMENT * PNSK_ALIGNMENT;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

bool pnsk_ring_find(pnsk_ring *ring, uint64_t size, uint64_t *at)
{
    if (ring->count == ring->room || size > ring->size)
        return false;
    const uint64_t needed = aligned(size);
    if (ring->count == 0) {
        *at = ring->first;
        return ring->first + needed <= ring->size;
    }
    const uint64_t tail = ring->placed[ring->oldest].at;
    *at = ring->head;
    if (ring->head <= tail) { /* the newest payload lies below the oldest */
        if (ring->head + needed <= tail)
            return true;
        ring->turn = least(2 * ring->turn, ring->size);
        return false;
    }
    if (ring->head + needed <= ring->turn)
        return true;
    if (ring->first + needed <= tail) {
        *at = ring->first;
        return true;
    }
    if (ring->head + needed > ring->size)
        return false;
    if (ring->head + needed > ring->turn)
        ring->turn = ring->head + needed;
    return true;
}

void pnsk_ring_place(pnsk_ring *ring, uint64_t at, uint64_t size, uint64_t mark)
{
    ring->head = at + aligned(size);
    ring->placed[(ring->oldest + ring->count) % ring->room] = (pnsk_placed){at, mark};
    ring->count++;
}

void pnsk_ring_release(pnsk_ring *ring, uint64_t mark)
{
    while (ring->count > 0 && ring->placed[ring->oldest].mark <= mark) {
        ring->oldest = (ring->oldest + 1) % ring->room;
        ring->count--;
    }
}
