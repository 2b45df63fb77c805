#define _GNU_SOURCE /* syscall */
#include "penstock_memory.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/syscall.h>
#endif

#define NAME "penstock" /* which /proc shows for the memory */

#if defined(__linux__) && defined(SYS_memfd_create)

/* Of linux/memfd.h and linux/fcntl.h, which older systems have without all of these. */
#define CLOSE_ON_EXEC 1u
#define ALLOW_SEALING 2u
#define ADD_SEALS 1033
#define SEAL_SEAL 1
#define SEAL_SHRINK 2
#define SEAL_GROW 4
#define SEAL_FUTURE_WRITE 16 /* without it, pages could be taken away */

/* Returns the descriptor of new memory without a name; -1 where there is none. */
static int make(uint64_t size)
{
    const int descriptor = (int)syscall(SYS_memfd_create, NAME, CLOSE_ON_EXEC | ALLOW_SEALING);
    if (descriptor >= 0 && (fchmod(descriptor, 0600) != 0 || ftruncate(descriptor, (off_t)size) != 0)) {
        close(descriptor);
        return -1;
    }
    return descriptor;
}

/* After this no mapping for writing can be made; the one that was made before stays. */
static bool seal(int descriptor)
{
    return fcntl(descriptor, ADD_SEALS, SEAL_SHRINK | SEAL_GROW | SEAL_FUTURE_WRITE | SEAL_SEAL) == 0;
}

#else

static int make(uint64_t size)
{
    (void)size;
    return -1;
}

static bool seal(int descriptor)
{
    (void)descriptor;
    return false;
}

#endif

static bool read_file(const char *path, void *out, size_t size)
{
    const int descriptor = open(path, O_RDONLY | O_CLOEXEC);
    const bool good = descriptor >= 0 && read(descriptor, out, size) == (ssize_t)size;
    if (descriptor >= 0)
        close(descriptor);
    return good;
}

/* Read the 16 bytes that the machine has chosen at its last start; other machines have others. */
static bool boot_id(uint8_t out[16])
{
    char text[37] = "";
    if (!read_file("/proc/sys/kernel/random/boot_id", text, 36))
        return false;
    const char *at = text;
    for (int i = 0; i < 16; i++, at += 2) {
        unsigned byte = 0;
        at += *at == '-';
        if (sscanf(at, "%2x", &byte) != 1)
            return false;
        out[i] = (uint8_t)byte;
    }
    return true;
}

/* Make, map and seal the memory; false where the system has none. */
static bool prepare(pnsk_memory *memory)
{
    pnsk_share *share = &memory->share;
    memory->descriptor = make(share->size);
    if (memory->descriptor < 0)
        return false;
    void *bytes = mmap(NULL, (size_t)share->size, PROT_READ | PROT_WRITE, MAP_SHARED, memory->descriptor, 0);
    if (bytes == MAP_FAILED) {
        close(memory->descriptor);
        return false;
    }
    memory->bytes = bytes;
    share->pid = (uint32_t)getpid();
    share->descriptor = (uint32_t)memory->descriptor;
    if (!seal(memory->descriptor) || !boot_id(share->boot) ||
        !read_file("/dev/urandom", share->token, sizeof share->token))
        return false;
    memcpy(memory->bytes, share->token, sizeof share->token);
    return true;
}

penstock_status pnsk_memory_open(pnsk_memory *memory, uint64_t window, pnsk_error *error)
{
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    memset(memory, 0, sizeof *memory);
    if (window > INT64_MAX / 2 || page > PNSK_MAX_PIECE)
        return PENSTOCK_OK;
    /* A payload that does not fit before the end is placed at the beginning, so one more of the largest is needed. */
    memory->share.size = (window + PNSK_MAX_PIECE + page - 1) / page * page;
    if (!prepare(memory)) {
        pnsk_memory_close(memory);
        return PENSTOCK_OK;
    }
    if (!pnsk_ring_open(&memory->ring, PNSK_ALIGNMENT, memory->share.size,
                        (size_t)(memory->share.size / PNSK_SMALLEST_SHARED))) {
        pnsk_memory_close(memory);
        snprintf(error->text, sizeof error->text, "out of memory for the list of payloads in shared memory");
        return PENSTOCK_NO_MEMORY;
    }
    return PENSTOCK_OK;
}

void pnsk_memory_close(pnsk_memory *memory)
{
    if (memory->bytes != NULL) {
        munmap(memory->bytes, (size_t)memory->share.size);
        close(memory->descriptor);
    }
    pnsk_ring_close(&memory->ring);
    memset(memory, 0, sizeof *memory);
}

void *pnsk_memory_find(pnsk_memory *memory, uint64_t size, uint64_t *at)
{
    if (memory->bytes == NULL || size < PNSK_SMALLEST_SHARED || !pnsk_ring_find(&memory->ring, size, at))
        return NULL;
    return memory->bytes + *at;
}

void pnsk_memory_keep(pnsk_memory *memory, uint64_t at, uint64_t size, uint64_t mark)
{
    pnsk_ring_place(&memory->ring, at, size, mark);
}

void pnsk_memory_release(pnsk_memory *memory, uint64_t mark)
{
    if (memory->bytes != NULL)
        pnsk_ring_release(&memory->ring, mark);
}
