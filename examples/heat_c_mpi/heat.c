/* The heat equation on the unit square, explicit in time, on any number of MPI ranks. Each rank has a strip of rows,
 * exchanges halos with its neighbours, and streams its own strip with libpenstock.
 *
 * Usage: heat POINTS STEPS; the parameters (initial, left, right, bottom, top) come from the server.
 */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <penstock_mpi.h>

#define SWEEPS 20  /* steps of the explicit scheme for each time step that is sent */
#define RATIO 0.2  /* dt / h^2; stable up to 0.25 */

static penstock *server;

static void check(penstock_status status)
{
    if (status != PENSTOCK_OK)
        penstock_mpi_abort(server, MPI_COMM_WORLD, NULL);
}

static double parameter(const char *name)
{
    const char *const *names;
    const double *values;
    const size_t n = penstock_parameters(server, &names, &values);
    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return values[i];
    penstock_mpi_abort(server, MPI_COMM_WORLD, "the study lacks a parameter: initial, left, right, bottom, top are needed");
    return 0;
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    if (argc != 3) {
        fprintf(stderr, "usage: heat POINTS STEPS\n");
        MPI_Abort(MPI_COMM_WORLD, 2);
    }
    const int n = atoi(argv[1]), steps = atoi(argv[2]);
    int rank, ranks;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    const int first = n * rank / ranks, rows = n * (rank + 1) / ranks - first;
    const int below = rank > 0 ? rank - 1 : MPI_PROC_NULL, above = rank < ranks - 1 ? rank + 1 : MPI_PROC_NULL;

    check(penstock_mpi_connect(&server, NULL, MPI_COMM_WORLD));
    const double initial = parameter("initial"), left = parameter("left"), right = parameter("right");
    const double bottom = parameter("bottom"), top = parameter("top");
    const uint64_t shape[] = {(uint64_t)n, (uint64_t)n};
    const penstock_field field = {
        .name = "T", .dtype = PENSTOCK_FLOAT64, .components = 1, .n_dimensions = 2, .shape = shape};
    check(penstock_announce(server, &field, 1));

    /* Rows 1 to `rows` are this rank's, rows 0 and rows + 1 the neighbours' or the boundary's. */
    const size_t row = (size_t)n, size = (size_t)(rows + 2) * row;
    double *T = malloc(size * sizeof *T), *next = malloc(size * sizeof *next);
    for (size_t i = 0; i < size; i++)
        T[i] = initial;
    for (int x = 0; x < n; x++) {
        if (below == MPI_PROC_NULL)
            T[x] = bottom;
        if (above == MPI_PROC_NULL)
            T[(size_t)(rows + 1) * row + (size_t)x] = top;
    }
    memcpy(next, T, size * sizeof *T);

    for (int step = 0; step < steps; step++) {
        for (int sweep = 0; sweep < SWEEPS; sweep++) {
            MPI_Sendrecv(T + row, n, MPI_DOUBLE, below, 0, T + (size_t)(rows + 1) * row, n, MPI_DOUBLE, above, 0,
                         MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            MPI_Sendrecv(T + (size_t)rows * row, n, MPI_DOUBLE, above, 1, T, n, MPI_DOUBLE, below, 1, MPI_COMM_WORLD,
                         MPI_STATUS_IGNORE);
            for (int y = 1; y <= rows; y++)
                for (int x = 0; x < n; x++) {
                    const double *at = T + (size_t)y * row + (size_t)x;
                    const double west = x > 0 ? at[-1] : left, east = x < n - 1 ? at[1] : right;
                    next[at - T] = *at + RATIO * (west + east + *(at - row) + at[row] - 4.0 * *at);
                }
            memcpy(T + row, next + row, (size_t)rows * row * sizeof *T);
        }
        const double time = (step + 1) * SWEEPS * RATIO / ((n + 1.0) * (n + 1.0));
        check(penstock_send(server, 0, step, time, PENSTOCK_FLOAT64, T + row, (uint64_t)first * row, (uint64_t)rows * row));
        check(penstock_step_sent(server));
    }
    check(penstock_finish(server));
    penstock_close(server);
    free(T);
    free(next);
    MPI_Finalize();
    return 0;
}
