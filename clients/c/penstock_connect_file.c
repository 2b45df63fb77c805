#include "penstock_connect_file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_FILE 65536

typedef struct {
    const char *at, *end;
    const char *problem; /* the first error found, or NULL */
} scanner;

static bool problem(scanner *s, const char *what)
{
    if (s->problem == NULL)
        s->problem = what;
    return false;
}

static void skip_space(scanner *s)
{
    while (s->at < s->end && (*s->at == ' ' || *s->at == '\t' || *s->at == '\n' || *s->at == '\r'))
        s->at++;
}

static bool expect(scanner *s, char c, const char *what)
{
    skip_space(s);
    if (s->at == s->end || *s->at != c)
        return problem(s, what);
    s->at++;
    return true;
}

static bool hex4(scanner *s, uint32_t *out)
{
    if (s->end - s->at < 4)
        return problem(s, "an unfinished \\u escape");
    *out = 0;
    for (int i = 0; i < 4; i++) {
        const char c = *s->at++;
        const int digit = c >= '0' && c <= '9'   ? c - '0'
                          : c >= 'a' && c <= 'f' ? c - 'a' + 10
                          : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                                 : -1;
        if (digit < 0)
            return problem(s, "a \\u escape that is not hexadecimal");
        *out = *out << 4 | (uint32_t)digit;
    }
    return true;
}

static size_t utf8(uint32_t code, char out[4])
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    const int more = code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
    static const unsigned char lead[] = {0, 0xC0, 0xE0, 0xF0};
    for (int i = more; i > 0; i--) {
        out[i] = (char)(0x80 | (code & 0x3F));
        code >>= 6;
    }
    out[0] = (char)(lead[more] | code);
    return (size_t)more + 1;
}

/* Read one character of a string into `out`, as UTF-8. Returns its length in bytes, or 0 on error. */
static size_t character(scanner *s, char out[4])
{
    const char c = *s->at++;
    if ((unsigned char)c < 0x20)
        return problem(s, "a control character in a string"), (size_t)0;
    if (c != '\\') {
        out[0] = c;
        return 1;
    }
    if (s->at == s->end)
        return problem(s, "a string without an end"), (size_t)0;
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char escape = *s->at++;
    const char *known = escape != '\0' ? strchr(from, escape) : NULL;
    if (known != NULL) {
        out[0] = to[known - from];
        return 1;
    }
    uint32_t code = 0, low = 0;
    if (escape != 'u')
        return problem(s, "an unknown escape in a string"), (size_t)0;
    if (!hex4(s, &code))
        return 0;
    if (code >= 0xD800 && code < 0xDC00) {
        if (s->end - s->at < 2 || s->at[0] != '\\' || s->at[1] != 'u')
            return problem(s, "half a surrogate pair"), (size_t)0;
        s->at += 2;
        if (!hex4(s, &low))
            return 0;
        if (low < 0xDC00 || low > 0xDFFF)
            return problem(s, "half a surrogate pair"), (size_t)0;
        code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    }
    if (code >= 0xDC00 && code < 0xE000)
        return problem(s, "half a surrogate pair"), (size_t)0;
    if (code == 0)
        return problem(s, "a NUL in a string"), (size_t)0;
    return utf8(code, out);
}

static bool string(scanner *s, char *out, size_t room, const char *what)
{
    if (!expect(s, '"', what))
        return false;
    size_t size = 0;
    while (s->at < s->end && *s->at != '"') {
        char bytes[4];
        const size_t n = character(s, bytes);
        if (n == 0)
            return false;
        if (size + n >= room)
            return problem(s, "a string that is too long");
        memcpy(out + size, bytes, n);
        size += n;
    }
    out[size] = '\0';
    return expect(s, '"', "a string without an end");
}

static bool integer(scanner *s, uint32_t *out, const char *what)
{
    skip_space(s);
    uint64_t value = 0;
    const char *start = s->at;
    while (s->at < s->end && *s->at >= '0' && *s->at <= '9' && value <= UINT32_MAX)
        value = 10 * value + (uint64_t)(*s->at++ - '0');
    if (s->at == start || (*start == '0' && s->at - start > 1) || value > UINT32_MAX || (s->at < s->end && strchr(".eE", *s->at) != NULL && *s->at != '\0'))
        return problem(s, what);
    *out = (uint32_t)value;
    return true;
}

/* Read one member into `out` and set its bit in `seen`. */
static bool member(scanner *s, pnsk_connect_file *out, unsigned *seen)
{
    static const char *const names[] = {"study",           "incarnation",       "control",
                                        "server_public_key", "client_public_key", "client_secret_key"};
    char name[64];
    if (!string(s, name, sizeof name, "something that is not \"name\": value") || !expect(s, ':', "a name without a value"))
        return false;
    for (unsigned i = 0; i < 6; i++) {
        if (strcmp(name, names[i]) != 0)
            continue;
        *seen |= 1u << i;
        switch (i) {
        case 0: return string(s, out->study, sizeof out->study, "study, which should be a string");
        case 1: return integer(s, &out->incarnation, "incarnation, which should be an integer");
        case 2: return string(s, out->control, sizeof out->control, "control, which should be a string");
        case 3: return string(s, out->server_public_key, PNSK_Z85_KEY, "server_public_key, which should be 40 characters");
        case 4: return string(s, out->client_public_key, PNSK_Z85_KEY, "client_public_key, which should be 40 characters");
        default: return string(s, out->client_secret_key, PNSK_Z85_KEY, "client_secret_key, which should be 40 characters");
        }
    }
    return problem(s, "a name that this version does not know");
}

bool pnsk_connect_file_parse(const char *text, size_t size, const char *path, pnsk_connect_file *out, pnsk_error *error)
{
    scanner s = {text, text + size, NULL};
    unsigned seen = 0;
    memset(out, 0, sizeof *out);
    bool more = expect(&s, '{', "something that is not a JSON object");
    while (more && member(&s, out, &seen)) {
        skip_space(&s);
        more = s.at < s.end && *s.at == ',';
        if (more)
            s.at++;
        else if (expect(&s, '}', "a missing , or }")) {
            skip_space(&s);
            if (s.at != s.end)
                problem(&s, "text after the object");
        }
    }
    if (s.problem == NULL && seen != 0x3F)
        s.problem = "not all of study, incarnation, control and the three keys";
    if (s.problem == NULL && (strlen(out->server_public_key) != 40 || strlen(out->client_public_key) != 40 ||
                              strlen(out->client_secret_key) != 40))
        s.problem = "a key that is not 40 characters long";
    if (s.problem == NULL)
        return true;
    snprintf(error->text, sizeof error->text,
             "%s is not a connect.json of this version of Penstock: it has %s; point PENSTOCK_CONNECT to the one in the "
             "study's run directory",
             path, s.problem);
    return false;
}

void pnsk_wipe(void *memory, size_t size)
{
    volatile uint8_t *byte = memory; /* volatile: the compiler must not leave this out */
    while (size-- > 0)
        *byte++ = 0;
}

/* Whether the file is the user's alone. It holds a secret key. */
static bool is_private(FILE *file, const char *path, pnsk_error *error)
{
    struct stat status;
    if (fstat(fileno(file), &status) != 0 || !S_ISREG(status.st_mode) || (status.st_mode & 077) == 0)
        return true;
    snprintf(error->text, sizeof error->text,
             "%s holds a secret key and may be read by other users (mode %03o): run `chmod 600` on it; if others may have "
             "read it, replace the worker's key (penstock key)",
             path, (unsigned)(status.st_mode & 0777));
    return false;
}

bool pnsk_connect_file_read(const char *path, pnsk_connect_file *out, pnsk_error *error)
{
    FILE *file = fopen(path, "rb");
    char *text = malloc(MAX_FILE + 1);
    const size_t size = file != NULL && text != NULL ? fread(text, 1, MAX_FILE + 1, file) : 0;
    bool good = false;
    error->no_memory = text == NULL;
    if (text == NULL)
        snprintf(error->text, sizeof error->text, "out of memory while reading %s", path);
    else if (file == NULL || ferror(file))
        snprintf(error->text, sizeof error->text,
                 "cannot read %s (%s): is the study running, and is this path (PENSTOCK_CONNECT) right?", path,
                 strerror(errno));
    else if (size > MAX_FILE)
        snprintf(error->text, sizeof error->text,
                 "%s is not a connect.json of this version of Penstock: it has more than %d bytes", path, MAX_FILE);
    else
        good = pnsk_connect_file_parse(text, size, path, out, error) && is_private(file, path, error);
    if (file != NULL)
        fclose(file);
    if (text != NULL)
        pnsk_wipe(text, MAX_FILE + 1);
    free(text);
    return good;
}
