/* UTF-8, the encoding of all text on the wire. */
#ifndef PENSTOCK_TEXT_H
#define PENSTOCK_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PNSK_MAX_FOREIGN_TEXT 65536 /* bytes of a solver's message that are sent */

/* Length in bytes of the character at `s`, of which `size` bytes are there; 0 if they are not UTF-8. */
size_t pnsk_utf8_character(const uint8_t *s, size_t size);

bool pnsk_is_utf8(const uint8_t *s, size_t size);

#endif
