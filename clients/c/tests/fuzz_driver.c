/* A small coverage-guided fuzzer for a target with libFuzzer's entry point, for compilers without libFuzzer.
 *
 * Usage: fuzz SEEDS INPUTS [SEED] or: fuzz INPUT. SEEDS is a folder of inputs to start from; those that reach code in a way that none
 * before has done are kept in memory and changed further. Build with -fsanitize=address,undefined
 * -fsanitize-coverage=trace-pc. A finding ends it; the input is left in ./fuzz-finding.
 */
#define _DEFAULT_SOURCE
#include <dirent.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define MAX_SIZE 4096
#define MAX_CORPUS 4096
#define MAP 65536
#define HANG_SECONDS 20
#define EVERY 1024 /* inputs between two looks at the clock */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
void __sanitizer_cov_trace_pc(void);
void __sanitizer_set_death_callback(void (*callback)(void));
__attribute__((visibility("default"))) const char *__asan_default_options(void);

typedef struct {
    uint8_t *data;
    size_t size;
} input;

static input corpus[MAX_CORPUS];
static size_t n_corpus;
static uint8_t now_in[MAX_SIZE];
static size_t now_size;
static uint8_t hits[MAP], seen[MAP];
static bool tracing;
static uint64_t state;

/* No parser allocates more than this: the largest is a WELCOME's table of 2^16 names, 512 KiB, or a string of 1 MiB. */
__attribute__((visibility("default"))) const char *__asan_default_options(void)
{
    return "max_allocation_size_mb=4:quarantine_size_mb=4:allocator_may_return_null=0";
}

__attribute__((no_sanitize_coverage, no_sanitize_address)) void __sanitizer_cov_trace_pc(void)
{
    static uintptr_t before;
    if (!tracing)
        return;
    const uintptr_t at = (uintptr_t)__builtin_return_address(0);
    hits[((at >> 1) ^ before) % MAP]++;
    before = at;
}

static void keep_finding(void)
{
    FILE *file = fopen("fuzz-finding", "wb");
    if (file == NULL)
        return;
    fwrite(now_in, 1, now_size, file);
    fclose(file);
    fprintf(stderr, "the input is in ./fuzz-finding, %zu bytes\n", now_size);
}

static void ended(int number)
{
    fprintf(stderr, "FINDING: %s\n", number == SIGALRM ? "an input took too long" : "abort");
    keep_finding();
    _exit(1);
}

static uint64_t number(uint64_t limit) /* xorshift64* */
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return (state * 0x2545F4914F6CDD1Du >> 11) % limit;
}

/* How often an edge was taken, as one of eight bits: a loop of 100 is not another way than one of 101. */
static uint8_t bucket(uint8_t count)
{
    static const uint8_t limits[] = {1, 2, 3, 7, 15, 31, 127};
    if (count == 0)
        return 0;
    unsigned bit = 0;
    while (bit < sizeof limits && count > limits[bit])
        bit++;
    return (uint8_t)(1u << bit);
}

/* Run what is in now_in; true when it went where none has gone. */
static bool run(void)
{
    memset(hits, 0, sizeof hits);
    tracing = true;
    LLVMFuzzerTestOneInput(now_in, now_size);
    tracing = false;
    bool fresh = false;
    for (size_t i = 0; i < MAP; i += 8) {
        uint64_t any;
        memcpy(&any, hits + i, sizeof any);
        for (size_t k = i; any != 0 && k < i + 8; k++) {
            const uint8_t bits = bucket(hits[k]);
            fresh = fresh || (bits & ~seen[k]) != 0;
            seen[k] |= bits;
        }
    }
    return fresh;
}

static void keep(void)
{
    const size_t place = n_corpus < MAX_CORPUS ? n_corpus++ : (size_t)number(MAX_CORPUS);
    free(corpus[place].data);
    corpus[place].data = malloc(now_size != 0 ? now_size : 1);
    if (corpus[place].data == NULL)
        abort();
    memcpy(corpus[place].data, now_in, now_size);
    corpus[place].size = now_size;
}

static void put_in(size_t at, size_t size)
{
    if (now_size + size > MAX_SIZE)
        return;
    memmove(now_in + at + size, now_in + at, now_size - at);
    now_size += size;
    for (size_t i = 0; i < size; i++)
        now_in[at + i] = (uint8_t)number(256);
}

static void change(void)
{
    static const uint64_t telling[] = {0, 1, 2, 3, 4, 7, 8, 16, 64, 127, 128, 255, 256, 65535, 65536, 65537, 1u << 20, (1u << 20) + 1,
                                       INT32_MAX, UINT32_MAX, INT64_MAX, UINT64_MAX};
    const size_t at = now_size != 0 ? (size_t)number(now_size) : 0, left = now_size - at;
    switch (number(8)) {
    case 0:
        if (left != 0)
            now_in[at] ^= (uint8_t)(1 << number(8));
        break;
    case 1:
        if (left != 0)
            now_in[at] = (uint8_t)number(256);
        break;
    case 2:
    case 3: {
        const size_t size = (size_t)1 << number(4);
        const uint64_t value = telling[number(sizeof telling / sizeof *telling)];
        for (size_t i = 0; i < size && i < left; i++)
            now_in[at + i] = (uint8_t)(value >> (8 * i));
        break;
    }
    case 4: put_in(at, 1 + (size_t)number(16)); break;
    case 5: {
        size_t size = 1 + (size_t)number(32);
        size = size < left ? size : left;
        memmove(now_in + at, now_in + at + size, left - size);
        now_size -= size;
        break;
    }
    case 6: now_size = at + 1 < now_size ? at + 1 : now_size; break;
    default: { /* a stretch of another input */
        const input *other = &corpus[number(n_corpus)];
        const size_t from = other->size != 0 ? (size_t)number(other->size) : 0;
        size_t size = (size_t)number(65);
        size = size < other->size - from ? size : other->size - from;
        if (now_size + size <= MAX_SIZE) {
            put_in(at, size);
            memcpy(now_in + at, other->data + from, size);
        }
    }
    }
}

static size_t read_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return 0;
    now_size = fread(now_in, 1, MAX_SIZE, file);
    fclose(file);
    return now_size;
}

static bool read_seeds(const char *folder)
{
    DIR *open_folder = opendir(folder);
    const struct dirent *entry;
    while (open_folder != NULL && (entry = readdir(open_folder)) != NULL) {
        char path[4096];
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] != '.' && read_file(path) != 0) {
            run();
            keep();
        }
    }
    if (open_folder != NULL)
        closedir(open_folder);
    return n_corpus != 0;
}

static double resident_mib(void)
{
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (file == NULL || fscanf(file, "%ld %ld", &pages, &resident) != 2)
        resident = 0;
    if (file != NULL)
        fclose(file);
    return (double)resident * (double)sysconf(_SC_PAGESIZE) / 1048576;
}

int main(int argc, char **argv)
{
    signal(SIGALRM, ended);
    signal(SIGABRT, ended);
    __sanitizer_set_death_callback(keep_finding);
    if (argc == 2)
        return read_file(argv[1]) != 0 ? LLVMFuzzerTestOneInput(now_in, now_size) : 2;
    if (argc < 3)
        return 2;
    const uint64_t inputs = strtoull(argv[2], NULL, 10);
    state = 0x9E3779B97F4A7C15u ^ (argc > 3 ? strtoull(argv[3], NULL, 10) : 1);
    if (!read_seeds(argv[1]))
        return 2;
    const size_t n_seeds = n_corpus;
    struct timespec begun, now;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    double settled = 0;
    for (uint64_t i = 0; i < inputs; i++) {
        if (i % EVERY == 0)
            alarm(HANG_SECONDS);
        if (i == inputs / 10)
            settled = resident_mib();
        const input *from = &corpus[number(n_corpus)];
        now_size = from->size;
        memcpy(now_in, from->data, from->size);
        for (uint64_t changes = 1 + number(6); changes != 0; changes--)
            change();
        if (run())
            keep();
    }
    clock_gettime(CLOCK_MONOTONIC, &now);
    size_t edges = 0;
    for (size_t i = 0; i < MAP; i++)
        edges += seen[i] != 0;
    const double seconds = (double)(now.tv_sec - begun.tv_sec) + 1e-9 * (double)(now.tv_nsec - begun.tv_nsec);
    printf("%llu inputs in %.1f s (%.0f/s), %zu edges, %zu inputs kept beside %zu seeds, RSS %.1f MiB, at the end %.1f MiB\n",
           (unsigned long long)inputs, seconds, (double)inputs / seconds, edges, n_corpus - n_seeds, n_seeds, settled,
           resident_mib());
    for (size_t i = 0; i < n_corpus; i++)
        free(corpus[i].data);
    return 0;
}
