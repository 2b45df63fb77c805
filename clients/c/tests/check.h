/* For solvers of the tests: the handle, and the end of the program when a call fails. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>

#include "penstock.h"

static penstock *p;

/* Print why a call has failed and exit with its penstock_status. */
static void check(penstock_status status, const char *call)
{
    if (status == PENSTOCK_OK)
        return;
    printf("%s: %s\n", call, penstock_error(p));
    penstock_close(p);
    exit(status);
}

#endif
