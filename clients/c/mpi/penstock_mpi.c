#include "penstock_mpi.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const elsewhere = "another MPI rank could not connect to the server; its own message says why";

penstock_status penstock_mpi_connect(penstock **handle, const char *connect_file, MPI_Comm comm)
{
    int rank = 0, ranks = 1, bad = 0, worst = 0;
    MPI_Comm_rank(comm, &rank);
    MPI_Comm_size(comm, &ranks);
    penstock_status status = penstock_connect(handle, connect_file, (uint32_t)rank, (uint32_t)ranks);
    if (status == PENSTOCK_OK)
        status = penstock_begin(*handle);
    bad = status != PENSTOCK_OK;
    MPI_Allreduce(&bad, &worst, 1, MPI_INT, MPI_MAX, comm);
    return !bad && worst ? penstock_abandon(*handle, elsewhere) : status;
}

void penstock_mpi_layout(MPI_Comm comm, uint64_t count, uint64_t *offset, uint64_t *total)
{
    uint64_t before = 0;
    MPI_Scan(&count, &before, 1, MPI_UINT64_T, MPI_SUM, comm);
    *offset = before - count;
    MPI_Allreduce(&count, total, 1, MPI_UINT64_T, MPI_SUM, comm);
}

void penstock_mpi_abort(penstock *handle, MPI_Comm comm, const char *message)
{
    int rank = 0, begun = 0, over = 0;
    char text[512];
    MPI_Initialized(&begun); /* a solver that runs without MPI may not have called MPI_Init */
    MPI_Finalized(&over);
    if (begun && !over)
        MPI_Comm_rank(comm, &rank);
    const char *why = message != NULL ? message : penstock_error(handle);
    snprintf(text, sizeof text, "MPI rank %d: %s", rank, why);
    fprintf(stderr, "penstock: %s\n", text);
    if (handle != NULL && penstock_simulation(handle) >= 0)
        (void)penstock_fail(handle, text);
    penstock_close(handle);
    if (!begun || over)
        exit(1);
    MPI_Abort(comm, 1);
    abort(); /* unreachable: MPI_Abort does not return */
}
