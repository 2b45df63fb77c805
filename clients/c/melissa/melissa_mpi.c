#include "melissa_api.h"

#include <stdio.h>

#include "melissa_fields.h"
#include "penstock_mpi.h"

static MPI_Comm ranks;

static void end_all_ranks(penstock *handle, const char *message)
{
    penstock_mpi_abort(handle, ranks, message);
}

void melissa_init(const char *field_name, int vect_size, MPI_Comm comm)
{
    uint64_t offset, total;
    if (melissa_handle() == NULL) {
        penstock *handle;
        ranks = comm;
        const penstock_status status = penstock_mpi_connect(&handle, NULL, comm);
        melissa_connected(handle, end_all_ranks);
        if (status != PENSTOCK_OK)
            end_all_ranks(handle, NULL);
    }
    penstock_mpi_layout(comm, vect_size > 0 ? (uint64_t)vect_size : 0, &offset, &total);
    if (vect_size < 0 || total == 0) {
        char text[256];
        snprintf(text, sizeof text, "melissa_init(\"%.50s\"): vect_size = %d: expected 0 or more, and at least 1 on all ranks together",
                 field_name, vect_size);
        end_all_ranks(melissa_handle(), text);
    }
    melissa_add_field(field_name, offset, vect_size > 0 ? (uint64_t)vect_size : 0, total);
}

void melissa_init_f(const char *field_name, int *local_vect_size, MPI_Fint *comm_fortran)
{
    melissa_init(field_name, *local_vect_size, MPI_Comm_f2c(*comm_fortran));
}
