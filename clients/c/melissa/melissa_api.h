/* The calls of Melissa's client API, over libpenstock: a solver that was instrumented for Melissa streams to Penstock
 * once it is compiled against this header and linked with libpenstock_melissa (with MPI: libpenstock_melissa_mpi). It is
 * installed under both names that solvers include, melissa_api.h and (since Melissa 0.7) melissa/api.h.
 *
 * A field is a vector of doubles, each MPI rank's part after that of the rank before. All fields are initialised before
 * the first is sent; each is sent once per time step, all fields of a time step before any of the next. Time steps are
 * counted, so [samples] time = "step" applies. A failure is printed and ends the program (all ranks), as the calls
 * return nothing; Penstock then runs the simulation again. Parameters come as command-line arguments, from the study
 * file's command. */
#ifndef MELISSA_API_H
#define MELISSA_API_H

#if !defined(MELISSA_NO_MPI) && defined(__has_include)
#if __has_include(<mpi.h>)
#include <mpi.h>
#define PENSTOCK_MELISSA_MPI
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

#ifdef PENSTOCK_MELISSA_MPI
/* A field of which this rank holds vect_size values. Collective over comm; once for each field. */
void melissa_init(const char *field_name, int vect_size, MPI_Comm comm);

/* The same, as Fortran calls it. */
void melissa_init_f(const char *field_name, int *local_vect_size, MPI_Fint *comm_fortran);
#endif

/* A field of vect_size values of a solver without MPI; once for each field. */
void melissa_init_no_mpi(const char *field_name, int vect_size);
void melissa_init_no_mpi_f(const char *field_name, int *vect_size);

/* The next time step of a field. send_vect may be overwritten on return. */
void melissa_send(const char *field_name, const double *send_vect);
void melissa_send_no_mpi(const char *field_name, const double *send_vect);

/* All time steps have been sent. Before MPI_Finalize. */
void melissa_finalize(void);

#ifdef __cplusplus
}
#endif

#endif
