/**
 * @file penstock_mpi.h
 * @brief libpenstock for solvers on several MPI ranks: the calls that all ranks make together.
 *
 * All other calls are in penstock.h; each rank has a handle of its own and sends its own part of the fields.
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

/**
 * @brief Call penstock_connect and penstock_begin on every rank of a communicator. Collective.
 *
 * If one rank fails, all fail: the ranks that could connect return PENSTOCK_ABANDONED, and so do their later calls.
 *
 * @param[out] handle        as for penstock_connect.
 * @param      connect_file  as for penstock_connect.
 * @param      comm          all ranks of the solver.
 * @return PENSTOCK_OK or a failure.
 */
penstock_status penstock_mpi_connect(penstock **handle, const char *connect_file, MPI_Comm comm);

/**
 * @brief Locate this rank's part of a field whose parts follow each other in the order of the ranks. Collective.
 *
 * @param      comm    all ranks of the solver.
 * @param      count   number of elements that this rank holds.
 * @param[out] offset  number of elements on the ranks before this one.
 * @param[out] total   number of elements on all ranks.
 */
void penstock_mpi_layout(MPI_Comm comm, uint64_t count, uint64_t *offset, uint64_t *total);

/**
 * @brief Report the simulation as failed, close the handle and end all ranks. Does not return.
 *
 * All ranks are ended because the others may be waiting for this one in any MPI call.
 *
 * @param handle   the handle of this rank.
 * @param comm     all ranks of the solver.
 * @param message  printed to stderr with the rank; NULL: the text of penstock_error.
 */
void penstock_mpi_abort(penstock *handle, MPI_Comm comm, const char *message);

#ifdef __cplusplus
}
#endif

#endif
