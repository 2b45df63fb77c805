/* Melissa's fields as libpenstock's: what the calls with MPI and those without share. One simulation a process. */
#ifndef MELISSA_FIELDS_H
#define MELISSA_FIELDS_H

#include "penstock.h"

/* How a program ends that cannot go on. message: why; NULL: penstock_error says it. Does not return. */
typedef void melissa_end(penstock *handle, const char *message);

/* The handle, NULL before the first field. die: from now on. */
penstock *melissa_handle(void);
void melissa_connected(penstock *handle, melissa_end *die);

/* A field of `total` values, of which this process holds `mine` from `offset` on. */
void melissa_add_field(const char *name, uint64_t offset, uint64_t mine, uint64_t total);

#endif
