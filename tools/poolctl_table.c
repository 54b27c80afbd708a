/* A table for people: see poolctl_table.h. Cells are text of any origin: control characters become '?', and columns count
 * characters, not bytes. Without memory a cell is left empty. */
#include "tools/poolctl_table.h"

#include <assert.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>

void table_init(struct table *table, const char *const *heads)
{
	*table = (struct table){ .heads = heads };
	while (heads[table->columns])
		table->columns++;
	assert(table->columns <= TABLE_COLUMNS_MAX);
}

static void replace_controls(char *text)
{
	for (; text && *text; text++) {
		if ((unsigned char)*text < ' ' || *text == 127)
			*text = '?';
	}
}

void table_cell(struct table *table, const char *fmt, ...)
{
	char *text = NULL;
	va_list args;

	if (table->cell_count == table->cell_cap) {
		size_t cap = table->cell_cap ? 2 * table->cell_cap : 64;
		char **cells = realloc(table->cells, cap * sizeof(*cells));

		if (!cells)
			return;
		table->cells = cells;
		table->cell_cap = cap;
	}
	va_start(args, fmt);
	if (vasprintf(&text, fmt, args) < 0)
		text = NULL;
	va_end(args);
	replace_controls(text);
	table->cells[table->cell_count++] = text;
}

/* Characters of UTF-8 text. */
static int width_of(const char *text)
{
	int width = 0;

	for (; text && *text; text++)
		width += ((unsigned char)*text & 0xc0) != 0x80;
	return width;
}

static const char *head_text(const char *head)
{
	return *head == '>' ? head + 1 : head;
}

static void measure(const struct table *table, int *widths)
{
	for (int c = 0; c < table->columns; c++)
		widths[c] = width_of(head_text(table->heads[c]));
	for (size_t i = 0; i < table->cell_count; i++) {
		int width = width_of(table->cells[i]), c = (int)(i % (size_t)table->columns);

		if (width > widths[c])
			widths[c] = width;
	}
}

/* The last column is not filled up, so that lines do not end in blanks. */
static void print_cell(FILE *file, const struct table *table, int column, int width, const char *text)
{
	int pad = width - width_of(text);
	bool last = column == table->columns - 1;

	if (*table->heads[column] == '>')
		fprintf(file, "%*s%s", pad, "", text ? text : "");
	else
		fprintf(file, "%s%*s", text ? text : "", last ? 0 : pad, "");
	fputs(last ? "\n" : "  ", file);
}

void table_print(struct table *table, FILE *file)
{
	int widths[TABLE_COLUMNS_MAX] = { 0 };

	measure(table, widths);
	for (int c = 0; c < table->columns; c++)
		print_cell(file, table, c, widths[c], head_text(table->heads[c]));
	for (size_t i = 0; i < table->cell_count; i++) {
		int c = (int)(i % (size_t)table->columns);

		print_cell(file, table, c, widths[c], table->cells[i]);
		free(table->cells[i]);
	}
	free(table->cells);
}
