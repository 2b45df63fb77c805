/* Makes memfd_create fail, as on a system that has none. The linker puts this before libc's (-Wl,--wrap). */
#include <errno.h>

long __wrap_syscall(long number, ...);

long __wrap_syscall(long number, ...)
{
    (void)number;
    errno = ENOSYS;
    return -1;
}
