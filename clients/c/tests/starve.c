/* Makes one allocation of libpenstock fail: that of the number in STARVED_AT, counted from 1. The linker puts these functions
 * before those of libc and libzmq (-Wl,--wrap). */
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

static bool starve(void)
{
    static atomic_long number;
    const char *at = getenv("STARVED_AT");
    return atomic_fetch_add(&number, 1) + 1 == (at != NULL ? strtol(at, NULL, 10) : 0);
}

#define WRAP(result, failure, name, parameters, arguments) \
    result __real_##name parameters; \
    result __wrap_##name parameters; \
    result __wrap_##name parameters \
    { \
        if (!starve()) \
            return __real_##name arguments; \
        errno = ENOMEM; \
        return failure; \
    }

WRAP(void *, NULL, malloc, (size_t size), (size))
WRAP(void *, NULL, calloc, (size_t count, size_t size), (count, size))
WRAP(void *, NULL, realloc, (void *memory, size_t size), (memory, size))
WRAP(char *, NULL, strdup, (const char *text), (text))
WRAP(int, -1, zmq_msg_init_size, (zmq_msg_t *message, size_t size), (message, size))
