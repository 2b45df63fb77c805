/* A solver that sends the three fields of its time steps in all ways that libpenstock allows. Usage: parts STEPS POINTS;
 * exit code: the penstock_status of the call that failed. Element i of a field in a time step: step + i + 0, 1000 or 2000. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"

static double *u;
static float *v;
static int32_t *k;

static void send(size_t field, long step, uint64_t from, uint64_t to)
{
    const penstock_dtype dtypes[] = {PENSTOCK_FLOAT64, PENSTOCK_FLOAT32, PENSTOCK_INT32};
    const void *const data[] = {u + from, v + from, k + from};
    check(penstock_send(p, field, step, 0.5 * (double)step, dtypes[field], data[field], from, to - from), "send");
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 100;
    const long steps = strtol(argv[1], NULL, 10);
    const uint64_t points = strtoull(argv[2], NULL, 10), half = points / 2;
    u = malloc((size_t)(2 * points) * sizeof *u);
    v = malloc((size_t)points * sizeof *v);
    k = malloc((size_t)points * sizeof *k);
    check(penstock_connect(&p, NULL, 0, 1), "connect");
    check(penstock_begin(p), "begin");
    const penstock_field fields[] = {{"u", PENSTOCK_FLOAT64, 2, 1, &points, 0},
                                     {"v", PENSTOCK_FLOAT32, 1, 1, &points, 0},
                                     {"k", PENSTOCK_INT32, 1, 1, &points, 0},
                                     {"cell_volumes", PENSTOCK_FLOAT64, 1, 1, &points, 1}};
    check(penstock_announce(p, fields, 4), "announce");
    for (long step = 0; step < steps; step++) {
        for (uint64_t i = 0; i < 2 * points; i++)
            u[i] = (double)step + (double)i;
        for (uint64_t i = 0; i < points; i++) {
            v[i] = (float)step + (float)i + 1000;
            k[i] = (int32_t)step + (int32_t)i + 2000;
        }
        const long way = step < 20 ? 0 : step % 7; /* the first time steps go together */
        send(2, step, 0, points);
        if (way == 1) /* in parts, in order */
            send(0, step, 0, half);
        send(0, step, way == 1 ? half : way == 2 ? 2 * half : 0, 2 * points);
        if (way == 2) /* in parts, the last first */
            send(0, step, 0, 2 * half);
        if (way == 3) /* sent before it is whole */
            check(penstock_flush(p), "flush");
        if (way == 4) /* with something else in between */
            check(penstock_send(p, 3, PENSTOCK_STATIC_STEP, NAN, PENSTOCK_FLOAT64, u, 0, points), "send");
        if (way == 5) /* without an element that follows */
            send(1, step, 0, 0);
        send(1, step, 0, points);
        if (way != 6) /* the next time step tells that this one is complete */
            check(penstock_step_sent(p), "step_sent");
    }
    check(penstock_finish(p), "finish");
    penstock_close(p);
    free(u);
    free(v);
    free(k);
    printf("finished\n");
    return 0;
}
