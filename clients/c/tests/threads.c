/* Two simulations streamed by one process, a thread and a handle each. PENSTOCK_SIMULATION is set in turn, before the
 * handle that reads it is made. Usage: threads STEPS POINTS; exit code: 0, or the first status that was not OK.
 */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "penstock.h"

static long steps;
static uint64_t points;

static void *stream(void *argument)
{
    penstock *p = argument;
    double *u = malloc((size_t)points * sizeof *u);
    const penstock_field field = {"u", PENSTOCK_FLOAT64, 1, 1, &points, 0};
    penstock_status status = u == NULL ? PENSTOCK_NO_MEMORY : penstock_announce(p, &field, 1);
    for (long step = 0; step < steps && status == PENSTOCK_OK; step++) {
        for (uint64_t i = 0; i < points; i++)
            u[i] = (double)(penstock_simulation(p) * 1000 + step) + (double)i / 1024;
        status = penstock_send(p, 0, step, NAN, PENSTOCK_FLOAT64, u, 0, points);
        if (status == PENSTOCK_OK)
            status = penstock_step_sent(p);
    }
    if (status == PENSTOCK_OK)
        status = penstock_finish(p);
    if (status != PENSTOCK_OK)
        printf("%s\n", penstock_error(p));
    penstock_close(p);
    free(u);
    return (void *)(size_t)status;
}

int main(int argc, char **argv)
{
    enum { N = 2 };
    pthread_t threads[N];
    int worst = 0;
    if (argc != 3)
        return 100;
    steps = strtol(argv[1], NULL, 10);
    points = strtoull(argv[2], NULL, 10);
    for (int i = 0; i < N; i++) {
        penstock *p;
        setenv("PENSTOCK_SIMULATION", i == 0 ? "0" : "1", 1);
        setenv("PENSTOCK_ATTEMPT", "1", 1);
        if (penstock_connect(&p, NULL, 0, 1) != PENSTOCK_OK || penstock_begin(p) != PENSTOCK_OK ||
            pthread_create(&threads[i], NULL, stream, p) != 0) {
            printf("%s\n", penstock_error(p));
            return 101;
        }
    }
    for (int i = 0; i < N; i++) {
        void *status;
        pthread_join(threads[i], &status);
        if (status != NULL)
            worst = (int)(size_t)status;
    }
    return worst;
}
