/* State that the Melissa calls with and without MPI share. A process runs one simulation. */
#ifndef MELISSA_FIELDS_H
#define MELISSA_FIELDS_H

#include "penstock.h"

/* Ends the program after a failure. message: the reason; NULL: the text of penstock_error. Does not return. */
typedef void melissa_end(penstock *handle, const char *message);

/* The handle; NULL before the first field. */
penstock *melissa_handle(void);

/* Set the handle, and the function that ends the program after a failure from now on. */
void melissa_connected(penstock *handle, melissa_end *die);

/* Add a field of `total` values, of which this process holds `mine`, starting at `offset`. */
void melissa_add_field(const char *name, uint64_t offset, uint64_t mine, uint64_t total);

#endif
