/* libpenstock for solvers on several MPI ranks: what the ranks must do together. Everything else is in penstock.h, each
 * rank with its own handle; no field is ever gathered.
 *
 *     penstock *p;
 *     uint64_t offset, total;
 *     if (penstock_mpi_connect(&p, NULL, comm) != PENSTOCK_OK)
 *         penstock_mpi_abort(p, comm, NULL);
 *     penstock_mpi_layout(comm, mine, &offset, &total);
 *     ... penstock_announce with total, penstock_send with offset and mine ...
 */
#ifndef PENSTOCK_MPI_H
#define PENSTOCK_MPI_H

#include <mpi.h>

#include "penstock.h"

#ifdef __cplusplus
extern "C" {
#endif

/* penstock_connect and penstock_begin on every rank of a communicator. Collective. Where one rank fails, all do: those
 * that could connect return PENSTOCK_ABANDONED. */
penstock_status penstock_mpi_connect(penstock **handle, const char *connect_file, MPI_Comm comm);

/* Where a rank's part lies when the parts follow each other in the order of the ranks: `offset` elements come before
 * this rank's `count`, `total` are there in all. Collective. */
void penstock_mpi_layout(MPI_Comm comm, uint64_t count, uint64_t *offset, uint64_t *total);

/* Print `message` (NULL: what penstock_error says) with the rank, report the simulation as failed, close the handle and end all ranks: the others
 * may be waiting for this one anywhere. Does not return. */
void penstock_mpi_abort(penstock *handle, MPI_Comm comm, const char *message);

#ifdef __cplusplus
}
#endif

#endif
