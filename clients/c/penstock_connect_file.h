/* connect.json: address and keys of the server, as one flat JSON object of strings and integers. */
#ifndef PENSTOCK_CONNECT_FILE_H
#define PENSTOCK_CONNECT_FILE_H

#include "penstock_wire.h"

#define PNSK_Z85_KEY 41 /* 40 characters and the final NUL */

typedef struct {
    char study[256];
    uint32_t incarnation;
    char control[256];
    char server_public_key[PNSK_Z85_KEY];
    char client_public_key[PNSK_Z85_KEY];
    char client_secret_key[PNSK_Z85_KEY];
} pnsk_connect_file;

/* Read connect.json. Returns false and sets `error` if it is missing, unreadable or of another version. */
bool pnsk_connect_file_read(const char *path, pnsk_connect_file *out, pnsk_error *error);

/* Parse the text of connect.json; `path` is for the error message only. */
bool pnsk_connect_file_parse(const char *text, size_t size, const char *path, pnsk_connect_file *out, pnsk_error *error);

/* Overwrite memory that held a secret. */
void pnsk_wipe(void *memory, size_t size);

#endif
