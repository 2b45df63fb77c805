/* melissa_api.h without the MPI calls, under the name that some solvers include. */
#ifndef MELISSA_API_NO_MPI_H
#define MELISSA_API_NO_MPI_H

#define MELISSA_NO_MPI
#include "melissa_api.h"

#endif
