/* A table for people: a head, rows, columns as wide as they need be. */
#ifndef TOOLS_POOLCTL_TABLE_H
#define TOOLS_POOLCTL_TABLE_H

#include <stddef.h>
#include <stdio.h>

#define TABLE_COLUMNS_MAX 12

struct table {
	const char *const *heads; /* ">HEAD": right-aligned */
	int columns;
	char **cells; /* row by row */
	size_t cell_count, cell_cap;
};

/* heads ends with NULL. */
void table_init(struct table *table, const char *const *heads);
/* The next cell of the present row. */
void table_cell(struct table *table, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prints and frees. */
void table_print(struct table *table, FILE *file);

#endif
