#include "penstock_text.h"

size_t pnsk_utf8_character(const uint8_t *s, size_t size)
{
    if (size == 0)
        return 0;
    const uint8_t c = s[0];
    const size_t n = c < 0x80                ? 1
                     : c >= 0xC2 && c <= 0xDF ? 2
                     : c >= 0xE0 && c <= 0xEF ? 3
                     : c >= 0xF0 && c <= 0xF4 ? 4
                                              : 0;
    if (n == 0 || n > size)
        return 0;
    for (size_t k = 1; k < n; k++)
        if ((s[k] & 0xC0) != 0x80)
            return 0;
    /* no overlong forms, surrogates and code points beyond U+10FFFF */
    if ((c == 0xE0 && s[1] < 0xA0) || (c == 0xED && s[1] > 0x9F) || (c == 0xF0 && s[1] < 0x90) || (c == 0xF4 && s[1] > 0x8F))
        return 0;
    return n;
}

bool pnsk_is_utf8(const uint8_t *s, size_t size)
{
    for (size_t i = 0; i < size;) {
        const size_t n = pnsk_utf8_character(s + i, size - i);
        if (n == 0)
            return false;
        i += n;
    }
    return true;
}
