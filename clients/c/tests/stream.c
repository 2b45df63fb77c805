/* A solver on libpenstock: streams an (nx, 2) field `u` and its index field, as tests/clients/test_c_streams.py says, and
 * prints what became of it. Exit code: the penstock_status of the call that failed.
 *
 * Usage: stream STEPS POINTS [pause_ms=N] [nan_at=N] [fail_at=N] [message=N] [missing=N] [rank=N] [ranks=N] [static]
 * missing: of each time step so many elements are not sent. message: what the failure at step fail_at says: 0 plain text, 1 Latin-1, 2 a text cut within a character, 3 NULL.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "check.h"

static long option(int argc, char **argv, const char *name, long otherwise)
{
    const size_t size = strlen(name);
    for (int i = 3; i < argc; i++)
        if (strncmp(argv[i], name, size) == 0 && argv[i][size] == '=')
            return strtol(argv[i] + size + 1, NULL, 10);
    return otherwise;
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 100;
    setvbuf(stdout, NULL, _IOLBF, 0); /* what is printed is seen at once, also through a pipe */
    const long steps = strtol(argv[1], NULL, 10);
    const uint64_t points = strtoull(argv[2], NULL, 10);
    const long pause_ms = option(argc, argv, "pause_ms", 0), nan_at = option(argc, argv, "nan_at", -1);
    const long fail_at = option(argc, argv, "fail_at", -1);
    const uint64_t missing = (uint64_t)option(argc, argv, "missing", 0);
    const uint32_t rank = (uint32_t)option(argc, argv, "rank", 0), ranks = (uint32_t)option(argc, argv, "ranks", 1);
    const int with_static = strcmp(argv[argc - 1], "static") == 0;

    check(penstock_connect(&p, NULL, rank, ranks), "connect");
    check(penstock_begin(p), "begin");
    const char *const *names;
    const double *values;
    const size_t n = penstock_parameters(p, &names, &values);
    printf("simulation %lld attempt %u", (long long)penstock_simulation(p), penstock_attempt(p));
    for (size_t i = 0; i < n; i++)
        printf(" %s=%.17g", names[i], values[i]);
    printf("\n");

    const penstock_field fields[] = {{"u", PENSTOCK_FLOAT64, 2, 1, &points, 0},
                                     {"cell_volumes", PENSTOCK_FLOAT64, 1, 1, &points, 1}};
    check(penstock_announce(p, fields, with_static ? 2 : 1), "announce");
    const uint64_t first = points * rank / ranks, count = points * (rank + 1) / ranks - first;
    double *u = malloc((size_t)(2 * count + 1) * sizeof *u);
    if (u == NULL)
        return 101;
    if (with_static) {
        for (uint64_t i = 0; i < count; i++)
            u[i] = 1.0 + (double)(first + i);
        printf("cell_volumes wanted: %d\n", penstock_wanted(p, 1));
        check(penstock_send(p, 1, PENSTOCK_STATIC_STEP, NAN, PENSTOCK_FLOAT64, u, first, count), "send");
    }
    for (long step = 0; step < steps; step++) {
        if (step == fail_at) {
            static const char *const messages[] = {"diverged on purpose", "Str\xF6mung", "Str\xC3", NULL};
            check(penstock_fail(p, messages[option(argc, argv, "message", 0)]), "fail");
            printf("failed\n");
            penstock_close(p);
            free(u);
            return 0;
        }
        for (uint64_t i = 0; i < 2 * count; i++)
            u[i] = values[0] + (double)step + (double)(2 * first + i) / 1024;
        if (step == nan_at && count > 0)
            u[0] = NAN;
        check(penstock_send(p, 0, step, 0.5 * (double)step, PENSTOCK_FLOAT64, u, 2 * first, 2 * count - missing), "send");
        memset(u, 0, (size_t)(2 * count) * sizeof *u); /* libpenstock has its own copy */
        check(penstock_step_sent(p), "step_sent");
        if (pause_ms > 0)
            nanosleep(&(struct timespec){pause_ms / 1000, pause_ms % 1000 * 1000000}, NULL);
    }
    check(penstock_finish(p), "finish");
    penstock_close(p);
    free(u);
    printf("finished\n");
    return 0;
}
