/* A solver that is instrumented for Melissa: two fields, each rank its part. Penstock's own test program; -DWITH_MPI,
 * and -DSINCE_0_7 for the header's later name. Its communicator is the part of MPI_COMM_WORLD that is this program.
 * Usage: melissa A STEPS POINTS [fail_at=N | badly]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef SINCE_0_7
#include <melissa/api.h>
#elif defined WITH_MPI
#include <melissa_api.h>
#else
#include <melissa_api_no_mpi.h>
#endif

int main(int argc, char **argv)
{
    int rank = 0, ranks = 1;
#ifdef WITH_MPI
    int *program = NULL, set = 0;
    MPI_Comm comm;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_get_attr(MPI_COMM_WORLD, MPI_APPNUM, &program, &set);
    MPI_Comm_split(MPI_COMM_WORLD, *program, rank, &comm);
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &ranks);
#endif
    const double a = atof(argv[1]);
    const int steps = atoi(argv[2]), points = atoi(argv[3]);
    const int fail_at = argc > 4 && strncmp(argv[4], "fail_at=", 8) == 0 ? atoi(argv[4] + 8) : -1;
    const int first = points * rank / ranks, mine = points * (rank + 1) / ranks - first;
    double *temperature = malloc((size_t)(mine + 1) * sizeof *temperature);
    double *pressure = malloc((size_t)(2 * mine + 1) * sizeof *pressure);
#ifdef WITH_MPI
    melissa_init("temperature", mine, comm);
    melissa_init("pressure", 2 * mine, comm);
#else
    melissa_init_no_mpi("temperature", mine);
    melissa_init_no_mpi("pressure", 2 * mine);
#endif
    for (int step = 0; step < steps; step++) {
        for (int i = 0; i < mine; i++)
            temperature[i] = a + step + (first + i) / 1024.0;
        for (int i = 0; i < 2 * mine; i++)
            pressure[i] = a - step - (2 * first + i) / 1024.0;
        if (step == fail_at && rank == ranks - 1)
            exit(3);
#ifdef WITH_MPI
        melissa_send("temperature", temperature);
        melissa_send("pressure", pressure);
#else
        melissa_send_no_mpi("temperature", temperature);
        melissa_send_no_mpi("pressure", pressure);
#endif
        if (argc > 4 && strcmp(argv[4], "badly") == 0) {
            melissa_send("temperature", temperature);
            melissa_send("temperature", temperature);
        }
    }
    melissa_finalize();
    free(temperature);
    free(pressure);
#ifdef WITH_MPI
    MPI_Finalize();
#endif
    return 0;
}
