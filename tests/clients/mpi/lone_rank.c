/* MPI rank 1 cannot connect; rank 0 says what its calls return. Penstock's own test program. */
#include <stdio.h>
#include <stdlib.h>

#include <penstock_mpi.h>

int main(int argc, char **argv)
{
    int rank = 0;
    const uint64_t points = 1;
    penstock *p;
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    const penstock_status status = penstock_mpi_connect(&p, rank == 1 ? "nowhere.json" : NULL, MPI_COMM_WORLD);
    const penstock_field field = {.name = "u", .dtype = PENSTOCK_FLOAT64, .components = 1, .n_dimensions = 1, .shape = &points};
    if (rank == 0) {
        printf("%d %s\n", (int)status, penstock_error(p));
        const penstock_status later = penstock_announce(p, &field, 1);
        printf("%d %s\n", (int)later, penstock_error(p));
    }
    penstock_close(p);
    MPI_Finalize();
    return 0;
}
