#define MELISSA_NO_MPI
#include "melissa_api.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "melissa_fields.h"

typedef struct {
    char name[256];
    uint64_t offset, mine, total;
    int64_t sent; /* number of time steps sent */
} field;

static struct {
    penstock *handle;
    melissa_end *die;
    field *fields;
    size_t n_fields;
    int announced;
} the;

static void end_process(penstock *handle, const char *message)
{
    char why[512];
    snprintf(why, sizeof why, "%s", message != NULL ? message : penstock_error(handle));
    fprintf(stderr, "penstock: %s\n", why);
    if (handle != NULL && penstock_simulation(handle) >= 0)
        (void)penstock_fail(handle, why);
    penstock_close(handle);
    exit(1);
}

/* End the program after a call that Melissa's API does not allow or that cannot be served. */
static _Noreturn void misuse(const char *call, const char *name, const char *what)
{
    char text[256];
    snprintf(text, sizeof text, "%s(\"%.50s\"): %s", call, name, what);
    (the.die != NULL ? the.die : end_process)(the.handle, text);
    abort(); /* unreachable: the call above does not return */
}

static void check(penstock_status status)
{
    if (status != PENSTOCK_OK)
        the.die(the.handle, NULL);
}

penstock *melissa_handle(void)
{
    return the.handle;
}

void melissa_connected(penstock *handle, melissa_end *die)
{
    the.handle = handle;
    the.die = die;
}

void melissa_add_field(const char *name, uint64_t offset, uint64_t mine, uint64_t total)
{
    field *grown = realloc(the.fields, (the.n_fields + 1) * sizeof *grown);
    if (grown == NULL)
        misuse("melissa_init", name, "out of memory");
    the.fields = grown;
    if (the.announced)
        misuse("melissa_init", name, "a field has been sent already; initialise all fields first");
    if (strlen(name) >= sizeof grown->name)
        misuse("melissa_init", name, "the name is longer than 255 bytes (in Fortran: end it with c_null_char)");
    field *f = &the.fields[the.n_fields++];
    *f = (field){.offset = offset, .mine = mine, .total = total};
    strcpy(f->name, name);
}

void melissa_init_no_mpi(const char *field_name, int vect_size)
{
    if (the.handle == NULL) {
        penstock *handle;
        const penstock_status status = penstock_connect(&handle, NULL, 0, 1);
        melissa_connected(handle, end_process);
        check(status);
        check(penstock_begin(handle));
    }
    if (vect_size < 1)
        misuse("melissa_init_no_mpi", field_name, "vect_size must be at least 1");
    melissa_add_field(field_name, 0, (uint64_t)vect_size, (uint64_t)vect_size);
}

void melissa_init_no_mpi_f(const char *field_name, int *vect_size)
{
    melissa_init_no_mpi(field_name, *vect_size);
}

static void announce(void)
{
    penstock_field *fields = calloc(the.n_fields, sizeof *fields);
    if (fields == NULL)
        misuse("melissa_send", the.fields[0].name, "out of memory");
    for (size_t i = 0; i < the.n_fields; i++)
        fields[i] = (penstock_field){.name = the.fields[i].name,
                                     .dtype = PENSTOCK_FLOAT64,
                                     .components = 1,
                                     .n_dimensions = 1,
                                     .shape = &the.fields[i].total};
    const penstock_status status = penstock_announce(the.handle, fields, the.n_fields);
    free(fields);
    check(status);
    the.announced = 1;
}

void melissa_send(const char *field_name, const double *send_vect)
{
    size_t at = 0, behind = 0;
    while (at < the.n_fields && strcmp(the.fields[at].name, field_name) != 0)
        at++;
    if (at == the.n_fields)
        misuse("melissa_send", field_name, "initialise the field first");
    if (!the.announced)
        announce();
    field *f = &the.fields[at];
    for (size_t i = 0; i < the.n_fields; i++)
        if (the.fields[i].sent < f->sent)
            misuse("melissa_send", field_name, "send all fields of a time step before the next time step");
    check(penstock_send(the.handle, at, f->sent, NAN, PENSTOCK_FLOAT64, send_vect, f->offset, f->mine));
    f->sent++;
    for (size_t i = 0; i < the.n_fields; i++)
        behind += the.fields[i].sent < f->sent;
    if (behind == 0)
        check(penstock_step_sent(the.handle));
}

void melissa_send_no_mpi(const char *field_name, const double *send_vect)
{
    melissa_send(field_name, send_vect);
}

void melissa_finalize(void)
{
    if (the.handle == NULL)
        misuse("melissa_finalize", "", "no field has been initialised");
    for (size_t i = 1; i < the.n_fields; i++)
        if (the.fields[i].sent != the.fields[0].sent)
            misuse("melissa_finalize", the.fields[i].name, "its last time step has not been sent");
    check(penstock_finish(the.handle));
    penstock_close(the.handle);
    free(the.fields);
    memset(&the, 0, sizeof the);
}
