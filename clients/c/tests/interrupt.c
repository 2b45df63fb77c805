/* Makes every other call of libzmq fail as a signal makes it fail (EINTR). The linker puts these functions before libzmq's
 * own (-Wl,--wrap). */
#include <errno.h>
#include <stdbool.h>
#include <zmq.h>

static bool interrupt(void)
{
    static _Thread_local unsigned calls;
    if (calls++ % 2 != 0)
        return false;
    errno = EINTR;
    return true;
}

#define WRAP(name, parameters, arguments) \
    int __real_##name parameters; \
    int __wrap_##name parameters; \
    int __wrap_##name parameters { return interrupt() ? -1 : __real_##name arguments; }

WRAP(zmq_send, (void *socket, const void *data, size_t size, int flags), (socket, data, size, flags))
WRAP(zmq_msg_send, (zmq_msg_t *message, void *socket, int flags), (message, socket, flags))
WRAP(zmq_msg_recv, (zmq_msg_t *message, void *socket, int flags), (message, socket, flags))
WRAP(zmq_connect, (void *socket, const char *endpoint), (socket, endpoint))
WRAP(zmq_socket_monitor, (void *socket, const char *endpoint, int events), (socket, endpoint, events))
WRAP(zmq_ctx_term, (void *context), (context))
