/* A solver whose writer knows nothing before a field is written: it initialises each right before its first send, and writes
 * vectors as components NAME[X], as code_saturne's writer for Melissa does. -DWITH_MPI: each rank its part of the points.
 * Usage: melissa_writer A STEPS POINTS [late | both | twice]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef WITH_MPI
#include <melissa_api.h>
#else
#include <melissa_api_no_mpi.h>
#endif

static int mine;

static void init(const char *name)
{
#ifdef WITH_MPI
    melissa_init(name, mine, MPI_COMM_WORLD);
#else
    melissa_init_no_mpi(name, mine);
#endif
}

static void output(const char *name, int step, const double *values)
{
    if (step == 0)
        init(name);
    melissa_send(name, values);
}

int main(int argc, char **argv)
{
    int rank = 0, ranks = 1;
    const double a = atof(argv[1]);
    const int steps = atoi(argv[2]), points = atoi(argv[3]);
    const char *way = argc > 4 ? argv[4] : "";
    static const char *const names[] = {"velocity[Y]", "pressure", "velocity[Z]", "velocity[X]"};
    static const int kinds[] = {2, 4, 3, 1};
#ifdef WITH_MPI
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
#endif
    const int first = points * rank / ranks;
    mine = points * (rank + 1) / ranks - first;
    double *values = malloc((size_t)(mine + 1) * sizeof *values);
    for (int step = 0; step < steps; step++) {
        for (int k = 0; k < 4; k++) {
            for (int i = 0; i < mine; i++)
                values[i] = a + step + 16 * kinds[k] + (first + i) / 1024.0;
            output(names[k], step, values);
            if (strcmp(way, "both") == 0)
                init("velocity");
            if (strcmp(way, "twice") == 0)
                init(names[k]);
            memset(values, 0, (size_t)mine * sizeof *values); /* the writer's buffer is its own */
        }
        if (strcmp(way, "late") == 0 && step == 1)
            init("heat_flux");
    }
    melissa_finalize();
    free(values);
#ifdef WITH_MPI
    MPI_Finalize();
#endif
    return 0;
}
