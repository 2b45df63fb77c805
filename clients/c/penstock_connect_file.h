/* connect.json: where the server is and which keys it trusts. One flat JSON object of strings and integers. */
#ifndef PENSTOCK_CONNECT_FILE_H
#define PENSTOCK_CONNECT_FILE_H

#include "penstock_wire.h"

#define PNSK_Z85_KEY 41 /* 40 characters and the end */

typedef struct {
    char study[256];
    uint32_t incarnation;
    char control[256];
    char server_public_key[PNSK_Z85_KEY];
    char client_public_key[PNSK_Z85_KEY];
    char client_secret_key[PNSK_Z85_KEY];
} pnsk_connect_file;

/* Read it from a path; false, with what to do in `error`, when it is missing, unreadable or not of this version. */
bool pnsk_connect_file_read(const char *path, pnsk_connect_file *out, pnsk_error *error);

/* The same from text in memory (`path` is for the error message only). */
bool pnsk_connect_file_parse(const char *text, size_t size, const char *path, pnsk_connect_file *out, pnsk_error *error);

#endif
