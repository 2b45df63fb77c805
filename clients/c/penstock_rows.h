/* Whole time steps of a solver without MPI, as rows of bytes that are sent together in one message (BLOCK of
 * docs/wire-format.md). A row is written in place: into the shared memory, or into the message. */
#ifndef PENSTOCK_ROWS_H
#define PENSTOCK_ROWS_H

#include "penstock_stream.h"

/* Wait for credit, then begin the row of a time step and set *row to where its `row_bytes` bytes are to be written. */
penstock_status pnsk_rows_begin(pnsk_stream *stream, uint64_t row_bytes, int64_t step, double time, uint8_t **row,
                                pnsk_error *error);

/* Keep the row that was begun; all of it has been written. */
penstock_status pnsk_rows_end(pnsk_stream *stream, pnsk_error *error);

/* Forget the row that was begun, if there is one. */
void pnsk_rows_drop(pnsk_stream *stream);

/* Send the rows that are held back; one that was begun is forgotten. */
penstock_status pnsk_rows_flush(pnsk_stream *stream, pnsk_error *error);

/* Forget all rows. */
void pnsk_rows_close(pnsk_stream *stream);

#endif
