/* One simulation after the other on one handle, from number 0. Prints the memory of the process (kB) after a tenth of them
 * and at the end. Usage: many SIMULATIONS STEPS POINTS [fail]; fail: of the
 * first simulation, half of the time steps are sent before it fails. Exit code: the penstock_status of the call that failed.
 */
#define _XOPEN_SOURCE 700 /* putenv */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"

static long resident_kb(void)
{
    char line[256];
    long kb = -1;
    FILE *status = fopen("/proc/self/status", "r");
    while (status != NULL && fgets(line, sizeof line, status) != NULL)
        if (sscanf(line, "VmRSS: %ld", &kb) == 1)
            break;
    if (status != NULL)
        fclose(status);
    return kb;
}

int main(int argc, char **argv)
{
    if (argc != 4 && argc != 5)
        return 100;
    const long simulations = strtol(argv[1], NULL, 10), steps = strtol(argv[2], NULL, 10);
    const uint64_t points = strtoull(argv[3], NULL, 10);
    double *u = calloc((size_t)points + 1, sizeof *u);
    static char variable[64]; /* putenv keeps the variable here; setenv would keep every value */
    setenv("PENSTOCK_ATTEMPT", "1", 1);
    check(penstock_connect(&p, NULL, 0, 1), "connect");
    for (long simulation = 0; simulation < simulations; simulation++) {
        const penstock_field field = {"u", PENSTOCK_FLOAT64, 1, 1, &points, 0};
        snprintf(variable, sizeof variable, "PENSTOCK_SIMULATION=%ld", simulation);
        putenv(variable);
        check(penstock_begin(p), "begin");
        check(penstock_announce(p, &field, 1), "announce");
        const int fails = argc == 5 && simulation == 0;
        for (long step = 0; step < (fails ? steps / 2 : steps); step++) {
            for (uint64_t i = 0; i < points; i++)
                u[i] = (double)(simulation + step) + (double)i / 1024;
            check(penstock_send(p, 0, step, NAN, PENSTOCK_FLOAT64, u, 0, points), "send");
            check(penstock_step_sent(p), "step_sent");
        }
        check(fails ? penstock_fail(p, "on purpose") : penstock_finish(p), fails ? "fail" : "finish");
        if (simulation == simulations / 10 || simulation == simulations - 1)
            printf("%ld simulations, %ld kB\n", simulation + 1, resident_kb());
    }
    penstock_close(p);
    free(u);
    printf("finished\n");
    return 0;
}
