/**
 * @file melissa_api.h
 * @brief Melissa's client API on top of libpenstock.
 *
 * A solver that was instrumented for Melissa streams to Penstock once it is compiled with this header and linked with
 * libpenstock_melissa (with MPI: libpenstock_melissa_mpi). The header is installed under both names that solvers include,
 * melissa_api.h and (since Melissa 0.7) melissa/api.h.
 *
 * A field is a vector of doubles; the parts of the MPI ranks follow each other in rank order. Initialise each field before
 * its first time step is sent, and all of them within the first time step, of which the library keeps a copy until the second
 * begins. Send each field once per time step, and all fields of a time step before any of the next. Fields whose names end
 * alike in brackets, such as velocity[X], velocity[Y] and velocity[Z], are the components of one field, velocity. Melissa
 * has no physical time, so use [samples] time = "step". The calls return nothing: a failure is printed and ends the program
 * on all ranks, and Penstock runs the simulation again. The solver gets its parameters as command-line arguments, from the
 * command in the study file.
 */
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
/** @brief Initialise a field of which this rank holds vect_size values; once per field. Collective over comm. */
void melissa_init(const char *field_name, int vect_size, MPI_Comm comm);

/** @brief melissa_init for Fortran. */
void melissa_init_f(const char *field_name, int *local_vect_size, MPI_Fint *comm_fortran);
#endif

/** @brief Initialise a field of vect_size values in a solver without MPI; once per field. */
void melissa_init_no_mpi(const char *field_name, int vect_size);

/** @brief melissa_init_no_mpi for Fortran. */
void melissa_init_no_mpi_f(const char *field_name, int *vect_size);

/** @brief Send the next time step of a field. send_vect may be overwritten after the call. */
void melissa_send(const char *field_name, const double *send_vect);

/** @brief melissa_send in a solver without MPI. */
void melissa_send_no_mpi(const char *field_name, const double *send_vect);

/** @brief Finish the simulation after the last time step; call it before MPI_Finalize. */
void melissa_finalize(void);

#ifdef __cplusplus
}
#endif

#endif
