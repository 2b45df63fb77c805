#define MELISSA_NO_MPI
#include "melissa_api.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "melissa_fields.h"

/* One call of melissa_init: a field, or a component NAME[X] of the field NAME. */
typedef struct {
    char name[256];
    size_t field;    /* number of the announced field */
    size_t position; /* among the field's components */
    uint64_t offset, mine, total;
    int64_t sent;    /* number of time steps sent */
    double *held;    /* values of the first time step, until the fields are announced */
} component;

/* An announced field. Its components are `count` neighbours in the.components. */
typedef struct {
    size_t first, count;
    double *values; /* this process's part of a time step, components side by side; NULL for a single component */
} field;

static struct {
    penstock *handle;
    melissa_end *die;
    component *components;
    size_t n_components;
    field *fields; /* NULL until the fields are announced: at the second time step, or at the end */
    size_t n_fields;
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
    char text[512];
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

/* Length of the field's name in the name of a component: NAME in NAME[X], otherwise the whole name. */
static size_t stem(const char *name)
{
    const char *bracket = strchr(name, '[');
    const size_t size = strlen(name);
    return bracket != NULL && bracket != name && size > 2 && name[size - 1] == ']' ? (size_t)(bracket - name) : size;
}

static int is_component(const component *c)
{
    return c->name[stem(c->name)] != '\0';
}

/* Find the field that a new name belongs to, and check that the name fits what it has already. */
static size_t field_of(const component *added)
{
    for (size_t i = 0; i < the.n_components; i++) {
        const component *c = &the.components[i];
        if (strcmp(c->name, added->name) == 0)
            misuse("melissa_init", added->name, "the field has been initialised before; initialise it once");
        const size_t size = stem(c->name);
        if (size != stem(added->name) || strncmp(c->name, added->name, size) != 0)
            continue;
        if (!is_component(c) || !is_component(added))
            misuse("melissa_init", added->name, "a field is sent whole or in components NAME[X], not both");
        if (c->total != added->total || c->mine != added->mine)
            misuse("melissa_init", added->name, "the components of a field must have the same vect_size");
        return c->field;
    }
    return the.n_fields++;
}

void melissa_add_field(const char *name, uint64_t offset, uint64_t mine, uint64_t total)
{
    if (the.fields != NULL)
        misuse("melissa_init", name,
               "the first time step is complete; initialise and send every field in the first time step (a field that is "
               "written less often than the others cannot be streamed)");
    component *grown = realloc(the.components, (the.n_components + 1) * sizeof *grown);
    if (grown == NULL)
        misuse("melissa_init", name, "out of memory");
    the.components = grown;
    if (strlen(name) >= sizeof grown->name)
        misuse("melissa_init", name, "the name is longer than 255 bytes (in Fortran: end it with c_null_char)");
    component *c = &the.components[the.n_components];
    *c = (component){.offset = offset, .mine = mine, .total = total};
    strcpy(c->name, name);
    c->field = field_of(c);
    the.n_components++;
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

/* Sort by field, then X before Y before Z, XX before XY, 2 before 10: the order must not depend on the solver. */
static int compare(const void *left, const void *right)
{
    const component *a = left, *b = right;
    if (a->field != b->field)
        return a->field < b->field ? -1 : 1;
    const size_t a_size = strlen(a->name), b_size = strlen(b->name);
    return a_size != b_size ? (a_size < b_size ? -1 : 1) : strcmp(a->name, b->name);
}

/* Put the components of each field side by side, and make room for the parts of fields with several. */
static void group(void)
{
    qsort(the.components, the.n_components, sizeof *the.components, compare);
    the.fields = calloc(the.n_fields, sizeof *the.fields);
    if (the.fields == NULL)
        misuse("melissa_send", the.components[0].name, "out of memory");
    for (size_t i = 0; i < the.n_components; i++) {
        component *c = &the.components[i];
        field *f = &the.fields[c->field];
        f->first = f->count == 0 ? i : f->first;
        c->position = f->count++;
    }
    for (size_t k = 0; k < the.n_fields; k++) {
        field *f = &the.fields[k];
        const component *c = &the.components[f->first];
        if (f->count > 1 && c->mine != 0 && (f->values = calloc(c->mine, f->count * sizeof *f->values)) == NULL)
            misuse("melissa_send", c->name, "out of memory");
    }
}

static void announce(void)
{
    group();
    penstock_field *fields = calloc(the.n_fields, sizeof *fields);
    char(*names)[sizeof the.components->name] = calloc(the.n_fields, sizeof *names);
    if (fields == NULL || names == NULL)
        misuse("melissa_send", the.components[0].name, "out of memory");
    for (size_t k = 0; k < the.n_fields; k++) {
        const component *c = &the.components[the.fields[k].first];
        memcpy(names[k], c->name, stem(c->name));
        fields[k] = (penstock_field){.name = names[k],
                                     .dtype = PENSTOCK_FLOAT64,
                                     .components = (uint32_t)the.fields[k].count,
                                     .n_dimensions = 1,
                                     .shape = &c->total};
    }
    const penstock_status status = penstock_announce(the.handle, fields, the.n_fields);
    free(fields);
    free(names);
    check(status);
}

/* Send a component's part of its next time step; a field with several once the last of them is there. */
static void send(component *c, const double *values)
{
    const field *f = &the.fields[c->field];
    const int64_t step = c->sent++;
    if (f->count == 1) {
        check(penstock_send(the.handle, c->field, step, NAN, PENSTOCK_FLOAT64, values, c->offset, c->mine));
        return;
    }
    for (uint64_t i = 0; i < c->mine; i++)
        f->values[i * f->count + c->position] = values[i];
    for (size_t i = f->first; i < f->first + f->count; i++)
        if (the.components[i].sent <= step)
            return;
    check(penstock_send(the.handle, c->field, step, NAN, PENSTOCK_FLOAT64, f->values, c->offset * f->count,
                        c->mine * f->count));
}

/* Announce the fields and send the first time step, which is complete. */
static void open_stream(void)
{
    announce();
    for (size_t i = 0; i < the.n_components; i++)
        the.components[i].sent = 0;
    for (size_t i = 0; i < the.n_components; i++) {
        component *c = &the.components[i];
        send(c, c->held);
        free(c->held);
        c->held = NULL;
    }
    check(penstock_step_sent(the.handle));
}

/* Keep a copy: fields may be initialised until the first time step is complete. */
static void hold(component *c, const double *values)
{
    c->held = malloc((size_t)c->mine * sizeof *values + 1); /* + 1: malloc(0) may be NULL */
    if (c->held == NULL)
        misuse("melissa_send", c->name, "out of memory");
    if (c->mine != 0)
        memcpy(c->held, values, (size_t)c->mine * sizeof *values);
    c->sent = 1;
}

static component *find(const char *name)
{
    for (size_t i = 0; i < the.n_components; i++)
        if (strcmp(the.components[i].name, name) == 0)
            return &the.components[i];
    misuse("melissa_send", name, "initialise the field first");
}

void melissa_send(const char *field_name, const double *send_vect)
{
    component *c = find(field_name);
    size_t behind = 0;
    for (size_t i = 0; i < the.n_components; i++)
        if (the.components[i].sent < c->sent)
            misuse("melissa_send", field_name, "send all fields of a time step before the next time step");
    if (the.fields == NULL && c->sent == 0) {
        hold(c, send_vect);
        return;
    }
    if (the.fields == NULL) {
        open_stream();
        c = find(field_name); /* the components have been sorted */
    }
    send(c, send_vect);
    for (size_t i = 0; i < the.n_components; i++)
        behind += the.components[i].sent < c->sent;
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
    for (size_t i = 1; i < the.n_components; i++)
        if (the.components[i].sent != the.components[0].sent)
            misuse("melissa_finalize", the.components[i].name, "its last time step has not been sent");
    if (the.fields == NULL && the.n_components != 0 && the.components[0].sent != 0)
        open_stream();
    check(penstock_finish(the.handle));
    penstock_close(the.handle);
    for (size_t k = 0; the.fields != NULL && k < the.n_fields; k++)
        free(the.fields[k].values);
    free(the.fields);
    free(the.components);
    memset(&the, 0, sizeof the);
}
