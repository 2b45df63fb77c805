/* The ring under random use: payloads that are there never overlap, and the bytes that were ever used are one stretch. Prints
 * how many payloads found room. Usage: ring SEED ROUNDS */
#include <stdio.h>
#include <stdlib.h>

#include "penstock_ring.h"

#define SIZE 10000u
#define ROOM 50u

static uint64_t state;

static uint64_t random_number(uint64_t below)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (state >> 33) % below;
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 100;
    const uint64_t rounds = strtoull(argv[2], NULL, 10);
    state = strtoull(argv[1], NULL, 10);
    pnsk_ring ring;
    uint64_t begins[ROOM], ends[ROOM], oldest = 0, mark = 0, used = PNSK_ALIGNMENT, found = 0;
    if (!pnsk_ring_open(&ring, PNSK_ALIGNMENT, SIZE, ROOM))
        return 101;
    for (uint64_t round = 0; round < rounds; round++) {
        uint64_t at = 0;
        const uint64_t size = 1 + random_number(random_number(8) == 0 ? SIZE : 500);
        if (pnsk_ring_find(&ring, size, &at)) {
            const uint64_t part = 1 + random_number(size); /* what is kept of it */
            if (at % PNSK_ALIGNMENT != 0 || at < PNSK_ALIGNMENT || at + size > SIZE || at > used) {
                printf("%llu bytes at %llu, of which %llu were used\n", (unsigned long long)size, (unsigned long long)at,
                       (unsigned long long)used);
                return 1;
            }
            for (uint64_t m = oldest; m < mark; m++)
                if (at < ends[m % ROOM] && begins[m % ROOM] < at + size) {
                    printf("%llu bytes at %llu overlap payload %llu\n", (unsigned long long)size, (unsigned long long)at,
                           (unsigned long long)m);
                    return 1;
                }
            begins[mark % ROOM] = at;
            ends[mark % ROOM] = at + part;
            pnsk_ring_place(&ring, at, part, ++mark);
            const uint64_t end = (at + part + PNSK_ALIGNMENT - 1) / PNSK_ALIGNMENT * PNSK_ALIGNMENT;
            used = end > used ? end : used;
            found++;
        }
        if (random_number(3) == 0) {
            oldest += random_number(mark - oldest + 1);
            pnsk_ring_release(&ring, oldest);
        }
    }
    pnsk_ring_close(&ring);
    printf("%llu\n", (unsigned long long)found);
    return 0;
}
